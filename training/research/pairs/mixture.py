"""The rows that a rewriter's adapter is trained on, from all sources of pairs, and those that it is not.

Hand-written pairs are taken as they are, ParaDetox after cleaning (``written``) and by rule (``references``).
Some rows are clean and their own rewrite. Sentences that nothing civil can carry go into a second list. No
text that nearly equals one of a dev set is in either.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from guardrail.detectors.lexicon import Lexicon
from guardrail.detectors.onnx import OnnxDetector
from guardrail.errors import UsageError
from guardrail.outcome import Span
from guardrail.protocols import Detector
from guardrail_training.data import load_paradetox
from guardrail_training.records import read_records, required_folder
from research.detection.corpora import distinct, load
from research.detection.labelled import CLEAN, Labelled
from research.pairs.references import Pairing, is_noise, new_stems, refused_by
from research.pairs.styles import restyled
from research.pairs.words import words
from research.pairs.written import (
    capitals_inside,
    cased,
    detokenised,
    names_of,
    with_articles,
)

__all__ = ["Mixture", "MixtureSettings", "PairRow", "build", "hand_written", "write_mixture"]

MIN_KNOWN = 3  # so many rows must have a word for it to count as rightly spelled
MIN_SPELLED = 8  # or so many texts of all sources, in which people spell less carefully
MIN_FAMILIAR = 2  # and so many for it to stand in a source
MIN_USUAL = 12  # so many rows must have a word new in a reference for it to be a usual one
BATCH = 64
MARKS = ".!?"


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureSettings:
    """What is mixed.

    data        folder of the sources; GUARDRAIL_DATA if empty
    own         further hand-written files in the form of training/data/rewrites.jsonl
    paradetox   at most so many rows of ParaDetox, 0: all that are fit
    clean       share of rows that are clean and their own rewrite
    seed        of samples, styles and order
    """

    data: str = ""
    own: tuple[str, ...] = ()
    paradetox: int = 0
    clean: float = 0.12
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.clean < 1 or self.paradetox < 0:
            raise UsageError(
                f"clean must be at least 0 and below 1, and paradetox 0 or more, got {self.clean} and "
                f"{self.paradetox}"
            )


@dataclass(frozen=True, slots=True)
class PairRow:
    """A sentence with its rewrites, best first; ``origin`` is the source that it came from."""

    source: str
    references: tuple[str, ...]
    origin: str

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts of the row."""
        return (self.source, *self.references)


@dataclass(frozen=True, slots=True)
class Judged:
    """A reference of ParaDetox as it was written again, and the rule that refused it, if one did."""

    source: str
    reference: str
    rule: str | None


@dataclass(frozen=True, slots=True)
class Mixture:
    """Rows to learn from, rows to learn from when not to rewrite, and what became of each reference."""

    rows: tuple[PairRow, ...]
    refused: tuple[PairRow, ...]
    judged: tuple[Judged, ...]
    near_dev: int

    def counts(self) -> dict[str, Mapping[str, int]]:
        """Rows per origin, and references of ParaDetox per rule."""
        return {
            "rows": dict(Counter(row.origin for row in self.rows).most_common()),
            "not to be rewritten": dict(Counter(row.origin for row in self.refused).most_common()),
            "references of ParaDetox": dict(
                Counter(each.rule or "kept" for each in self.judged).most_common()
            ),
            "left out": {"close to a dev row": self.near_dev},
        }


def write_mixture(settings: MixtureSettings, out: str | Path, refused: str | Path) -> Mixture:
    """Builds the mixture and writes both lists as JSON Lines; the same for the same settings and files."""
    mixture = build(settings)
    for path, rows in ((Path(out), mixture.rows), (Path(refused), mixture.refused)):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8") as file:
            for row in rows:
                content = {"toxic": row.source, "neutral": list(row.references), "origin": row.origin}
                file.write(json.dumps(content, ensure_ascii=False) + "\n")
    return mixture


