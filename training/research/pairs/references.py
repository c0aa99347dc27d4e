"""Rules by which a reference is not fit to learn from, each with a name for the count."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import NamedTuple

from guardrail.outcome import Span
from guardrail.text.protected import find
from guardrail_training.data import normalised
from research.pairs.signs import CAPITAL_INSIDE, DETERMINERS, NOISE, STAND_IN, UNGRAMMATICAL
from research.pairs.words import ANTONYMS, NEGATIONS, PERSONS, Word, stem, words

__all__ = ["RULES", "Pairing", "Rule", "is_noise", "new_stems", "refused_by"]

_DOTS = re.compile(r"\.{2,}")
_WANTING = frozenset(DETERMINERS.split("|")) | {"of", "some", "any", "such", "another", "every", "no"}
_ADVERB = re.compile(r"(?:ing|in|in'|ly)$")
_TENSES = {
    **dict.fromkeys(
        ("is", "are", "am", "has", "have", "do", "does", "it's", "that's", "he's", "she's"), "present"
    ),
    **dict.fromkeys(("was", "were", "had", "did", "got", "went", "made"), "past"),
    **dict.fromkeys(
        ("will", "going", "gonna", "won't", "i'll", "you'll", "he'll", "they'll", "we'll"), "future"
    ),
}
_MARGIN = 1
MAX_INVENTED = 3
MAX_LOST = 0.2


@dataclass(frozen=True, slots=True)
class Pairing:
    """A source and a reference, with what the detectors say of both.

    ``spans`` are the toxic characters of the source; ``hostile`` says whether the reference is still toxic;
    ``known`` are the words that spelling is judged by, ``usual`` the stems that people often put in for
    toxic words.
    """

    source: str = field(repr=False)
    reference: str = field(repr=False)
    spans: Sequence[Span]
    hostile: bool
    known: Container[str] = field(repr=False)
    usual: Container[str] = field(repr=False)


class Rule(NamedTuple):
    """A name for the count, and a function that is true if it refuses a reference."""

    name: str
    refuses: Callable[[Pairing], bool]


@dataclass(frozen=True, slots=True)
class _Change:
    """Words of the source that the reference has others for.

    ``is_toxic`` is by word; ``toxic`` if a toxic word is in them or alongside them. ``previous`` and
    ``following`` are the words that they are joined to without a mark between.
    """

    before: Sequence[Word]
    after: Sequence[Word]
    is_toxic: Sequence[bool]
    toxic: bool
    previous: Word | None
    following: Word | None


MIN_WORDS, MAX_WORDS = 4, 60


def is_noise(source: str, *, spans: Sequence[Span], familiar: Container[str]) -> bool:
    """Whether a source is not worth learning from: remains of markup and emoticons, unknown words outside the
    toxic spans, too short, too long."""
    found = words(source)
    if not MIN_WORDS <= len(found) <= MAX_WORDS or NOISE.search(source) is not None:
        return True
    return any(
        word.text.isalpha() and word.key not in familiar and not _touched(word, spans) for word in found
    )


def refused_by(pairing: Pairing) -> str | None:
    """The name of the first rule that refuses the reference; None if it may be learned from."""
    return next((rule.name for rule in RULES if rule.refuses(pairing)), None)


def _copied(pairing: Pairing) -> bool:
    return normalised(pairing.source) == normalised(pairing.reference)


def _hostile(pairing: Pairing) -> bool:
    return pairing.hostile


def _stand_in(pairing: Pairing) -> bool:
    present = {match.group().casefold() for match in STAND_IN.finditer(pairing.source)}
    return any(match.group().casefold() not in present for match in STAND_IN.finditer(pairing.reference))


def _ungrammatical(pairing: Pairing) -> bool:
    source, reference = (_DOTS.sub("", text) for text in (pairing.source, pairing.reference))
    for sign in UNGRAMMATICAL:
        present = Counter(match.group().casefold() for match in sign.finditer(source))
        if Counter(match.group().casefold() for match in sign.finditer(reference)) - present:
            return True
    if CAPITAL_INSIDE.search(reference) or any(map(_is_hole, _changes(pairing))):
        return True
    ours = {word.key for word in words(source)}
    return any(
        word.key not in ours and word.text.isalpha() and word.text.islower() and word.key not in pairing.known
        for word in words(reference)
    )


def _is_hole(change: _Change) -> bool:
    """Whether toxic words went and left a word behind that wants a noun after it."""
    if change.after or change.previous is None:
        return False
    if change.following is not None and change.following.key == "out" and any(change.is_toxic):
        return change.before[0].key == "the"  # "kicked the ... out of him"
    if not all(change.is_toxic):
        return False
    wants = change.previous.is_content or change.previous.key in _WANTING
    follows = change.following is not None and change.following.is_content
    return wants and not follows and not _ADVERB.search(change.before[-1].key)


def _person(pairing: Pairing) -> bool:
    """Whether the reference speaks of somebody whom the source does not speak of, or no longer of one."""
    toxic = pairing.spans
    before = {PERSONS[w.key] for w in words(pairing.source) if w.key in PERSONS and not _touched(w, toxic)}
    after = {PERSONS[word.key] for word in words(pairing.reference) if word.key in PERSONS}
    if not after <= before:
        return True
    for change in _changes(pairing):
        lost = {PERSONS[word.key] for word in change.before if word.key in PERSONS}
        if not change.toxic and not lost <= after:
            return True
    return False


def _tense(pairing: Pairing) -> bool:
    for change in _changes(pairing):
        before, after = (
            {_TENSES[word.key] for word in side if word.key in _TENSES}
            for side in (change.before, change.after)
        )
        if before and after and not before & after:
            return True
        old = {word.key for word in change.before}
        if any(
            word.key in (f"{each}d", f"{each}ed") or f"{word.key}ed" == each
            for word in change.after
            for each in old
        ):
            return True
    return False


def _turned(pairing: Pairing) -> bool:
    if pairing.source.count("?") and not pairing.reference.count("?"):
        return True
    if pairing.reference.count("?") and not pairing.source.count("?"):
        return True
    sources = {word.key for word in words(pairing.source)}
    for change in _changes(pairing):
        lost, new = (sum(w.key in NEGATIONS for w in side) for side in (change.before, change.after))
        if lost > new or (new > lost and not change.toxic):
            return True
        if new > lost and not any(word.is_content for word in change.after):
            return True  # a bare "not" in place of a toxic word
        after = {word.key for word in change.after} - sources
        if any(after & set(ANTONYMS.get(word.key, ())) for word in change.before):
            return True
    return False


def _dropped(pairing: Pairing) -> bool:
    if _missing_items(pairing):
        return True
    left = {stem(word.key) for word in words(pairing.reference)}
    outside = [
        word for word in words(pairing.source) if word.is_content and not _touched(word, pairing.spans)
    ]
    lost = [word for word in outside if stem(word.key) not in left]
    if any(word.text[0].isupper() and word.start and not word.text.isupper() for word in lost):
        return True  # a name
    return len(lost) > max(int(len(outside) > 3), MAX_LOST * len(outside))


def _missing_items(pairing: Pairing) -> bool:
    for kind in ("number", "url", "mention"):
        before = Counter(item.key for item in find(kind, pairing.source))
        if before != Counter(item.key for item in find(kind, pairing.reference)):
            return True
    return False


def _invented(pairing: Pairing) -> bool:
    new = new_stems(pairing.source, pairing.reference)
    toxic = sum(_touched(word, pairing.spans) for word in words(pairing.source))
    return len(new) > min(MAX_INVENTED, toxic + 1) or any(each not in pairing.usual for each in new)


def new_stems(source: str, reference: str) -> list[str]:
    """The stems of the content words that a reference has and its source has not."""
    known = {stem(word.key) for word in words(source)}
    return [stem(word.key) for word in words(reference) if word.is_content and stem(word.key) not in known]


def _touched(word: Word, spans: Sequence[Span]) -> bool:
    return any(span.start < word.end and word.start < span.end for span in spans)


def _changes(pairing: Pairing) -> Iterator[_Change]:
    source = pairing.source
    before, after = words(source), words(pairing.reference)
    toxic = [_touched(word, pairing.spans) for word in before]
    matcher = SequenceMatcher(None, [w.key for w in before], [w.key for w in after], autojunk=False)
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag == "equal":
            continue
        joined = 0 < i1 < i2 and not source[before[i1 - 1].end : before[i1].start].strip()
        follows = i1 < i2 < len(before) and not source[before[i2 - 1].end : before[i2].start].strip()
        yield _Change(
            before[i1:i2],
            after[j1:j2],
            toxic[i1:i2],
            any(toxic[max(0, i1 - _MARGIN) : i2 + _MARGIN]),
            before[i1 - 1] if joined else None,
            before[i2] if follows else None,
        )


RULES = (
    Rule("copy", _copied),
    Rule("hostile", _hostile),
    Rule("stand-in", _stand_in),
    Rule("ungrammatical", _ungrammatical),
    Rule("person", _person),
    Rule("tense", _tense),
    Rule("turned", _turned),
    Rule("dropped", _dropped),
    Rule("invented", _invented),
)
