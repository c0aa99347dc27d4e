"""Builds the lexicon: words that training texts mark as toxic and almost never use otherwise.

Precision first: a hit alone must be reason enough to mask a word. There are two ways in: the lower bound of
the share of toxic texts among those with the word is high, and where people marked words they marked it; or
people who rewrote toxic sentences almost always took it out. Labels come from the votes on the texts around.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from guardrail.detectors.normalise import normalise
from guardrail_training.data import SourceRow
from research.detection.labelled import TRAINED, Labelled

__all__ = ["build_lexicon", "lower_bound", "write_lexicon"]

WORD = re.compile(r"[^\W_]{3,}")
KINDS = ("insult", "obscene", "identity_attack", "threat", "sexual_explicit")
MIN_TEXTS = 6  # toxic texts that a word must stand in
MIN_MARKS = 5  # occurrences in toxic texts with marks from which it matters whether the word itself is marked
MIN_MARKED = 0.5  # ... in at least this share of them (lower bound)
CERTAIN = 0.8  # lower bound of the share of its texts that are toxic
LIKELY = 0.4  # the same for a word that rewriters take out
TAKEN_OUT = 0.75  # lower bound of the share of sentences with the word whose references all do without it
CLEAN_TO_TOXIC = (
    3.0  # clean texts for each toxic one where the lexicon is used: more than in the training sources
)
LABEL_SHARE = 0.35  # mean share of votes from which a word counts for a kind


@dataclass(slots=True)
class _Count:
    toxic: float = 0.0
    clean: float = 0.0
    marked: int = 0
    unmarked: int = 0
    shares: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


def lower_bound(hits: float, total: float, *, z: float = 1.64) -> float:
    """Wilson's lower bound of a share (one-sided 95 %)."""
    if total == 0:
        return 0.0
    share = hits / total
    centre = share + z * z / (2 * total)
    margin = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return max(0.0, (centre - margin) / (1 + z * z / total))  # rounding can pass below zero


def build_lexicon(
    texts: Sequence[Labelled], *, pairs: Sequence[SourceRow] = (), certain: float = CERTAIN
) -> list[tuple[str, str, float]]:
    """Entries ``(word, label, weight)`` in order; the weight is the lower bound of the word's toxic share.

    ``pairs`` are toxic sentences with their neutral references.

    Clean texts count as if there were ``CLEAN_TO_TOXIC`` times as many as toxic ones, however many were
    collected.
    """
    counts = _counted(texts)
    toxic = sum(1 for text in texts if (text.labels[0] or 0) >= 0.5)
    balance = CLEAN_TO_TOXIC * toxic / max(1, len(texts) - toxic)
    taken_out = _taken_out(pairs)
    entries = []
    for word, count in counts.items():
        clean = count.clean * balance
        weight = lower_bound(count.toxic, count.toxic + clean)
        marks = count.marked + count.unmarked
        blamed = marks < MIN_MARKS or lower_bound(count.marked, marks) >= MIN_MARKED
        least = LIKELY if word in taken_out else certain
        if count.toxic >= MIN_TEXTS and weight >= least and (blamed or word in taken_out):
            entries.append((word, _label(count), round(weight, 3)))
    return sorted(entries)


def _taken_out(pairs: Sequence[SourceRow]) -> set[str]:
    """The words that neutral references almost never keep."""
    present: dict[str, int] = defaultdict(int)
    removed: dict[str, int] = defaultdict(int)
    for pair in pairs:
        kept = {word for reference in pair.references for word in WORD.findall(reference.lower())}
        for word in set(WORD.findall(pair.source.lower())):
            present[word] += 1
            removed[word] += word not in kept
    return {word for word, times in present.items() if lower_bound(removed[word], times) >= TAKEN_OUT}


def _counted(texts: Iterable[Labelled]) -> dict[str, _Count]:
    counts: dict[str, _Count] = defaultdict(_Count)
    for text in texts:
        share = text.labels[0]
        if share is None or text.source == "toxic_spans_sentence":
            continue
        seen = set()
        for match in WORD.finditer(text.text.lower()):
            word = match.group()
            count = counts[word]
            if share >= 0.5 and text.spans:
                inside = any(start < match.end() and end > match.start() for start, end in text.spans)
                count.marked += inside
                count.unmarked += not inside
            if word not in seen:
                seen.add(word)
                count.toxic += share
                count.clean += 1 - share
                for label, value in zip(TRAINED, text.labels, strict=True):
                    if label in KINDS and value is not None and share >= 0.5:
                        count.shares[label].append(value)
    return {word: count for word, count in counts.items() if normalise(word).text == word}


def _label(count: _Count) -> str:
    """The kind that voters named most often in texts with the word; obscene for a plain swear word."""
    means = {label: sum(values) / len(values) for label, values in count.shares.items() if len(values) >= 3}
    best = max(means, key=lambda label: means[label], default="obscene")
    return best if means.get(best, 0.0) >= LABEL_SHARE else "obscene"


def write_lexicon(entries: Sequence[tuple[str, str, float]], path: str | Path) -> Path:
    """Writes ``word<TAB>label<TAB>weight`` lines."""
    head = "# Built from the training texts by python -m research detector; word, label, weight.\n"
    lines = "".join(f"{word}\t{label}\t{weight}\n" for word, label, weight in entries)
    Path(path).write_text(head + lines, encoding="utf-8")
    return Path(path)
