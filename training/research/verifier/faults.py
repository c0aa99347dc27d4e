"""One maker for each kind of fault: a pair in, a wrong candidate out, or None where the kind does not fit."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Protocol, TypeVar

from guardrail.text.protected import find
from research.pairs.words import ANTONYMS, FUNCTION_WORDS, Word, words

__all__ = ["MAKERS", "Maker", "Others", "Subject"]


@dataclass(frozen=True, slots=True)
class Subject:
    """A source with one of its references; ``place`` is the pair's."""

    source: str = field(repr=False)
    reference: str = field(repr=False)
    place: int


class Others(Protocol):
    """What is taken from elsewhere."""

    @property
    def insults(self) -> Sequence[str]:
        """Listed words of all sources."""

    def listed(self, text: str) -> list[tuple[int, int]]:
        """Where listed words stand in a text."""

    def reference(self, generator: random.Random, *, but: int) -> str | None:
        """A reference of another pair."""

    def similar(self, subject: Subject, generator: random.Random) -> str | None:
        """A reference of another pair whose source shares words with this one."""


_Item = TypeVar("_Item")
Maker = Callable[[Subject, Others, random.Random], "str | None"]

_ARTICLES = frozenset(["a", "an", "the"])
_BE = frozenset(["is", "are", "was", "were", "am", "be"])
_CONJUNCTIONS = "because|although|though|since|while|unless|until|and|but|so|when|after|before"
_CLAUSE = re.compile(rf"\s*(?:[,;:]\s+|\s(?=(?:{_CONJUNCTIONS})\s)|(?<=[.!?])\s+)")
_WANTING = _ARTICLES | _BE | {"of", "to", "with", "for", "your", "my"}
_FINAL = re.compile(r"[.!?]*$")
_STAND_INS = (
    "person", "bad person", "unwise person", "uninformed person", "thing", "not good", "unwise", "bad", "fan",
    "people",
)  # fmt: skip
_PERSONS: Sequence[tuple[str, str]] = (
    ("I am", "you are"), ("I'm", "you're"), ("I was", "you were"), ("I've", "you've"), ("I have", "you have"),
    ("I", "you"), ("me", "you"), ("my", "your"), ("myself", "yourself"),
    ("you are", "I am"), ("you're", "I'm"), ("you were", "I was"), ("you've", "I've"), ("you", "I"),
    ("your", "my"),
    ("he is", "you are"), ("he's", "you're"), ("he was", "you were"), ("he has", "you have"), ("he", "you"),
    ("his", "your"), ("him", "you"), ("she is", "you are"), ("she's", "you're"), ("she was", "you were"),
    ("she", "you"), ("they are", "you are"), ("they're", "you're"), ("they", "we"), ("their", "our"),
    ("them", "us"),
    ("we are", "they are"), ("we're", "they're"), ("we", "they"), ("our", "their"), ("us", "them"),
    ("you", "they"), ("your", "their"),
)  # fmt: skip
_TENSES: Sequence[tuple[str, str]] = (
    ("is", "was"), ("are", "were"), ("was", "is"), ("were", "are"), ("am", "was"), ("has", "had"),
    ("have", "had"), ("had", "has"), ("do", "did"), ("does", "did"), ("did", "does"), ("don't", "didn't"),
    ("doesn't", "didn't"), ("didn't", "doesn't"), ("isn't", "wasn't"), ("aren't", "weren't"),
    ("wasn't", "isn't"), ("weren't", "aren't"), ("will", "would"), ("won't", "didn't"), ("would", "will"),
    ("can", "could"), ("can't", "couldn't"), ("could", "can"), ("it's", "it was"), ("that's", "that was"),
    ("says", "said"), ("said", "says"), ("goes", "went"), ("went", "goes"), ("gets", "got"), ("got", "gets"),
    ("makes", "made"), ("made", "makes"), ("takes", "took"), ("took", "takes"), ("knows", "knew"),
    ("knew", "knows"), ("think", "thought"), ("thinks", "thought"), ("thought", "think"),
    ("want", "wanted"), ("wants", "wanted"), ("wanted", "wants"), ("needs", "needed"), ("needed", "needs"),
)  # fmt: skip
_AGREEMENT: Sequence[tuple[str, str]] = (
    ("is", "are"), ("are", "is"), ("was", "were"), ("were", "was"), ("has", "have"), ("have", "has"),
    ("does", "do"), ("do", "does"), ("doesn't", "don't"), ("don't", "doesn't"), ("a", "an"), ("an", "a"),
    ("this", "these"), ("these", "this"), ("that", "those"), ("am", "is"),
)  # fmt: skip
_AUXILIARIES = (
    _BE | {"will", "would", "can", "could", "should", "must", "do", "does", "did", "has", "have"}
) - {"be"}
_NOT = re.compile(r"\s+not\b|n['’]t\b|\b(?:never|no)\s+", re.IGNORECASE)


def _opposite(subject: Subject, others: Others, generator: random.Random) -> str | None:
    """A word of the reference as its opposite."""
    chosen = _drawn([word for word in words(subject.reference) if word.key in ANTONYMS], generator)
    return _with(subject.reference, chosen, generator.choice(ANTONYMS[chosen.key])) if chosen else None