def build(settings: MixtureSettings) -> Mixture:
    """The mixture of all sources in the data folder and of the project's own files."""
    data = required_folder(settings.data)
    written = _all_written(data, settings.own)
    pairs, judged = _paradetox(data, written)
    lossy = [each.row for each in written if each.lossy] + _cannot_rewrite(data)
    rows = [each.row for each in written if not each.lossy] + pairs
    lookalikes = [PairRow(each.lookalike, (each.lookalike,), "clean") for each in written if each.lookalike]
    fresh = _apart_from_dev([*rows, *lossy, *lookalikes], data)
    near_dev = len(rows) + len(lossy) + len(lookalikes) - len(fresh)

    generator = random.Random(f"mixture-{settings.seed}")
    chosen = [row for row in fresh if row.origin in ("everyday", "own")]
    chosen += _sample([row for row in fresh if row.origin == "paradetox"], settings.paradetox, generator)
    clean = [row for row in fresh if row.origin == "clean"]
    neutral = sorted({row.references[0]: row for row in chosen})
    clean += [PairRow(text, (text,), "clean") for text in generator.sample(neutral, len(neutral) // 4)]
    wanted = round(settings.clean / (1 - settings.clean) * len(chosen))
    chosen += _sample(clean, wanted, generator) if wanted else []
    generator.shuffle(chosen)
    styled = [_styled(row, generator) for row in chosen]
    refused = [row for row in fresh if row.origin in ("lossy", "cannot rewrite")]
    return Mixture(tuple(styled), tuple(refused), tuple(judged), near_dev)


def hand_written(data: str | Path, own: Sequence[str]) -> list[PairRow]:
    """The hand-written pairs as they were written, without those that nothing civil can carry."""
    return [each.row for each in _all_written(required_folder(data), own) if not each.lossy]


def _all_written(data: Path, own: Sequence[str]) -> list[_Written]:
    written = _hand_written(data / "everyday" / "train.jsonl", "everyday")
    for path in own:
        written += _hand_written(Path(path), "own")
    return written


def _sample(rows: list[PairRow], count: int, generator: random.Random) -> list[PairRow]:
    """A seeded sample in the order of the rows; all of them if ``count`` is 0 or exceeds them."""
    if not 0 < count < len(rows):
        return rows
    return [rows[place] for place in sorted(generator.sample(range(len(rows)), count))]


def _styled(row: PairRow, generator: random.Random) -> PairRow:
    source, *references = restyled(row.texts, generator)
    return PairRow(source, tuple(references), row.origin)


@dataclass(frozen=True, slots=True)
class _Written:
    """A hand-written item."""

    row: PairRow
    lossy: bool
    lookalike: str  # empty for an item without one


def _hand_written(path: Path, origin: str) -> list[_Written]:
    fields: dict[str, type | tuple[type, ...]] = {
        "toxic": str, "neutral": list, "lossy": bool,
    }  # fmt: skip
    return [
        _Written(
            PairRow(record["toxic"], tuple(record["neutral"]), "lossy" if record["lossy"] else origin),
            record["lossy"],
            record.content.get("lookalike", ""),
        )
        for record in read_records(path, fields=fields)
    ]


def _cannot_rewrite(data: Path) -> list[PairRow]:
    """What annotators refused to rewrite because its content is toxic, as written text."""
    path = data / "paradetox_cannot_rewrite" / "train.jsonl"
    if not path.is_file():
        return []
    found = []
    for record in read_records(path, fields={"text": str, "reasons": list}):
        text = cased(detokenised(record["text"]), {})
        if record["reasons"] == ["toxic_content"]:
            found.append(PairRow(text, (), "cannot rewrite"))
    return found


def _apart_from_dev(rows: Sequence[PairRow], data: Path) -> list[PairRow]:
    """The rows of which no text nearly equals one of a dev set."""
    apart = []
    for source in ("everyday", "paradetox", "paradetox_cannot_rewrite"):
        path = data / source / "dev.jsonl"
        for record in read_records(path) if path.is_file() else []:
            content = record.content
            found = (content.get("toxic"), content.get("text"), content.get("lookalike"))
            texts = (*found, *content.get("neutral", ()))
            apart += [_labelled(text, f"dev:{source}:{record.number}") for text in texts if text]
    ours = [_labelled(text, f"rows:{place}") for place, row in enumerate(rows) for text in row.texts]
    kept = Counter(text.key for text in distinct(ours, apart))
    return [row for place, row in enumerate(rows) if kept[f"rows:{place}"] == len(row.texts)]


def _labelled(text: str, key: str) -> Labelled:
    return Labelled(text, CLEAN, "pairs", key)


def _paradetox(data: Path, written: Sequence[_Written]) -> tuple[list[PairRow], list[Judged]]:
    """ParaDetox written again, with the references that no rule refuses, and the verdict on each."""
    again = [_again(row.source, row.references) for row in load_paradetox(data, split="train")]
    plain = [text for each in written for text in (*each.row.texts, each.lookalike) if text]
    names = names_of([*plain, *_encyclopedia(data)], (text for row in again for text in row.references))
    again = [_with_names(row, names) for row in again]
    seen = [each.row.texts for each in written] + [row.texts for row in again]
    in_pairs, anywhere = _rows_with(seen), _rows_with([text.text] for text in load(data, part="train"))
    known = _at_least(in_pairs, MIN_KNOWN) | _at_least(anywhere, MIN_SPELLED)
    familiar = _at_least(in_pairs, MIN_FAMILIAR) | _at_least(anywhere, MIN_KNOWN)
    usual = _at_least(Counter(new for row in again for new in _new(row)), MIN_USUAL)
    judged, kept = [], []
    for row, pairings in _pairings(again, known, usual):
        good: list[str] = []
        for pairing in pairings:
            noise = is_noise(pairing.source, spans=pairing.spans, familiar=familiar)
            rule = "noise" if noise else refused_by(pairing)
            judged.append(Judged(pairing.source, pairing.reference, rule))
            good += [pairing.reference] if rule is None else []
        if good:
            kept.append(PairRow(row.source, tuple(dict.fromkeys(good)), "paradetox"))
    return kept, judged


def _again(source: str, references: Iterable[str]) -> PairRow:
    return PairRow(
        detokenised(source), tuple(with_articles(detokenised(each)) for each in references), "paradetox"
    )


def _with_names(row: PairRow, names: Mapping[str, str]) -> PairRow:
    """The row with sentence starts, "I" and names in capitals, where its source was in small letters.

    What one of the references capitalises is a name in all of its texts.
    """
    if row.source != row.source.lower():
        return row
    ours = {word.casefold(): word for text in row.references for word in capitals_inside(text)}
    source, *references = (cased(text, {**names, **ours}) for text in row.texts)
    final = source[-1:] if source[-1:] in MARKS else ""
    ended = (text if text[-1:] in MARKS else text + final for text in references)
    return PairRow(source, tuple(dict.fromkeys(ended)), row.origin)


def _new(row: PairRow) -> set[str]:
    return {new for reference in row.references for new in new_stems(row.source, reference)}


def _rows_with(rows: Iterable[Iterable[str]]) -> Counter[str]:
    """How many rows have each word."""
    return Counter(key for texts in rows for key in {word.key for text in texts for word in words(text)})


def _at_least(counts: Mapping[str, int], count: int) -> frozenset[str]:
    return frozenset(each for each, times in counts.items() if times >= count)


def _encyclopedia(data: Path) -> list[str]:
    """Sentences of WikiText-2 where the folder has it: they show which words are names."""
    if not (data / "wikitext2" / "valid.txt").is_file():
        return []
    return [detokenised(text.text) for text in load(data, part="train", sources=["wikitext2"])]


def _pairings(
    rows: Sequence[PairRow], known: frozenset[str], usual: frozenset[str]
) -> Iterable[tuple[PairRow, list[Pairing]]]:
    """Every row with its references as the rules see them, judged in batches."""
    detectors: tuple[Detector, ...] = (OnnxDetector.shipped(threads=1), Lexicon.shipped())
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        texts = [text for row in batch for text in row.texts]
        flagged: dict[str, bool] = {}
        spans: dict[str, tuple[Span, ...]] = {}
        for detector in detectors:
            for text, verdict in zip(texts, detector.detect(texts), strict=True):
                flagged[text] = flagged.get(text, False) or verdict.flagged
                spans[text] = spans.get(text, ()) + verdict.spans
        for row in batch:
            yield (
                row,
                [
                    Pairing(row.source, text, spans[row.source], flagged[text], known, usual)
                    for text in row.references
                ],
            )
