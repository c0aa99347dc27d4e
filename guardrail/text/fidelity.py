"""How faithful a rewrite is, read off its words: what was lost, gained, turned round or filled with nothing.

Source and candidate are aligned. What the toxic spans touch may change freely, all else has to stay. Where
the whole sentence was rewritten, and if there are no spans, the bounds are wide: a model has to judge.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path

from guardrail.outcome import Span
from guardrail.text.alignment import AlignedWord, Stretch, aligned, key_of, words_of
from guardrail.text.wordlists import word_set

__all__ = ["Comparison", "compared"]

LIST = Path(__file__).parent.parent / "shipped" / "reading" / "opinion.txt"

MIN_GUTTED = 2
GUTTED_SHARE = 0.5
GUTTED_SIMILARITY = 0.4
"""So many words lost without a counterpart, at such a share of all, and the meaning farther off than this."""
MIN_INVENTED = 3
"""Words gained without a counterpart."""
EDITED = 0.2
"""Share of lost words up to which a sentence was edited, and not written anew."""


@dataclass(frozen=True, slots=True)
class Opinions:
    """Words that turn an opinion round: opposites of a word and of its stem, words of praise, of blame."""

    opposites: Mapping[str, frozenset[str]]
    stems: Mapping[str, frozenset[str]]
    praise: frozenset[str]
    blame: frozenset[str]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A source and its candidate, word by word; ``toxic`` are positions of source words under a span."""

    source: tuple[AlignedWord, ...]
    candidate: tuple[AlignedWord, ...]
    stretches: tuple[Stretch, ...]
    toxic: frozenset[int]

    @property
    def kept(self) -> list[AlignedWord]:
        """Content words of the source that have to survive."""
        return [word for i, word in enumerate(self.source) if word.content and i not in self.toxic]

    @property
    def has_insult(self) -> bool:
        """True if the spans hold more than words of grammar: else they do not say what is toxic."""
        return any(self.source[i].content for i in self.toxic)

    @property
    def lost(self) -> list[AlignedWord]:
        """Those of them that did not."""
        found = {word.key for word in self.candidate}
        return [word for word in self.kept if word.key not in found]

    @property
    def gained(self) -> list[AlignedWord]:
        """Content words of the candidate that the source has not."""
        known = {word.key for word in self.source}
        return [word for word in self.candidate if word.content and word.key not in known]

    def old(self, stretch: Stretch) -> tuple[AlignedWord, ...]:
        """What a stretch replaces."""
        return self.source[stretch.start : stretch.end]

    def new(self, stretch: Stretch) -> tuple[AlignedWord, ...]:
        """What it puts there."""
        return self.candidate[stretch.new_start : stretch.new_end]


@lru_cache(maxsize=64)
def compared(source: str, candidate: str, spans: tuple[Span, ...]) -> Comparison:
    """The two word by word."""
    old, new = words_of(source), words_of(candidate)
    toxic = frozenset(
        i
        for i, word in enumerate(old)
        if any(span.start < word.span.end and word.span.start < span.end for span in spans)
    )
    return Comparison(old, new, tuple(aligned(old, new)), toxic)


@cache
def opinions() -> Opinions:
    """The shipped list."""
    opposites: dict[str, set[str]] = {}
    found: dict[str, set[str]] = {"+": set(), "-": set()}
    for line in LIST.read_text(encoding="utf-8").splitlines():
        if line[:1] in found:
            found[line[0]] |= set(line[1:].split())
        elif "|" in line and not line.startswith("#"):
            one, other = (word.strip() for word in line.split("|"))
            opposites.setdefault(one, set()).add(other)
            opposites.setdefault(other, set()).add(one)
    stems: dict[str, frozenset[str]] = {}
    for word, others in opposites.items():
        stems[key_of(word)] = stems.get(key_of(word), frozenset()) | {key_of(other) for other in others}
    return Opinions(
        {word: frozenset(others) for word, others in opposites.items()},
        stems,
        frozenset(found["+"]),
        frozenset(found["-"]),
    )


_REACH, _BEHIND = 6, 2
_LEADING = word_set(
    """
    like want going think know see say keep look get go come make take need try able let seem put
    believe
    """
)
"""Verbs that may stand between a negation and what it denies: "I don't want to translate"."""


