"""Good rewrites that are spoilt on purpose, one fault each: what a check of rewrites has to notice."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from guardrail.fidelity import opinions
from guardrail.outcome import Span

__all__ = ["KINDS", "Original", "spoilt"]

PRAISE = ("good", "great", "wonderful", "nice", "excellent")
STAND_INS = ("a bad person", "not a good person", "an unwise person", "an uninformed person", "bad people")
PERSONS = {"you": "I", "your": "my", "i": "you", "my": "your", "his": "your", "their": "our", "our": "your"}
DISGUISES = str.maketrans("aeos", "4305")
CLAUSE = re.compile(r"(?:,|;| because| and| but| who| when| which| although)\s")


@dataclass(frozen=True, slots=True)
class Original:
    """A source with its toxic spans, a good rewrite of it, and a rewrite of quite another sentence."""

    source: str
    spans: tuple[Span, ...]
    rewrite: str
    other: str


def spoilt(kind: str, original: Original, *, seed: int) -> str | None:
    """The rewrite with one fault of this kind; None where it cannot be made of this sentence."""
    found = KINDS[kind](original, random.Random(f"{seed}{kind}{original.rewrite}"))
    return None if found is None or found in (original.rewrite, original.source) else found


def _opposite(original: Original, rng: random.Random) -> str | None:
    table = opinions().opposites
    words = [m for m in re.finditer(r"\w+", original.rewrite) if m.group().casefold() in table]
    words = [m for m in words if re.search(rf"\b{m.group()}\b", original.source, re.IGNORECASE)]
    if not words:
        return None
    chosen = rng.choice(words)
    return _replaced(original.rewrite, chosen, rng.choice(sorted(table[chosen.group().casefold()])))


def _praise(original: Original, rng: random.Random) -> str | None:
    return _in_place_of_insults(original, rng.choice(PRAISE))


def _stand_in(original: Original, rng: random.Random) -> str | None:
    return _in_place_of_insults(original, rng.choice(STAND_INS))


def _in_place_of_insults(original: Original, words: str) -> str | None:
    """The source with its last toxic span, and an article before it, replaced; the others left out."""
    text = original.source
    spans = [span for span in original.spans if span.end - span.start >= 4]
    for i, span in enumerate(reversed(spans)):
        text = text[: span.start] + ("" if i else words) + text[span.end :]
    return re.sub(r"\b(?:an?|the) (?=(?:an?|not) )", "", " ".join(text.split())) if spans else None


def _hole(original: Original, rng: random.Random) -> str | None:
    places = list(
        re.finditer(
            r"\b(?:an?|the|by|my|your) (\w+)(?= (?:of|is|was|and|in|to|on|for|by)\b|[.,;!?])",
            original.rewrite,
        )
    )
    if not places:
        return None
    chosen = rng.choice(places)
    return " ".join(
        (original.rewrite[: chosen.start(1)].rstrip() + original.rewrite[chosen.end(1) :]).split(" ")
    )


def _invention(original: Original, rng: random.Random) -> str | None:
    return f"{original.rewrite.rstrip('.!? ')}. {original.other}"


def _dropped_clause(original: Original, rng: random.Random) -> str | None:
    cuts = [m.start() for m in CLAUSE.finditer(original.rewrite)]
    cuts = [cut for cut in cuts if 0.3 <= cut / len(original.rewrite) <= 0.7]
    return original.rewrite[: rng.choice(cuts)] + "." if cuts else None


def _dropped_fact(original: Original, rng: random.Random) -> str | None:
    facts = list(re.finditer(r"(?<=\w )(?:[£$€]?\d[\d.,:]*|[A-Z][a-z]{3,})(?= \w)", original.rewrite))
    facts = [fact for fact in facts if fact.group() in original.source]
    return _replaced(original.rewrite, rng.choice(facts), "").replace("  ", " ") if facts else None


def _person(original: Original, rng: random.Random) -> str | None:
    places = [m for m in re.finditer(r"\b\w+(?= \w{4})", original.rewrite) if m.group().casefold() in PERSONS]
    if not places:
        return None
    chosen = rng.choice(places)
    return _replaced(original.rewrite, chosen, PERSONS[chosen.group().casefold()])


def _negation(original: Original, rng: random.Random) -> str | None:
    denied = list(re.finditer(r" not\b|n't\b", original.rewrite))
    kept = [m for m in denied if m.group().strip() in original.source]
    if kept:
        return _replaced(original.rewrite, rng.choice(kept), "")
    said = list(re.finditer(r"\b(?:is|are|was|were|will|can|should|has|have)(?= \w{4})", original.rewrite))
    if denied or not said:
        return None
    chosen = rng.choice(said)
    return _replaced(original.rewrite, chosen, f"{chosen.group()} not")


def _disguise(original: Original, rng: random.Random) -> str | None:
    words = [
        m for m in re.finditer(r"\b[a-z]{5,}\b", original.rewrite) if re.search("[aeos]", m.group()[1:-1])
    ]
    if not words:
        return None
    chosen = rng.choice(words)
    word = chosen.group()
    return _replaced(original.rewrite, chosen, word[0] + word[1:-1].translate(DISGUISES) + word[-1])


def _replaced(text: str, match: re.Match[str], by: str) -> str:
    return text[: match.start()] + by + text[match.end() :]


KINDS: Mapping[str, Callable[[Original, random.Random], str | None]] = {
    "opposite swapped": _opposite,
    "insult praised": _praise,
    "stand-in": _stand_in,
    "hole": _hole,
    "invention": _invention,
    "dropped clause": _dropped_clause,
    "dropped fact": _dropped_fact,
    "wrong person": _person,
    "negation turned": _negation,
    "disguise": _disguise,
}
"""What is done to a rewrite, by name."""