def _added(subject: Subject, others: Others, generator: random.Random) -> str | None:
    """A clause or a content word of another pair's reference put in."""
    other = others.reference(generator, but=subject.place)
    if other is None:
        return None
    known = {word.key for word in words(subject.reference)}
    if generator.random() < 0.5:
        clauses = [
            clause for clause in _clauses(other) if 3 <= len(words(clause)) <= 9 and _new(clause, known)
        ]
        if not clauses:
            return None
        clause = _FINAL.sub("", generator.choice(clauses))
        body, final = _cut_final(subject.reference)
        joint = generator.choice([", and ", ", so ", ". "])
        return f"{body}{joint}{clause[:1].upper() + clause[1:] if joint == '. ' else _lowered(clause)}{final}"
    new = _drawn([word for word in words(other) if word.is_content and word.key not in known], generator)
    place = _drawn([word for word in words(subject.reference) if word.is_content and word.start], generator)
    if new is None or place is None:
        return None
    return f"{subject.reference[: place.start]}{new.text.lower()} {subject.reference[place.start :]}"


def _dropped(subject: Subject, others: Others, generator: random.Random) -> str | None:
    """A clause, a number or a name left out."""
    reference = subject.reference
    items = [item.span for item in find("number", reference)]
    facts = [(span.start, span.end) for span in items]
    names = [word for word in words(reference)[1:] if word.text[0].isupper() and word.is_content]
    facts += [(word.start, word.end) for word in names]
    clauses = _clauses(reference)
    if facts and (len(clauses) < 2 or generator.random() < 0.5):
        start, end = generator.choice(facts)
        return _tidy(reference[:start] + reference[end:])
    if len(clauses) < 2:
        return None
    leaving = generator.randrange(len(clauses))
    if not any(word.is_content for word in words(clauses[leaving])):
        return None
    kept = [clause for place, clause in enumerate(clauses) if place != leaving]
    _, final = _cut_final(reference)
    joined = _cut_final(" ".join(kept).rstrip(" ,;:"))[0] + final
    return _tidy(joined[:1].upper() + joined[1:] if reference[:1].isupper() else joined)


def _hole(subject: Subject, others: Others, generator: random.Random) -> str | None:
    """A content word gone that an article, a preposition or a form of "be" wants."""
    found = words(subject.reference)
    wanted = [
        word
        for before, word, after in zip(found, found[1:], [*found[2:], None], strict=False)
        if before.key in _WANTING and word.is_content and (after is None or not after.is_content)
    ]
    chosen = _drawn(wanted, generator)
    return _tidy(subject.reference[: chosen.start] + subject.reference[chosen.end :]) if chosen else None


def _stand_in(subject: Subject, others: Others, generator: random.Random) -> str | None:
    """The source with an empty word in place of a hostile one."""
    hits = _hits(words(subject.source), subject, others)
    chosen = _drawn(hits or [word for word in _changed(subject) if word.is_content], generator)
    if chosen is None:
        return None
    text = _with(subject.source, chosen, generator.choice(_STAND_INS))
    for word in sorted(hits, key=lambda word: -word.start):
        if word is not chosen:  # the others are gone without a trace
            text = text if word.start > chosen.start else text[: word.start] + text[word.end :].lstrip()
    return _tidy(text)


def _swapped(subject: Subject, others: Others, generator: random.Random) -> str | None:
    """A good rewrite of another sentence."""
    return others.similar(subject, generator)


def _hostile(subject: Subject, others: Others, generator: random.Random) -> str | None:
    """The source itself, half mended, or a rewrite with an insult."""
    draw = generator.random()
    if draw < 0.25:
        return subject.source
    if draw < 0.6:
        return _half_mended(subject, others, generator)
    insult = _drawn(others.insults, generator)
    if insult is None:
        return None
    body, final = _cut_final(subject.reference)
    if generator.random() < 0.5:
        return f"{body}, you {insult}{final}"
    place = _drawn([word for word in words(subject.reference) if word.is_content and word.start], generator)
    return f"{subject.reference[: place.start]}{insult} {subject.reference[place.start :]}" if place else None


def _half_mended(subject: Subject, others: Others, generator: random.Random) -> str | None:
    """The reference with a listed passage of the source put back; the source where there is none."""
    before, after = words(subject.source), words(subject.reference)
    codes = _opcodes(before, after)
    listed = [
        code for code in codes if code[0] != "equal" and _hits(before[code[1] : code[2]], subject, others)
    ]
    if not listed:
        return subject.source
    back = generator.choice(listed)
    pieces = []
    for code in codes:
        _, i1, i2, j1, j2 = code
        if code == back:
            pieces.append(subject.source[before[i1].start : before[i2 - 1].end])
        elif j1 < j2:
            pieces.append(subject.reference[after[j1].start : after[j2 - 1].end])
    return " ".join(pieces) + _cut_final(subject.reference)[1]