def negations_changed(comparison: Comparison) -> int:
    """How many words that both texts have are denied in one of them only.

    A negation that came or went with the word that it denies, or with an insult beside it, is free: "idiotic"
    and "not thought out". So is one that says what should not be: "should not have been moved".
    """
    is_edited = len(comparison.lost) <= EDITED * len(comparison.kept)
    elsewhere = [
        s for s in comparison.stretches if s.start == s.end or set(range(s.start, s.end)) - comparison.toxic
    ]
    if not (is_edited if comparison.has_insult else len(elsewhere) == 1):
        return 0  # the sentence was written anew: no telling what the negation is for
    if _is_counterfactual(comparison.source):
        return 0  # "if you had a brain you would have asked": you did not ask
    insulting = [stretch for stretch in comparison.stretches if _is_insult(comparison, stretch)]
    free_old = {i for stretch in insulting for i in range(stretch.start - 1, stretch.end + 1)}
    free_new = {
        i
        for stretch in insulting
        for i in range(
            stretch.new_start - (_SIMILE_REACH if _is_simile(comparison.old(stretch)) else 1),
            stretch.new_end + 1,
        )
    }
    old, new = comparison.source, comparison.candidate
    return len(_newly_denied(old, new, free_new)) + len(_newly_denied(new, old, free_old))


_SIMILE_REACH = 4


def _is_simile(old: tuple[AlignedWord, ...]) -> bool:
    """True for "as a chocolate teapot", "like a fox", "of a wasp": what comes before it may be denied."""
    return any(
        one.text.casefold() in ("as", "like", "of") and two.text.casefold() in ("a", "an", "the")
        for one, two in pairwise(old)
    )


def _is_counterfactual(words: tuple[AlignedWord, ...]) -> bool:
    folded = [word.text.casefold() for word in words if not word.negates]
    perfect = any(pair in _UNREAL for pair in pairwise(folded))
    return "if" in folded and perfect


_UNREAL = frozenset((modal, verb) for modal in ("would", "could", "might") for verb in ("have", "be", "ve"))


def _is_insult(comparison: Comparison, stretch: Stretch) -> bool:
    """True if a toxic word says something, and is not there for emphasis alone.

    "Fuck off" and "don't give a fuck" say it.
    """
    if _folded(comparison.old(stretch)) & {"off", "give", "gives", "gave"}:
        return any(
            comparison.source[i].content for i in range(stretch.start, stretch.end) if i in comparison.toxic
        )
    words = (comparison.source[i] for i in range(stretch.start, stretch.end) if i in comparison.toxic)
    return any(not _EXPLETIVES.fullmatch(word.text.casefold()) and word.content for word in words)


def _newly_denied(
    before: tuple[AlignedWord, ...], after: tuple[AlignedWord, ...], free: Set[int]
) -> set[str]:
    """Stems that a negation denies in ``after``, and that stand in ``before`` with no negation near."""
    standing = {word.key for word in before}
    positive = {word.text.casefold() for word in before}
    comparative = {  # "couldn't be prouder" of "proud"
        word.key for word in after if word.text.endswith("er") and word.text.casefold() not in positive
    }
    near = {word.key for i, word in enumerate(before) if _is_near_negation(before, i)}
    return {
        key
        for i, word in enumerate(after)
        if word.negates and i not in free and not _is_judgement(after, i)
        for key in _denied(after, i)
        if key in standing - near - comparative
    }


_JUDGING = word_set(
    """
    should must ought please pls may need needs ok okay fair acceptable good safe nice right enough
    how even so
    """
)


def _is_judgement(words: tuple[AlignedWord, ...], i: int) -> bool:
    return bool(_folded(words[max(0, i - 2) : i + 3]) & _JUDGING)


_NEARLY_NEGATIONS = re.compile(
    r"unable|fail\w*|doubt\w*|wrong\w*|miss(?:ing|ed|es)?|lack\w*|stop\w*|quit|hardly|barely|rarely"
    r"|refus\w+|forg[eo]t\w*|impossible"
    r"|difficult|instead|unlike|avoid\w*|ignor\w+|den(?:y|ie[sd])|mistake\w*|only|anyone|anybody"
    r"|anything|any|if|why|rather|than|cease"
)
"""What denies without a negation, and what a negation may be traded for."""


def _is_near_negation(words: tuple[AlignedWord, ...], i: int) -> bool:
    around = words[max(0, i - _REACH) : i + _BEHIND + 1]
    return any(word.negates or _NEARLY_NEGATIONS.fullmatch(word.text.casefold()) for word in around)


