"""The dev sentences that a detector is measured on: labelled, toxic, clean, obfuscated, in pairs."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from guardrail.errors import UsageError
from guardrail.outcome import LABELS
from research.detection import corpora
from research.detection.augment import Marked, obfuscate
from research.detection.corpora import Labelled, wikitext_sentences

__all__ = [
    "GROUP_TERM",
    "NEUTRAL_SIDE",
    "LabelledSet",
    "clean_sets",
    "dev_texts",
    "labelled_sets",
    "lower_detached",
    "obfuscated",
    "sentence_pairs",
    "toxic_sets",
]

NEUTRAL_SIDE = "paradetox neutral, unfiltered"
"""Name of the clean set in which a few sentences stayed toxic, as no judge has read them."""

MIN_OF_EACH = 5  # positives and negatives without which a ranking says nothing
MAJORITY = 0.5
WEAKLY_LABELLED = ("toxic_spans_sentence", "toxic_spans_rest")  # labels made from spans, not by people
SOURCES = ("paradetox", "davidson", "stormfront", "toxigen_statements", "toxic_spans")
PUNCTUATION = re.compile(r"\s*([^\w\s'])\s*")
GROUP_TERM = re.compile(
    r"\b(?:jew(?:s|ish)?|blacks?|negro(?:es)?|whites?|muslims?|islam(?:ic)?|arabs?|africans?|asians?|mexicans?"
    r"|hispanics?|latin[oa]s?|gays?|lesbians?|homosexuals?|women|woman|immigrants?|refugees?|christians?|catholics?"
    r"|indians?|chinese|russians?|turks?|turkish|gyps(?:y|ies)|disabled)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """Dev texts of one source with one label; ``positive`` by majority of votes."""

    source: str
    label: str
    texts: tuple[str, ...]
    positive: tuple[bool, ...]


def dev_texts(data: Path) -> dict[str, list[Labelled]]:
    """Dev rows by source, without labels that nobody gave."""
    return {
        source: [
            text
            for text in corpora.load(data, part="dev", sources=[source])
            if text.source not in WEAKLY_LABELLED
        ]
        for source in SOURCES
    }


def lower_detached(text: str) -> str:
    """The style of ParaDetox's toxic side: lower case, punctuation between spaces."""
    return " ".join(PUNCTUATION.sub(r" \1 ", text.lower()).split())


def labelled_sets(texts: Mapping[str, Sequence[Labelled]]) -> list[LabelledSet]:
    """One set per source and label that has both sides; ParaDetox also with both sides in one style."""
    sets = []
    for source, rows in texts.items():
        sets += _sets(source, rows, style=str)
        if source == "paradetox":
            sets += _sets("paradetox, one style", rows, style=lower_detached)
    return sets


def _sets(source: str, rows: Sequence[Labelled], *, style: Callable[[str], str]) -> list[LabelledSet]:
    sets = []
    for place, label in enumerate(LABELS):
        # A dict: a text that stands in several rows counts once, with its last label.
        judged = {
            style(row.text): share >= MAJORITY for row in rows if (share := row.labels[place]) is not None
        }
        positives = sum(judged.values())
        if min(positives, len(judged) - positives) >= MIN_OF_EACH:
            sets.append(LabelledSet(source, label, tuple(judged), tuple(judged.values())))
    return sets


def toxic_sets(texts: Mapping[str, Sequence[Labelled]], *, seed: int) -> dict[str, tuple[str, ...]]:
    """What a detector should flag: ParaDetox's toxic side, Stormfront's hate, obfuscated copies of both."""
    chosen = {
        "paradetox toxic": [row for row in texts["paradetox"] if row.source == "paradetox_toxic"],
        "stormfront hate": [row for row in texts["stormfront"] if row.source == "stormfront_hate"],
    }
    plain = {name: tuple(row.text for row in rows) for name, rows in chosen.items()}
    return plain | {f"{name}, obfuscated": obfuscated(rows, seed=seed) for name, rows in chosen.items()}


def obfuscated(rows: Sequence[Labelled], *, seed: int) -> tuple[str, ...]:
    """Each text with one to three words spelled so as to hide them, the toxic ones where they are known."""
    return tuple(
        obfuscate(Marked.of(row.text, row.spans), random.Random(f"obfuscated-{seed}-{place}")).text
        for place, row in enumerate(rows)
    )


def clean_sets(texts: Mapping[str, Sequence[Labelled]], *, data: Path) -> dict[str, tuple[str, ...]]:
    """What a detector should not flag; sets whose names begin with "identity" mention groups of people."""
    references = [row.text for row in texts["paradetox"] if row.source == "paradetox_neutral"]
    paragraphs = (data / "wikitext2" / "test.txt").read_text(encoding="utf-8").split("\n")
    no_hate = [row.text for row in texts["stormfront"] if row.source == "stormfront_nohate"]
    statements = [row.text for row in texts["toxigen_statements"] if row.source == "toxigen_neutral"]
    return {
        NEUTRAL_SIDE: tuple(dict.fromkeys(references)),
        "wikitext-2 test sentences": tuple(dict.fromkeys(wikitext_sentences(paragraphs))),
        "identity: toxigen neutral statements": tuple(dict.fromkeys(statements)),
        "identity: stormfront noHate with a group term": tuple(
            dict.fromkeys(text for text in no_hate if GROUP_TERM.search(text))
        ),
    }


def sentence_pairs(
    texts: Mapping[str, Sequence[Labelled]], *, count: int, related: float, seed: int
) -> list[tuple[str, str]]:
    """Dev sentence pairs: the share ``related`` a toxic sentence and its neutral version, the rest random.

    Random pairs alone are the harder test, since their cosines lie close together. Raises UsageError if
    there are fewer sentences than two.
    """
    generator = random.Random(f"pairs-{seed}")
    pool = sorted({row.text for rows in texts.values() for row in rows})
    if len(pool) < 2:
        raise UsageError(f"pairs need at least two sentences, got {len(pool)}")
    by_key: dict[str, list[str]] = {}
    for row in texts.get("paradetox", ()):
        by_key.setdefault(row.key, []).append(row.text)
    versions = [(several[0], other) for several in by_key.values() for other in several[1:]]
    kept = generator.sample(versions, min(len(versions), round(count * related)))
    for _ in range(count - len(kept)):
        first, second = generator.sample(pool, 2)
        kept.append((first, second))
    return kept
