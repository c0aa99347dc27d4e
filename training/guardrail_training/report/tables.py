"""Tables and figures of the page, as its template writes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from guardrail_training.report.drawing import Drawing

__all__ = ["Cell", "Figure", "Table", "table"]


@dataclass(frozen=True, slots=True)
class Cell:
    """A text, and a smaller one below it; ``kind`` is number, code or said (a text of data or model)."""

    text: str
    below: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under titles; the first column names its rows. ``numeric`` says which columns hold numbers."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numeric: tuple[bool, ...]


def table(header: Sequence[str], rows: Iterable[Sequence[Cell | str]], *, caption: str) -> Table:
    """A table; a column stands to the right if its first cell is a number."""
    made = tuple(tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row) for row in rows)
    first = made[0] if made else ()
    numeric = tuple(_is_number(cell) for cell in first) or (False,) * len(header)
    if any(len(row) != len(header) for row in made):
        raise ValueError(f"{caption}: every row needs {len(header)} cells")
    return Table(caption, tuple(header), made, numeric)


def _is_number(cell: Cell) -> bool:
    text = cell.text
    if cell.kind:
        return cell.kind == "number"
    return text[:1].isdecimal() or (len(text) > 1 and text[0] in "+\N{MINUS SIGN}")


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing under its title; ``says`` is what it shows, for those who do not see it."""

    title: str
    drawing: Drawing
    says: str
    caption: str
    code: str = ""