def _denied(words: tuple[AlignedWord, ...], i: int) -> Iterator[str]:
    """The stem of what the negation at ``i`` denies: the next content word, behind verbs that lead to it.

    It lies in the same clause: "nothing here: do your homework" and "nothing but a poem" deny nothing.
    """
    for j in range(i + 1, min(len(words), i + _REACH)):
        word = words[j]
        if word.negates or word.clause != words[i].clause or word.text.casefold() in ("and", "but"):
            return
        if word.content:
            yield word.key
            return
        if word.text.casefold() in _LEADING and not (
            j + 1 < len(words) and words[j + 1].text.casefold() == "to"
        ):
            return


def is_turned(comparison: Comparison) -> bool:
    """True if a word became its opposite without a negation that makes up for it."""
    is_anew = not comparison.has_insult and len(comparison.lost) > EDITED * len(comparison.kept)
    table = opinions()
    old_words, new_words = _folded(comparison.source), _folded(comparison.candidate)
    for stretch in comparison.stretches:
        old, new = comparison.old(stretch), comparison.new(stretch)
        if (sum(word.negates for word in new) - sum(word.negates for word in old)) % 2:
            continue
        lost = _folded(old) - new_words
        gained = _folded(new) - old_words
        # Where there is no insult and little is left, sarcasm may have been put into plain words.
        if not is_anew and _has_opposites(comparison, old, new):
            return True
        if lost & table.blame and gained & table.praise and not _folded(new) & _WISHES:
            return True
    return False


def _has_opposites(comparison: Comparison, old: Sequence[AlignedWord], new: Sequence[AlignedWord]) -> bool:
    """True if a stem of ``new`` that the source lacks is the opposite of one that the candidate lacks."""
    stems = opinions().stems
    lost = {word.key for word in old} - {word.key for word in comparison.candidate}
    gained = {word.key for word in new} - {word.key for word in comparison.source}
    return any(lost & stems.get(key, frozenset()) for key in gained)


_EXPLETIVES = re.compile(r"(?:mother)?f[u*]?[ck*]+\w*|fkn|damn\w*|goddamn|hell|bloody|ass|freaking")
_ROUGH_PRAISE = re.compile(
    _EXPLETIVES.pattern + "|filthy|sick|wicked|insane|crazy|dirty|nasty|killer|beast|badass|bitch|dope|savage"
)
_WISHES = word_set(
    """
    should could would please more be want wish hope if better try need let must than ought too less
    hardly far so enough lack lacks dont never rather from little unless pretend pretends claim
    claims thinks calls instead behind
    """
)


def is_praised(comparison: Comparison) -> bool:
    """True if praise stands in a toxic word's place: "disgusting" became "good"."""
    praise = opinions().praise
    known = _folded(comparison.source)
    insults = [comparison.source[i].text.casefold() for i in comparison.toxic]
    if all(map(_ROUGH_PRAISE.fullmatch, insults)) and known & (praise | {"love"}):
        return False  # "that goal was filthy, I love it"
    for stretch in comparison.stretches:
        replaced = [i for i in range(stretch.start, stretch.end) if i in comparison.toxic]
        if all(_EXPLETIVES.fullmatch(comparison.source[i].text.casefold()) for i in replaced):
            continue  # "fucking lucky" and "incredibly lucky"
        around = comparison.candidate[max(0, stretch.new_start - 3) : stretch.new_end]
        if any(word.negates or word.text.casefold() in _WISHES for word in around):
            continue
        if _folded(comparison.old(stretch)) & praise:
            continue
        if (_folded(comparison.new(stretch)) - known) & praise:
            return True
    return False


def is_blamed(comparison: Comparison) -> bool:
    """True if rough words praise ("that solo was filthy"), and the candidate takes them for blame."""
    table = opinions()
    rough = [comparison.source[i].text.casefold() for i in comparison.toxic]
    rest = [word for i, word in enumerate(comparison.source) if i not in comparison.toxic]
    said = _folded(rest)
    if not rough or not all(map(_ROUGH_PRAISE.fullmatch, rough)):
        return False
    if not said & table.praise or said & table.blame or any(word.negates for word in rest):
        return False
    if all(map(_EXPLETIVES.fullmatch, rough)):  # they only stress what is beside them: "so fucking good"
        near = {j for i in comparison.toxic for j in range(i - 2, i + 3)}
        if not _folded(word for i, word in enumerate(comparison.source) if i in near) & table.praise:
            return False
    return bool((_folded(comparison.candidate) - said) & table.blame)


