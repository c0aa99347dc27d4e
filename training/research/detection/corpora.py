"""Labelled texts for the detector, from a folder of JSON Lines or from a hub, without near-duplicates.

A source gives votes where it has them; they become soft labels. A label that a source cannot know is ``None``
and is masked in the loss, never taken as zero.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from guardrail.errors import MissingExtraError, UsageError
from guardrail_training.records import data_folder, read_records
from research.detection.labelled import (
    CLEAN,
    HELD_OUT,
    TRAINED,
    Labelled,
    Labels,
    fold,
    soft,
)
from research.detection.sources import LICENCES, SOURCES, removed_spans, wikitext_sentences

__all__ = [
    "CLEAN",
    "HELD_OUT",
    "LICENCES",
    "SOURCES",
    "TRAINED",
    "Labelled",
    "Labels",
    "distinct",
    "fold",
    "load",
    "removed_spans",
    "soft",
    "source_path",
    "training_texts",
    "wikitext_sentences",
]

Row = Mapping[str, Any]

HUB = {
    "paradetox": "s-nlp/paradetox",
    "davidson": "tdavidson/hate_speech_offensive",
    "stormfront": "odegiber/hate_speech18",
}
OWN = {
    "own": Path(__file__).parent / "sentences" / "own.jsonl",
    "rewrites": Path(__file__).parents[2] / "data" / "rewrites.jsonl",
}
"""Sentences of this project, all for training."""
WORD = re.compile(r"\w+")
SKETCH = 5  # smallest shingle hashes that stand for a text
SHARED = 0.7  # Jaccard similarity of three-word shingles from which two texts are the same


def source_path(root: Path, source: str, part: str) -> Path:
    """Where a source's part lies under a data folder."""
    return root / source / ("valid.txt" if source == "wikitext2" else f"{part}.jsonl")


def load(
    root: str | Path | None = None, *, part: str, sources: Sequence[str] | None = None
) -> list[Labelled]:
    """Every text of one part (``train`` or ``dev``) of the named sources, all of them by default.

    ``root`` is a folder with one subfolder per source; without it ``GUARDRAIL_DATA`` is taken, and without
    that the hub for the sources it has. WikiText-2 has no labels and no dev part here: its ``valid.txt`` is
    clean training text, and the sentences of this project (``OWN``) are all for training. A folder may lack
    sources unless they are named. Raises UsageError for a named source that cannot be found or a row without
    its fields (with the row's number).
    """
    if part not in ("train", "dev"):
        raise UsageError(f"part must be 'train' or 'dev', got {part!r}")
    folder = data_folder(root)
    texts: list[Labelled] = []
    for source in sources or SOURCES:
        if source not in SOURCES:
            raise UsageError(f"unknown source {source!r}; the sources are {sorted(SOURCES)}")
        if part == "dev" and source in ("wikitext2", *OWN):
            continue
        if source in OWN:
            rows = _own_rows(OWN[source])
        elif sources is None and folder and not source_path(folder, source, part).is_file():
            continue
        else:
            rows = _file_rows(folder, source, part) if folder else _hub_rows(source, part)
        texts.extend(_labelled(source, rows))
    return texts


def training_texts(root: str | Path | None, *, without: str = "") -> list[Labelled]:
    """The train part of every source but ``without``: no text of a dev part, and no text of two sources."""
    sources = None if not without else [source for source in SOURCES if source != without]
    return distinct(load(root, part="train", sources=sources), load(root, part="dev"))


def distinct(texts: Sequence[Labelled], apart: Sequence[Labelled]) -> list[Labelled]:
    """``texts`` without those that nearly equal one of ``apart``, or one of an earlier source.

    Two texts are the same if their words are, or if seven in ten of their three-word shingles are. Within a
    source nothing is removed: toxic sentences and their neutral versions differ in a word.
    """
    seen = _Seen()
    for text in {text.text: text for text in apart}.values():
        seen.add(text.text)
    kept: list[Labelled] = []
    for _, rows in groupby(texts, key=lambda text: text.key.split(":")[0]):
        fresh = [row for row in rows if not seen.has(row.text)]
        for row in fresh:
            seen.add(row.text)
        kept += fresh
    return kept


class _Seen:
    """Texts by the smallest hashes of their shingles: only texts that may be the same are compared."""

    def __init__(self) -> None:
        self._index: dict[int, list[frozenset[int]]] = defaultdict(list)

    def add(self, text: str) -> None:
        shingles = _shingles(text)
        for number in sorted(shingles)[:SKETCH]:
            self._index[number].append(shingles)

    def has(self, text: str) -> bool:
        shingles = _shingles(text)
        return any(
            len(shingles & earlier) >= SHARED * len(shingles | earlier)
            for number in sorted(shingles)[:SKETCH]
            for earlier in self._index[number]
        )


def _shingles(text: str) -> frozenset[int]:
    words = WORD.findall(text.lower()) or [text]
    grams = [" ".join(words[place : place + 3]) for place in range(max(1, len(words) - 2))]
    return frozenset(
        int.from_bytes(hashlib.blake2b(gram.encode(errors="replace"), digest_size=8).digest(), "big")
        for gram in grams
    )


def _labelled(source: str, rows: Iterable[Row]) -> Iterator[Labelled]:
    for number, row in enumerate(rows, start=1):
        try:
            yield from SOURCES[source](row, f"{source}:{number}")
        except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            raise UsageError(
                f"{source}, row {number}: unusable ({type(error).__name__}: {error.args[:1]})"
            ) from error


def _own_rows(path: Path) -> Iterator[Row]:
    if not path.is_file():
        raise UsageError(f"{path} not found: the sentences of this project are in its repository")
    for line in path.read_text(encoding="utf-8").splitlines():
        yield json.loads(line)


def _file_rows(root: Path, source: str, part: str) -> Iterator[Row]:
    path = source_path(root, source, part)
    if source != "wikitext2":
        yield from (record.content for record in read_records(path))
        return
    if not path.is_file():
        raise UsageError(f"{path} not found: give its folder with --data or GUARDRAIL_DATA")
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield {"text": line}


def _hub_rows(source: str, part: str) -> Iterator[Row]:
    """The same rows from a hub, which has train alone: dev is a twentieth of it by hash."""
    if source not in HUB:
        raise UsageError(f"{source!r} is read from a folder only; pass --data FOLDER or set GUARDRAIL_DATA")
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError(feature="reading from a hub", extra="train") from error
    for number, row in enumerate(datasets.load_dataset(HUB[source], split="train")):
        if (fold(f"hub:{source}:{number}") < 0.05) == (part == "dev"):
            yield _from_hub(source, row)


def _from_hub(source: str, row: Row) -> Row:
    if source == "paradetox":
        return {"toxic": row["en_toxic_comment"], "neutral": [row["en_neutral_comment"]]}
    if source == "davidson":
        votes = {
            "hate": "hate_speech_count",
            "offensive": "offensive_language_count",
            "neither": "neither_count",
        }
        return {"text": row["tweet"], **{name: row[column] for name, column in votes.items()}}
    return {"text": row["text"], "label": "hate" if row["label"] == 1 else "noHate"}
