"""Filled sheets: what readers said, how far they agree, and what counts where they do not."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from operator import eq
from pathlib import Path

from guardrail.errors import UsageError
from guardrail_training.evaluation.acceptance.sheet import (
    ACCEPT,
    COLUMNS,
    COMMENT,
    RATINGS,
    Key,
    SheetItem,
)

__all__ = ["RaterAgreement", "ReaderRatings", "Settled", "agreement_of", "read_ratings", "settle"]

Row = Mapping[str, str]
SEVERITY = tuple(rating for rating in RATINGS if rating != ACCEPT)


@dataclass(frozen=True, slots=True)
class ReaderRatings:
    """One reader's ratings by row id, and the rows that they belong to."""

    ratings: Mapping[str, str]
    items: Mapping[str, SheetItem]


@dataclass(frozen=True, slots=True)
class RaterAgreement:
    """Two readers on one sheet: shares that agree, and Cohen's kappa.

    ``verdict`` looks at accept or not alone, ``rating`` at all words. A share is None for a sheet without
    rows, kappa also if both said one thing throughout.
    """

    rows: int
    verdict: float | None
    verdict_kappa: float | None
    rating: float | None
    rating_kappa: float | None


@dataclass(frozen=True, slots=True)
class Settled:
    """What counts for each row; ``open`` are the rows in which readers differ and no third has spoken."""

    ratings: Mapping[str, str]
    differing: tuple[str, ...]
    open: tuple[str, ...]


def read_ratings(path: str | Path, key: Key, *, wanted: frozenset[str] | None = None) -> ReaderRatings:
    """A filled sheet, checked against the key: every row there once, none unknown, every rating a known word.

    ``wanted`` are the rows that it must have, by default all. Raises UsageError and names row, column and
    what to do.
    """
    wanted = key.ids if wanted is None else wanted
    ratings: dict[str, str] = {}
    items: dict[str, SheetItem] = {}
    for number, row in _rows(Path(path)):
        found, rating = row["id"].strip(), row["rating"].strip().casefold()
        where = f"{path} row {number}"
        if found in ratings:
            raise UsageError(f"{where}: the id {found} is there twice; each row of the sheet once")
        if found not in key.ids:
            raise UsageError(
                f"{where}: the key does not know the id {found!r}: it is the key of another sheet"
            )
        if found not in wanted and not rating:
            continue
        if rating not in RATINGS:
            said = "empty" if not rating else repr(rating)
            raise UsageError(f"{where}: rating is {said}; it must be one of {', '.join(RATINGS)}")
        ratings[found], items[found] = rating, SheetItem(found, row["source"], row["output"])
    if missing := sorted(wanted - set(ratings)):
        raise UsageError(
            f"{path} lacks {len(missing)} of {len(wanted)} rows, among them {', '.join(missing[:3])}: rate "
            "them too"
        )
    return ReaderRatings(ratings, items)


def agreement_of(first: ReaderRatings, second: ReaderRatings) -> RaterAgreement:
    """How far two readers of the same sheet agree."""
    ids = sorted(first.ratings)
    ours, theirs = ([reading.ratings[each] for each in ids] for reading in (first, second))
    accepts = [[rating == ACCEPT for rating in ratings] for ratings in (ours, theirs)]
    return RaterAgreement(len(ids), *_agreed(*accepts), *_agreed(ours, theirs))


def _agreed(ours: Sequence[object], theirs: Sequence[object]) -> tuple[float | None, float | None]:
    """The share of equal answers, and Cohen's kappa."""
    from sklearn.metrics import cohen_kappa_score

    if not ours:
        return None, None
    share = sum(map(eq, ours, theirs)) / len(ours)
    return share, float(cohen_kappa_score(ours, theirs)) if len({*ours, *theirs}) > 1 else None


def settle(first: ReaderRatings, second: ReaderRatings, third: ReaderRatings | None) -> Settled:
    """What counts: what both say, else what the third says; without a third the worse of the two."""
    ratings, differing, left = {}, [], []
    for each, one in first.ratings.items():
        other = second.ratings[each]
        if one == other:
            ratings[each] = one
            continue
        differing.append(each)
        if third is not None:
            ratings[each] = third.ratings[each]
        else:
            left.append(each)
            ratings[each] = min((r for r in (one, other) if r != ACCEPT), key=SEVERITY.index)
    return Settled(ratings, tuple(differing), tuple(left))


def _rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Rows with the number that an editor or spreadsheet shows; the rule and blank lines are skipped."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UsageError(f"no sheet {path}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8: save it as CSV UTF-8") from error
    yield from _lines(path, text) if path.suffix == ".jsonl" else _table(path, text)


def _lines(path: Path, text: str) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except ValueError:
            raise UsageError(f"{path} row {number}: not valid JSON") from None
        if isinstance(content, dict) and COMMENT in content:
            continue
        if not isinstance(content, dict) or not all(
            isinstance(content.get(name), str) for name in COLUMNS[:4]
        ):
            raise UsageError(f"{path} row {number}: needs {', '.join(COLUMNS[:4])}, each a text")
        yield number, content


def _table(path: Path, text: str) -> Iterator[tuple[int, Row]]:
    try:
        # A spreadsheet may save with semicolons or tabs.
        header_line = next((line for line in text.split("\n") if line.lstrip('"').startswith("id")), "")
        delimiter = max(",;\t", key=header_line.count)
        rows = list(csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise UsageError(f"{path}: not valid CSV; check its quotes ({error})") from None
    filled = (
        (n, cells) for n, cells in enumerate(rows, 1) if any(cells) and not cells[0].startswith(COMMENT)
    )
    _, names = next(filled, (0, []))
    header = [name.strip().casefold() for name in names]
    if missing := sorted(set(COLUMNS[:4]) - set(header)):
        raise UsageError(f"{path}: missing columns {', '.join(missing)}")
    for number, cells in filled:
        yield number, dict(zip_longest(header, cells[: len(header)], fillvalue=""))