def _folded(words: Iterable[AlignedWord]) -> set[str]:
    return {word.text.casefold() for word in words}


_STAND_IN = re.compile(
    r"\b(?:(?P<judged>(?:not (?:so |very |really )?(?:an? )?)?(?:bad|good|nice|great|better|wonderful"
    r"|decent|kind|unkind|wise|unwise|informed|trained|educated"
    r"|intelligent|unpleasant|misguided|mistaken|terrible|awful|horrible|mean|evil|silly|foolish|poor"
    r"|weak|trusted|ordinary|normal|special|unusual|simple|unbearable"
    r"|un[a-z]+(?:ed|able|ful|ive|ent)|in(?:competent|telligent|experienced|sensitive|considerate))"
    r"|complete|total|utter|absolute|fucking|bloody|perfect|freaking|such(?: an?)?|real|proper))"
    r" (?P<noun>persons?|people|m[ae]n|wom[ae]n|guys?|individuals?|human(?: being)?s?|folks?|fellow)\b"
    # nobody at all, unless it goes on: "not a person who shouts"
    r"|(?:\bnot|n['’]?t|\bnever) (?:even |really |actually )?(?:an? )?(?:persons?|people|human(?: being)?s?)"
    r"(?=\s*(?:[.,;:!?)]|$))"
)


def stands_in(candidate: str, source: str) -> bool:
    """True if an insult became "a bad person" or "not a person", or what is left of "a complete idiot"."""
    known = source.casefold()
    return any(
        match.group() not in known and not _is_kept_person(match, known)
        for match in _STAND_IN.finditer(candidate.casefold())
    )


def _is_kept_person(match: re.Match[str], known: str) -> bool:
    """True if the source has the person too ("that nasty woman") or pities them ("the poor sod")."""
    judged, noun = match["judged"], match["noun"]
    if judged is None or _NOTHING.match(judged):
        return False
    return re.search(rf"\b{noun}\b", known) is not None or (judged == "poor" and "poor " in known)


_NOTHING = re.compile(r"(?:complete|total|utter|absolute|fucking|bloody|perfect|freaking|such|real|proper)\b")


_CONDITIONS = frozenset(["if", "unless"])
_STILL_CONDITIONS = word_set(
    """
    if unless when whenever whether once until should must please want need provided
    """
)


def is_unconditional(comparison: Comparison) -> bool:
    """True if a condition is said outright: what stood behind an "if", or was dared with "and I'll ..."."""
    folded = _folded(comparison.candidate)
    if (
        not comparison.has_insult
        or folded & _STILL_CONDITIONS
        or any(w.negates for w in comparison.candidate) != any(w.negates for w in comparison.source)
    ):
        return False
    kept = {word.key for word in comparison.candidate}
    for i, word in enumerate(comparison.source):
        if word.text.casefold() in _CONDITIONS:
            said = [other.key for other in comparison.source[i + 1 :] if other.content][:3]
            return bool(said) and kept.issuperset(said)
        if i and word.text.casefold() == "and" and _PROMISE.match(_text(comparison.source[i + 1 : i + 3])):
            before = [other.key for other in comparison.source[:i] if other.content][:2]
            after = {other.key for other in comparison.source[i + 1 :] if other.content}
            return bool(before and after) and kept.issuperset(before) and not kept & after
    return False


_PROMISE = re.compile(r"(?:i|we)(?:[\u2019']?ll| will| shall)\b")
"""What follows on a dare: "Touch it again and I'll break your arm" must not become "Touch it again"."""


def _text(words: Iterable[AlignedWord]) -> str:
    return " ".join(word.text.casefold() for word in words)


_PERSONS = {
    word: person
    for person, words in enumerate(
        (
            "i my me mine im ive our we us",
            "you your u ur youre youve",
            "he she they his her their hes shes theyre",
        )
    )
    for word in words.split()
}


def person_changed(comparison: Comparison) -> bool:
    """True if a word that was kept belongs to another person: "your memo", "our memo"."""
    before, after = _owned(comparison.source), _owned(comparison.candidate)
    return any(key in before and not before[key] & after[key] for key in after)


