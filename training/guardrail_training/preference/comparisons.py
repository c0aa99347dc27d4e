"""The best and the worst of each sentence's candidates, kept in a file that an interrupted run continues."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from guardrail.errors import ConfigError
from guardrail.integrations.rows.record import to_json
from guardrail_training.records import Record, TrainingRowError, read_records

__all__ = ["FILENAME", "Comparison", "append_comparisons", "pairs_of", "read_comparisons"]

FILENAME = "pairs.jsonl"
FIELDS: Mapping[str, type | tuple[type, ...]] = {
    "row": int,
    "query": str,
    "candidates": int,
    "chosen": (str, type(None)),
    "rejected": (str, type(None)),
    "score_chosen": (int, float, type(None)),
    "score_rejected": (int, float, type(None)),
    "fingerprint": str,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What the candidates of one row came to: the best and the worst with their rewards.

    ``row`` is its number in the data. ``candidates`` counts the distinct ones; where there are fewer than
    two, nothing is chosen or rejected and all four are None.
    """

    row: int
    query: str = field(repr=False)
    candidates: int
    chosen: str | None = field(default=None, repr=False)
    rejected: str | None = field(default=None, repr=False)
    score_chosen: float | None = None
    score_rejected: float | None = None

    @property
    def margin(self) -> float:
        """By how much the best is better than the worst; 0 where there are not two."""
        if self.score_chosen is None or self.score_rejected is None:
            return 0.0
        return self.score_chosen - self.score_rejected


def read_comparisons(path: Path, *, fingerprint: str) -> dict[int, Comparison]:
    """The comparisons of an earlier run by row number, none where there is no file.

    A last line that was cut short is removed from the file. Raises TrainingRowError for a row that cannot be
    read, ConfigError for one that other settings or models made.
    """
    if not path.is_file():
        return {}
    whole = path.read_bytes().rfind(b"\n") + 1
    os.truncate(path, whole)
    if not whole:
        return {}
    return {
        comparison.row: comparison
        for comparison in (
            _comparison(record, where=path, fingerprint=fingerprint)
            for record in read_records(path, fields=FIELDS)
        )
    }


def _comparison(record: Record, *, where: Path, fingerprint: str) -> Comparison:
    if record["fingerprint"] != fingerprint:
        raise ConfigError(
            f"{where} row {record.number} was made with other settings, data or models; choose another --out "
            "or remove the file"
        )
    return Comparison(**{name: record[name] for name in FIELDS if name != "fingerprint"})


def append_comparisons(path: Path, comparisons: Iterable[Comparison], *, fingerprint: str) -> None:
    """Adds one line for each; they are on disk when this returns."""
    lines = [to_json({**asdict(comparison), "fingerprint": fingerprint}) + "\n" for comparison in comparisons]
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(lines))
        file.flush()
        os.fsync(file.fileno())


def pairs_of(
    rows: Sequence[int], comparisons: Mapping[int, Comparison], *, margin: float
) -> list[Comparison]:
    """The comparisons of these rows that are decided by at least ``margin``; TrainingRowError for none."""
    found = [comparisons[row] for row in rows]
    pairs = [comparison for comparison in found if comparison.margin >= margin]
    if not pairs:
        alone = sum(comparison.candidates < 2 for comparison in found)
        widest = max(comparison.margin for comparison in found)
        raise TrainingRowError(
            f"no pair to train on: of {len(found)} sentences {alone} have fewer than two candidates, "
            f"and the widest difference in reward is {widest:.3f}; lower margin, or raise candidates, "
            "temperature or sentences"
        )
    return pairs
