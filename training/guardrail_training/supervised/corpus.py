"""The rows that a supervised run trains on, and those that it is measured on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from guardrail.errors import UsageError
from guardrail.manifest import sha256_of
from guardrail_training.data import (
    PARADETOX,
    FileRows,
    Rows,
    SourceRow,
    load_paradetox,
    read_rows,
    share_indices,
    without_copies,
)
from guardrail_training.records import TrainingRowError, data_folder
from guardrail_training.supervised.settings import SftSettings

__all__ = ["Corpus", "load_corpus", "sources_sha256"]


@dataclass(frozen=True, slots=True)
class Corpus:
    """The rows of a run; ``train`` may be on disk, ``dev`` is in memory."""

    train: Rows
    dev: Sequence[SourceRow]


def load_corpus(settings: SftSettings) -> Corpus:
    """Every row checked. Raises TrainingRowError for a bad row and if none is left, UsageError if the
    settings name no data."""
    keep = _keeper(settings)
    train = _train(settings, keep)
    if settings.dev:
        dev = [usable for row in _read(settings, "dev") if (usable := keep(row)) is not None]
    else:
        held_out = _held_out(len(train), settings)
        dev = [train[index] for index in held_out]
        train = _taken(train, sorted(set(range(len(train))) - set(held_out)))
    train = _taken(train, share_indices(len(train), settings.share, seed=settings.seed))
    for name, rows in (("train", train), ("dev", dev)):
        if not len(rows):
            raise TrainingRowError(
                f"no row is left of {name}: every reference copies its source, or every source is outside "
                "min_characters and max_characters"
            )
    return Corpus(train=train, dev=dev)


def _held_out(count: int, settings: SftSettings) -> Sequence[int]:
    """The rows that are measured on; a single row is trained on alone."""
    if count < 2:
        return ()
    if settings.split == "random":
        return share_indices(count, settings.held_out, seed=settings.seed)
    return range(count - max(1, round(count * settings.held_out)), count)


def sources_sha256(settings: SftSettings) -> dict[str, str]:
    """The sha256 of the files, by ``train`` and ``dev``; empty for the hub's copy."""
    folder = data_folder(settings.data)
    if folder is None:
        return {}
    names = {"train": settings.train, "dev": settings.dev}
    return {split: sha256_of(folder / name) for split, name in names.items() if name}


def _train(settings: SftSettings, keep: Callable[[SourceRow], SourceRow | None]) -> Rows:
    folder = data_folder(settings.data)
    if settings.streaming:
        if folder is None:
            raise UsageError("streaming reads a file: name its folder with --data or GUARDRAIL_DATA")
        return FileRows.of(folder / settings.train, columns=settings.columns, keep=keep)
    return [usable for row in _read(settings, "train") if (usable := keep(row)) is not None]


def _read(settings: SftSettings, split: str) -> list[SourceRow]:
    folder = data_folder(settings.data)
    if folder is not None:
        return read_rows(folder / getattr(settings, split), columns=settings.columns)
    if settings.columns != PARADETOX or Path(settings.train).parent.name != "paradetox":
        raise UsageError("no data folder: give it with --data or GUARDRAIL_DATA; the hub has ParaDetox alone")
    return load_paradetox(None, split=split)


def _keeper(settings: SftSettings) -> Callable[[SourceRow], SourceRow | None]:
    """What makes of a row the one to train on, or None."""

    def keep(row: SourceRow) -> SourceRow | None:
        fits = settings.min_characters <= len(row.source) <= settings.max_characters
        if not fits:
            return None
        return row if settings.keep_copies else without_copies(row)

    return keep


def _taken(rows: Rows, indices: Sequence[int]) -> Rows:
    if len(indices) == len(rows):
        return rows
    return rows.take(indices) if isinstance(rows, FileRows) else [rows[index] for index in indices]