def _owned(words: tuple[AlignedWord, ...]) -> dict[str, set[int]]:
    owned: dict[str, set[int]] = {}
    person: int | None = None
    clause = 0
    for word in words:
        if word.clause != clause:  # "that's you, Renate"
            person, clause = None, word.clause
        text = word.text.casefold().replace("'", "").replace("’", "")
        if text in _PERSONS:
            person = _PERSONS[text]
        elif person is not None and word.content:
            owned.setdefault(word.key, set()).add(person)
            person = None
        elif text not in _BETWEEN:
            person = None
    return owned


_BETWEEN = word_set(
    """
    am is are was were be been so very too just really have has had will would
    """
)


def is_gutted(comparison: Comparison, *, similarity: float) -> bool:
    """True if more was left out than was put in another way."""
    lost, gained, kept = len(comparison.lost), len(comparison.gained), len(comparison.kept)
    if not comparison.has_insult or lost - gained < MIN_GUTTED:
        return False
    has_lost_fact = any(_is_fact(word) for word in comparison.lost)
    return lost >= GUTTED_SHARE * kept and (has_lost_fact or similarity < GUTTED_SIMILARITY)


_COUNTS = word_set(
    """
    two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty hundred
    thousand million monday tuesday wednesday thursday friday saturday sunday january february march
    april june july august september october november december half twice
    """
)


def _is_fact(word: AlignedWord) -> bool:
    """True for numbers in words, days and months."""
    return word.text.casefold() in _COUNTS


def is_invented(comparison: Comparison, source: str, candidate: str) -> bool:
    """True if the candidate says what nothing in the source stands for."""
    lost, gained = len(comparison.lost), len(comparison.gained)
    insults = sum(comparison.source[i].content for i in comparison.toxic)
    if gained - lost - insults >= MIN_INVENTED:
        return True
    has_more = len(_SENTENCE.findall(candidate)) > len(_SENTENCE.findall(source))
    return has_more and gained >= lost and _is_aside(comparison, candidate)


def _is_aside(comparison: Comparison, candidate: str) -> bool:
    """True if a sentence of the candidate has nothing in it of the source."""
    known = {word.key for word in comparison.source}
    for part in _SENTENCE.findall(candidate)[1:]:
        words = words_of(part)
        content = [word for word in words if word.content]
        if content and not any(word.key in known for word in content) and _folded(words) & _OTHERS:
            return True
    return False


_OTHERS = frozenset(["you", "u", "your", "he", "she", "they", "we", "people"])
_SENTENCE = re.compile(r"[^.!?;\s][^.!?;]*")


def is_hollow(candidate: str, source: str) -> bool:
    """True if a word is missing that the grammar wants: "a bad written by", "run by."."""
    holes, before = (sum(1 for _ in _HOLE.finditer(text.casefold())) for text in (candidate, source))
    return holes > before


_END = r"(?=\s*[.,;:!?)](?!\w)|\s*$)"
_HOLE = re.compile(
    # an article with nothing behind it
    rf"\b(?:a|an|the|my|your|our|their)(?:{_END}|(?=\s+(?:a|an|the|and|or|but|is|are|was|were|by|of|to"
    rf"|in|on|at|for|with|from|who|if|because|than|i|he|we|they)\b))\W*\w*"
    # an adjective without its noun
    r"|\b(?:a|an)\s+(?:(?:very|really|so|such|complete|total|utter|absolute|real)\s+)*"
    r"(?:bad|good|poor|complete|total|utter|absolute"
    r"|terrible|nice|real|great|very|so|really|too|unwise|such|worthless|stupid|silly|unpleasant)"
    rf"(?:{_END}|(?=\s+(?:written|made|by|of|is|are|was|were|and|who|that|to|if|because|than|in|on|for"
    rf"|with|i|you|he|she|we|they)\b))\W*\w*"
    # a preposition or conjunction at the end
    rf"|\b(?:by|from|into|and|or|because|than|as|very){_END}"
    # a word of grammar twice
    r"|\b(by|of|from|is|are|was|the|a|an|to|in|on|at|for|with|and|or|but|you|i|he|they|we|it)\s+\1\b"
    # a phrase twice
    r"|\b(?P<phrase>\w+ \w+ \w+)\W+(?P=phrase)\b"
    r"|[(\[]\s*[)\]]"
)
