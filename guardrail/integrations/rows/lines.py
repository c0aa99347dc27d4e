"""JSON Lines in, JSON Lines with verdicts out; every line in gives one line out.

A line that cannot be judged is not dropped and stops nothing: it comes out in its place as
``{"error": why, "line": number, "source": the line as it was}``.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from guardrail.errors import PluginError, UsageError
from guardrail.integrations.rows.beginnings import BOM, require_rows
from guardrail.integrations.rows.compression import compressed, decompressed
from guardrail.integrations.rows.field_path import RowError, text_of
from guardrail.outcome import Verdict
from guardrail.outcome.rows import verdict_row

__all__ = [
    "Columns",
    "Report",
    "dumps",
    "judge_lines",
    "read_object",
    "replacing",
    "require_apart",
    "require_free",
    "verdicts_of",
]

SHOWN_LINES = 5


@dataclass(frozen=True, slots=True)
class Columns:
    """The field, or path, that holds the text and the field that receives the verdict."""

    text: str
    verdict: str


@dataclass(frozen=True, slots=True)
class Report:
    """How many rows were judged and flagged, and the numbers of the lines that could not be judged."""

    judged: int
    flagged: int
    bad_lines: tuple[int, ...]

    def summary(self) -> str:
        """One line for a terminal."""
        line = f"{self.judged} rows judged, {self.flagged} flagged"
        if not self.bad_lines:
            return line
        shown = ", ".join(map(str, self.bad_lines[:SHOWN_LINES]))
        more = ", ..." if len(self.bad_lines) > SHOWN_LINES else ""
        return (
            f"{line}; {len(self.bad_lines)} could not be judged (line {shown}{more}): see their error field"
        )


@dataclass(frozen=True, slots=True)
class _Line:
    """One line of the input: a row with a text, or the reason why it is none."""

    number: int
    source: str
    row: dict[str, Any]
    text: str
    error: str | None = None


def judge_lines(
    detect: Callable[[Sequence[str]], list[Verdict]],
    source: Path,
    target: Path,
    *,
    columns: Columns,
    batch: int,
) -> Report:
    """Judges every row of ``source`` (``-``: standard input) and writes it with its verdict to ``target``.

    Either is compressed if its name ends in ``.gz`` or ``.zst``.

    At most ``batch`` rows are held in memory. Where the detector fails, the rows are judged one by one, so
    that a row which breaks it, or is late, fails alone. Raises UsageError if both are the same file, if one
    cannot be opened, or if the input is not JSON Lines at all.
    """
    judged, flagged = 0, 0
    bad: list[int] = []
    with _reading(source) as raw, _writing(target, source=source) as out:
        for lines in _batches(_parsed(raw, columns), batch):
            verdicts = iter(verdicts_of(detect, [line.text for line in lines if line.error is None]))
            for line in lines:
                verdict = line.error or next(verdicts)
                if isinstance(verdict, Verdict):
                    judged += 1
                    flagged += verdict.flagged
                    row = {**line.row, columns.verdict: verdict_row(verdict)}
                else:
                    bad.append(line.number)
                    row = {"error": verdict, "line": line.number, "source": line.source}
                out.write(f"{dumps(row)}\n".encode())
            out.flush()
    return Report(judged, flagged, tuple(bad))


def verdicts_of(
    detect: Callable[[Sequence[str]], list[Verdict]], texts: Sequence[str]
) -> Sequence[Verdict | str]:
    """For each text its verdict, or why there is none; a text that breaks the detector breaks it alone."""
    try:
        return detect(texts)
    except PluginError as error:
        if len(texts) == 1:
            return [str(error)]
        return [verdicts_of(detect, [text])[0] for text in texts]


def dumps(row: object) -> str:
    """JSON on one line, readable where it can be: escaped only where it holds half a surrogate pair."""
    text = json.dumps(row, ensure_ascii=False)
    return text if _is_encodable(text) else json.dumps(row)


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _parsed(raw: Iterable[bytes], columns: Columns) -> Iterator[_Line]:
    """The lines that are not blank; bytes are split at line feeds only, as JSON Lines has it."""
    for number, line in enumerate(raw, 1):
        content = line.removeprefix(BOM) if number == 1 else line
        if content.strip():
            yield _parse(number, content.rstrip(b"\r\n"), columns)


def _parse(number: int, line: bytes, columns: Columns) -> _Line:
    source = line.decode("utf-8", "surrogateescape")
    try:
        row = read_object(line)
        text = text_of(row, columns.text)
        require_free(row, columns.verdict)
    except RowError as problem:
        return _Line(number, source, {}, "", str(problem))
    return _Line(number, source, row, text)


def read_object(line: bytes) -> dict[str, Any]:
    """The JSON object of a line; RowError where it holds none."""
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError as problem:
        raise RowError(f"not UTF-8 at byte {problem.start}") from None
    except json.JSONDecodeError as problem:
        raise RowError(f"not JSON: {problem.msg} at character {problem.pos}") from None
    except (RecursionError, ValueError):
        raise RowError("not usable JSON: nested too deeply, or a number with thousands of digits") from None
    if not isinstance(row, dict):
        raise RowError(f"expected a JSON object, got {type(row).__name__}")
    return row


def require_free(row: Mapping[str, Any], field: str) -> None:
    """RowError where the row has a field of that name already."""
    if field in row:
        raise RowError(f"there is a field {field!r} already: choose another with --into")


def _batches(lines: Iterator[_Line], size: int) -> Iterator[list[_Line]]:
    while batch := list(itertools.islice(lines, size)):
        yield batch


@contextlib.contextmanager
def _reading(source: Path) -> Iterator[Iterable[bytes]]:
    """The lines of a file with a progress bar on standard error, or those of standard input."""
    if str(source) == "-":
        yield _of_rows(sys.stdin.buffer)
        return
    import rich.progress
    from rich.console import Console

    console = Console(stderr=True)
    try:
        opened = rich.progress.open(
            source, "rb", description="judging", console=console, disable=not console.is_terminal
        )
    except OSError as error:
        raise UsageError(f"cannot read {source}: {error.strerror}") from error
    with opened as file:
        yield _of_rows(decompressed(file, source))


def _of_rows(file: BinaryIO) -> Iterator[bytes]:
    """All lines. UsageError, before anything is written, if the first one shows that they are no rows."""
    first = list(itertools.islice(file, 1))
    for line in first:
        require_rows(line)
    return itertools.chain(first, file)


@contextlib.contextmanager
def _writing(target: Path, *, source: Path) -> Iterator[BinaryIO]:
    if str(target) == "-":
        yield sys.stdout.buffer
        return
    require_apart(source, target)
    try:
        opened = target.open("wb")
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror}") from error
    with opened as file, contextlib.closing(compressed(file, target)) as out:
        yield out


def require_apart(source: Path, target: Path) -> None:
    """UsageError if both are the same file."""
    if str(source) != "-" and target.exists() and source.samefile(target):
        raise UsageError(f"IN and OUT are the same file, {source}: it would be overwritten while it is read")


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[BinaryIO]:
    """A file to write into, which stands in the target's place at once and on disk if all goes well.

    ``-`` is standard output. UsageError if the file cannot be written.
    """
    if str(target) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    new = target.with_name(f"{target.name}.new")
    try:
        opened = new.open("wb")
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror}") from error
    try:
        with opened as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        new.replace(target)
    finally:
        new.unlink(missing_ok=True)