def _person(subject: Subject, others: Others, generator: random.Random) -> str | None:
    """Somebody else meant."""
    return _exchanged(subject.reference, _PERSONS, generator)


def _tense(subject: Subject, others: Others, generator: random.Random) -> str | None:
    """Another time."""
    return _exchanged(subject.reference, _TENSES, generator)


def _negation(subject: Subject, others: Others, generator: random.Random) -> str | None:
    """A "not" put in or taken out."""
    reference = subject.reference
    negated = list(_NOT.finditer(reference))
    if negated:
        match = generator.choice(negated)
        before, gone = reference[: match.start()], match.group().casefold()
        if before.casefold().endswith("ca") and gone.startswith("n"):
            before += "n"
        elif before.casefold().endswith("wo") and gone.startswith("n"):
            before = before[:-2] + "will"
        return before + reference[match.end() :]
    chosen = _drawn([word for word in words(reference) if word.key in _AUXILIARIES], generator)
    return f"{reference[: chosen.end]} not{reference[chosen.end :]}" if chosen else None


def _grammar(subject: Subject, others: Others, generator: random.Random) -> str | None:
    """Words in a wrong order, without agreement, or without their verb."""
    reference = subject.reference
    found = words(reference)
    draw = generator.random()
    if draw < 0.4:
        return _exchanged(reference, _AGREEMENT, generator)
    if draw < 0.7 and len(found) > 3:
        place = generator.randrange(len(found) - 1)
        first, second = found[place], found[place + 1]
        between = reference[first.end : second.start]
        if between.isspace() and first.key != second.key:
            return f"{reference[: first.start]}{second.text}{between}{first.text}{reference[second.end :]}"
        return None
    chosen = _drawn([word for word in found if word.key in _BE], generator)
    return _tidy(reference[: chosen.start] + reference[chosen.end :]) if chosen else None


MAKERS: Mapping[str, Maker] = {
    "opposite": _opposite,
    "addition": _added,
    "dropped": _dropped,
    "hole": _hole,
    "stand-in": _stand_in,
    "swapped": _swapped,
    "hostile": _hostile,
    "person": _person,
    "tense": _tense,
    "negation": _negation,
    "grammar": _grammar,
}


def _drawn(items: Sequence[_Item], generator: random.Random) -> _Item | None:
    """One of the items; None if there are none."""
    return generator.choice(items) if items else None


def _with(text: str, word: Word, other: str) -> str:
    """The text with another word in the letter case of the one that it replaces."""
    if word.text.isupper() and len(word.text) > 1:
        other = other.upper()
    elif word.text[0].isupper() and other != "I":
        other = other[:1].upper() + other[1:]
    return text[: word.start] + other + text[word.end :]


def _exchanged(text: str, table: Sequence[tuple[str, str]], generator: random.Random) -> str | None:
    """The text with the words of one entry replaced, wherever they stand."""
    fitting = [
        (pattern, new)
        for old, new in table
        if (pattern := re.compile(rf"(?<![\w'’]){re.escape(old)}(?![\w'’])", re.IGNORECASE)).search(text)
    ]
    if not fitting:
        return None
    pattern, new = generator.choice(fitting)

    def put(match: re.Match[str]) -> str:
        old = match.group()
        opens = old[0].isupper() and (match.start() == 0 or not old.startswith("I"))
        return new[:1].upper() + new[1:] if opens else new

    return pattern.sub(put, text)


def _hits(found: Sequence[Word], subject: Subject, others: Others) -> list[Word]:
    """The words of the source in which the word list finds something."""
    listed = others.listed(subject.source)
    return [word for word in found if any(start < word.end and word.start < end for start, end in listed)]


def _changed(subject: Subject) -> list[Word]:
    """The words of the source that the reference does not have in their place."""
    before, after = words(subject.source), words(subject.reference)
    return [word for tag, i1, i2, _, _ in _opcodes(before, after) if tag != "equal" for word in before[i1:i2]]


def _opcodes(before: Sequence[Word], after: Sequence[Word]) -> Sequence[tuple[str, int, int, int, int]]:
    matcher = SequenceMatcher(None, [w.key for w in before], [w.key for w in after], autojunk=False)
    return matcher.get_opcodes()


def _clauses(text: str) -> list[str]:
    return [clause for clause in _CLAUSE.split(text) if clause.strip()]


def _new(clause: str, known: set[str]) -> bool:
    return any(word.is_content and word.key not in known for word in words(clause))


def _cut_final(text: str) -> tuple[str, str]:
    """A text without its final marks, and these."""
    final = _FINAL.search(text)
    end = final.start() if final else len(text)
    return text[:end], text[end:]


def _lowered(clause: str) -> str:
    first = words(clause)[0]
    return clause[:1].lower() + clause[1:] if first.key in FUNCTION_WORDS and first.text != "I" else clause


def _tidy(text: str) -> str:
    """The text without the blanks that a missing word leaves."""
    text = re.sub(r"\s{2,}", " ", text.strip())
    return re.sub(r"\s+([.,!?;:])", r"\1", text).lstrip(",;: ")
