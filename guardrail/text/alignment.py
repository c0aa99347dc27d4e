"""Which words of a sentence stand in its rewrite, and which stretches were exchanged for which.

Words are compared by their stems, so that inflection, spelling and letter case do not count; ``isn't``,
``isn 't`` and ``isnt`` are two words, "is" and a negation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache

from guardrail.outcome import Span
from guardrail.text.wordlists import word_set

__all__ = ["NEGATION", "AlignedWord", "Stretch", "aligned", "common_prefix", "key_of", "words_of"]

NEGATION = "<not>"
"""The key of every negation."""
MAX_ALIGNED = 160
"""Words beyond which what lies between common beginning and end is one stretch: alignment is quadratic."""

_TOKEN = re.compile(
    r"(?P<negated>\b(?:ai|are|ca|could|dare|did|does|do|had|has|have|is|might|must|need|ought|sha|should|was|were|wo|would))"
    r"(?P<nt>n\s?['’´`]?\s?t)\b"  # also dont, don 't and don t, as people and tokenisers write
    r"|(?P<word>[^\W_]+(?:['’´`][^\W_]+)*)",
    re.IGNORECASE,
)
_NEGATIONS = word_set(
    """
    not no never none nobody nothing nowhere neither nor without cannot cant aint dunno idk
    """
)
FUNCTION = word_set(
    """
    a an the this that these those some any each such what which who whom whose whoever whatever how
    why when where while i me my mine myself you your yours yourself yourselves u ur ya he him his
    himself she her hers herself it its itself we us our ours ourselves they them their theirs
    themselves im ive id ill youre youve youll youd hes shes theyre theyve were weve thats whats
    theres heres lets am is are was be been being do does did done doing have has had having will
    would shall should can could may might must ought gonna gotta wanna need to of in on at by for
    with about from into onto over under up down out off as than then so too very ever just only
    even also still yet now here there again and or but if because since although though unless
    until plus like please pls plz oh ah well yes yeah yep no hey hi lol lmao haha rt one ones
    really quite rather pretty much more most less least lot lots bit kind sort thing things stuff
    way get gets got getting go goes going gone went come let make makes made making take takes took
    put say says said saying know think thought see look want wants keep keeps person people man men
    woman women guy guys someone somebody everyone everybody anyone anybody dude bro mate man
    everything something anything both all every own other others another n r y s d ll ve re m t o w
    ok okay xd tbh imo btw omg wtf hell heck damn god jesus christ sir madam
    """
)
"""Words that may come and go in a rewrite without a change of what it is about."""
_SAME = {
    "ur": "your",
    "u": "you",
    "r": "are",
    "y": "why",
    "n": "and",
    "ppl": "people",
    "pls": "please",
    "plz": "please",
    "bc": "because",
    "cuz": "because",
    "cos": "because",
    "gonna": "going",
    "wanna": "want",
    "thru": "through",
    "tho": "though",
    "w": "with",
    "im": "i",
    "theyre": "they",
    "youre": "you",
    "thats": "that",
    "mum": "mom",
    "grey": "gray",
    "programme": "program",
    "cheque": "check",
    "tyre": "tire",
    "bought": "buy",
    "men": "man",
    "women": "woman",
    "children": "child",
    "kids": "child",
    "kid": "child",
    "feet": "foot",
    "teeth": "tooth",
    "thought": "think",
    "taught": "teach",
    "caught": "catch",
    "brought": "bring",
    "sold": "sell",
    "told": "tell",
    "wrote": "write",
    "written": "write",
    "writing": "write",
    "spent": "spend",
    "sent": "send",
    "lost": "lose",
    "paid": "pay",
    "kept": "keep",
    "left": "leave",
    "knew": "know",
    "known": "know",
    "gave": "give",
    "given": "give",
    "took": "take",
    "taken": "take",
    "saw": "see",
    "seen": "see",
    "broke": "break",
    "broken": "break",
    "spoke": "speak",
    "drove": "drive",
    "driven": "drive",
    "ran": "run",
    "running": "run",
    "ate": "eat",
    "eaten": "eat",
    "fell": "fall",
    "forgot": "forget",
    "forgotten": "forget",
    "stole": "steal",
    "stolen": "steal",
    "chose": "choose",
    "chosen": "choose",
    "won": "win",
    "held": "hold",
    "built": "build",
    "met": "meet",
    "stood": "stand",
    "understood": "understand",
    "slept": "sleep",
    "asleep": "sleep",
    "felt": "feel",
    "heard": "hear",
    "meant": "mean",
    "wore": "wear",
    "worn": "wear",
    "grew": "grow",
    "grown": "grow",
    "flew": "fly",
    "threw": "throw",
    "thrown": "throw",
    "sat": "sit",
    "began": "begin",
    "begun": "begin",
    "rode": "ride",
    "hid": "hide",
    "hidden": "hide",
    "bit": "bite",
    "sang": "sing",
    "swam": "swim",
    "second": "two",
    "twice": "two",
    "once": "one",
    "third": "three",
    "thrice": "three",
}
_ENDINGS = (
    "ingly",
    "edly",
    "iness",
    "ments",
    "ment",
    "ness",
    "ings",
    "ing",
    "ies",
    "ied",
    "ers",
    "est",
    "ed",
    "er",
    "es",
    "ly",
    "'s",
    "s",
)
_STEM = 5
_PARTING = re.compile(r"[.,;:!?()\n–—]")
_ANSWER = re.compile(r"\s?[,.!?;:]|\s?$")


@dataclass(frozen=True, slots=True)
class AlignedWord:
    """A word of a text: where it stands, its stem in lower case, and whether it carries content.

    ``clause`` counts the marks before it that part clauses.
    """

    text: str
    key: str
    span: Span
    content: bool
    clause: int = 0

    @property
    def negates(self) -> bool:
        """True for "not", "never", "nobody" and their like."""
        return self.key == NEGATION


@dataclass(frozen=True, slots=True)
class Stretch:
    """Words of a source, by position from ``start`` to ``end``, and what a candidate has in their place."""

    start: int
    end: int
    new_start: int
    new_end: int


@lru_cache(maxsize=256)
def words_of(text: str) -> tuple[AlignedWord, ...]:
    """All words of a text in order."""
    found: list[AlignedWord] = []
    clause = end = 0
    for match in _TOKEN.finditer(text):
        clause += bool(_PARTING.search(text, end, match.start()))
        end = match.end()
        if match["negated"]:
            found.append(_word(match["negated"], Span(*match.span("negated")), clause))
            found.append(
                AlignedWord(match["nt"], NEGATION, Span(*match.span("nt")), content=False, clause=clause)
            )
            continue
        word = _word(match["word"], Span(*match.span("word")), clause)
        if word.text.casefold() == "no" and _ANSWER.match(text, match.end()):
            # an answer, and denies nothing that follows
            word = AlignedWord(word.text, "no", word.span, content=False, clause=clause)
        found.append(word)
    return tuple(found)


def _word(text: str, span: Span, clause: int) -> AlignedWord:
    folded = text.casefold().replace("’", "'").replace("´", "'").replace("`", "'")
    if folded in _NEGATIONS:
        return AlignedWord(text, NEGATION, span, content=False, clause=clause)
    plain = folded.replace("'", "")
    is_content = plain not in FUNCTION and folded.partition("'")[0] not in FUNCTION and len(plain) > 1
    return AlignedWord(
        text, key_of(folded), span, content=is_content and not plain.isdecimal(), clause=clause
    )


@lru_cache(maxsize=8192)
def key_of(word: str) -> str:
    """The stem of a word: equal for its inflections and spellings, and short enough to forgive the rest."""
    word = word.removesuffix("'s")
    word = _SAME.get(word.replace("'", ""), word.partition("'")[0] or word)
    word = re.sub(r"(.)\1{2,}", r"\1", word)  # soooo
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            break
    if len(word) > 3 and word[-1] == word[-2]:
        word = word[:-1]  # stopp(ed)
    if len(word) > 3 and word[-1] in "eiy":
        word = word[:-1]
    return word.replace("our", "or").replace("z", "s").replace("ph", "f")[:_STEM]


def aligned(source: Sequence[AlignedWord], candidate: Sequence[AlignedWord]) -> list[Stretch]:
    """The stretches in which a candidate differs, in order; what lies between them is the same.

    A word or two of grammar that two stretches share does not part them.
    """
    old, new = [word.key for word in source], [word.key for word in candidate]
    first = common_prefix(old, new)
    last = common_prefix(old[first:][::-1], new[first:][::-1])
    end, new_end = len(old) - last, len(new) - last
    if max(end, new_end) - first > MAX_ALIGNED:
        return [Stretch(first, end, first, new_end)]
    matcher = SequenceMatcher(None, old[first:end], new[first:new_end], autojunk=False)
    stretches: list[Stretch] = []
    for tag, a, b, c, d in matcher.get_opcodes():
        if tag == "equal":
            continue
        stretch = Stretch(first + a, first + b, first + c, first + d)
        before = stretches[-1] if stretches else None
        if (
            before
            and not any(word.content for word in source[before.end : stretch.start])
            and stretch.start - before.end <= 2
        ):
            stretches[-1] = Stretch(before.start, stretch.end, before.new_start, stretch.new_end)
        else:
            stretches.append(stretch)
    return stretches


def common_prefix(old: Sequence[object], new: Sequence[object]) -> int:
    """How many items two sequences share from their beginning on."""
    length = 0
    for a, b in zip(old, new, strict=False):
        if a != b:
            break
        length += 1
    return length
