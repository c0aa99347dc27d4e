"""Moderates a file of any size, row by row in order, and goes on where an interrupted run left off."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO

from guardrail.errors import UsageError
from guardrail.guard import Guard
from guardrail.integrations.bulk.csv_rows import CsvRows
from guardrail.integrations.bulk.journal import Counts, Journal
from guardrail.integrations.bulk.json_lines import JsonLines
from guardrail.integrations.bulk.output import Output
from guardrail.integrations.bulk.records import Format, Position, Record
from guardrail.integrations.lines import dumps

__all__ = ["Job", "Summary"]

Report = Callable[[Position, Counts], object]
WINDOW = 128
"""Rows judged together."""
WINDOW_BYTES = 1 << 22
CHECKPOINT_SECONDS = 1.0
SAMPLE = 1 << 16
SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "csv"}


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run came to; ``resumed`` counts the rows that an earlier run had done, ``seconds`` this one."""

    counts: Counts
    resumed: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One file to moderate.

    source, target  the input and the output; ``-`` is standard input or output, and then nothing is resumed
    bad             receives rows that cannot be judged as ``{"line", "error", "source"}``, not the output;
                    default: the output's name with ``.bad.jsonl``
    field           the field or column that holds the text
    into            where to put action, scores and what was degraded; None: nowhere
    kind            "jsonl" or "csv"; None: by the input's suffix
    delimiter       of a CSV file; None: found out
    overwrite       begin anew although there is an output
    """

    source: Path
    target: Path
    bad: Path | None = None
    field: str = "text"
    into: str | None = None
    kind: str | None = None
    delimiter: str | None = None
    overwrite: bool = False

    def run(self, guard: Guard, *, report: Report = lambda position, counts: None) -> Summary:
        """Moderates every row and returns once the output is complete and on disk.

        ``report`` is told after every window how far the input is read. A run that is interrupted, killed
        even, is continued by the next one: nothing is lost and nothing written twice. Raises UsageError where
        the output belongs to something else, or where the input cannot be read as said.
        """
        with (
            _open_source(self.source) as source,
            Output(self._target_path(), keep_empty=True) as target,
            Output(_apart(self.bad_rows, self.source)) as bad,
        ):
            return _Run(self, guard, source, target, bad).finish(report)

    def _target_path(self) -> Path | None:
        return None if str(self.target) == "-" else _apart(self.target, self.source)

    @property
    def bad_rows(self) -> Path:
        """The file for rows that cannot be judged."""
        if self.bad is not None:
            return self.bad
        return Path("bad.jsonl") if str(self.target) == "-" else _beside(self.target, ".bad.jsonl")

    @property
    def journal(self) -> Path:
        """Where an interrupted run says how far it came."""
        return _beside(self.target, ".journal")

    @property
    def is_resumable(self) -> bool:
        """True where both ends are files."""
        return "-" not in (str(self.source), str(self.target))

    def opened(self, file: BinaryIO) -> Format:
        """The input's format; reads the header where it has one."""
        kind = self.kind or SUFFIXES.get(self.source.suffix.lower())
        if kind == "jsonl":
            return JsonLines(field=self.field, into=self.into)
        if kind == "csv":
            return CsvRows(file, field=self.field, into=self.into, delimiter=self.delimiter)
        raise UsageError(f"what kind of file {self.source} is cannot be seen: say --format jsonl or csv")


class _Run:
    """A job with its files open, at the place where it begins or goes on."""

    def __init__(self, job: Job, guard: Guard, source: BinaryIO, target: Output, bad: Output) -> None:
        self._job, self._guard, self._source, self._target, self._bad = job, guard, source, target, bad
        self._format = job.opened(source)
        identity = _identity(source) if job.is_resumable else {}
        described = {**self._format.settings, **identity, **asdict(guard.origin())}
        found = Journal.read(job.journal) if job.is_resumable and not job.overwrite else None
        if found is not None:
            found.require_same(described)
            self._journal = self._continued(found)
        else:
            self._journal = self._begun(Journal(described, source=self._format.start))

    def finish(self, report: Report) -> Summary:
        """Reads to the end of the input."""
        started = saved = monotonic()
        before = self._journal.counts
        for window in _windows(self._format.records(self._source, self._journal.source)):
            counts = self._settle(window)
            sizes = {"target": self._target.size, "bad": self._bad.size}
            self._journal = self._journal.at(window[-1].end, counts=counts, **sizes)
            report(self._journal.source, counts)
            if monotonic() - saved >= CHECKPOINT_SECONDS:
                self._save()
                saved = monotonic()
        self._save()
        if self._job.is_resumable:
            self._job.journal.unlink()
        return Summary(self._journal.counts, before.judged + before.bad, monotonic() - started)

    def _begun(self, journal: Journal) -> Journal:
        for output in (self._target, self._bad):
            if output.size and not self._job.overwrite:
                raise UsageError(f"{output.path} is there already: choose another, or --overwrite it")
        if self._job.is_resumable:  # or a job killed now would go on in files that are begun anew
            self._job.journal.unlink(missing_ok=True)
        self._target.rewind(0)
        self._bad.rewind(0)
        self._target.write(self._format.head)
        self._journal = journal.at(journal.source, target=self._target.size, bad=0, counts=journal.counts)
        self._save()
        return self._journal

    def _continued(self, journal: Journal) -> Journal:
        self._target.rewind(journal.target)
        self._bad.rewind(journal.bad)
        self._source.seek(journal.source.offset)
        return journal

    def _settle(self, window: Sequence[Record]) -> Counts:
        """Judges and writes the rows of a window; the counts with them."""
        judged = [record for record in window if record.text is not None]
        outcomes = self._guard.check_many(
            [record.text or "" for record in judged],
            keys=[f"{self._journal.key}-{record.number}" for record in judged],
        )
        by_number = {record.number: outcome for record, outcome in zip(judged, outcomes, strict=True)}
        for record in window:
            if record.error is not None:
                source = record.raw.decode("utf-8", "surrogateescape").rstrip("\r\n")
                row = {"line": record.number, "error": record.error, "source": source}
                self._bad.write(f"{dumps(row)}\n".encode())
            else:
                outcome = by_number.get(record.number)
                self._target.write(self._format.written(record, outcome) if outcome else record.raw)
        bad = sum(record.error is not None for record in window)
        return self._journal.counts.plus(outcomes, bad=bad)

    def _save(self) -> None:
        """What was written so far is on disk, and then the journal says so."""
        self._target.sync()
        self._bad.sync()
        if self._job.is_resumable:
            self._journal.write(self._job.journal)


def _windows(records: Iterator[Record]) -> Iterator[list[Record]]:
    """Groups of at most WINDOW rows, and of not many more than WINDOW_BYTES."""
    window: list[Record] = []
    size = 0
    for record in records:
        window.append(record)
        size += len(record.raw)
        if len(window) == WINDOW or size >= WINDOW_BYTES:
            yield window
            window, size = [], 0
    if window:
        yield window


def _identity(file: BinaryIO) -> dict[str, Any]:
    """What tells whether a file is still the one that a job began with; leaves it where it stands."""
    status, place = os.fstat(file.fileno()), file.tell()
    file.seek(0)
    sample = hashlib.sha256(file.read(SAMPLE)).hexdigest()
    file.seek(place)
    return {"input size": status.st_size, "input time": status.st_mtime_ns, "input beginning": sample}


def _open_source(source: Path) -> AbstractContextManager[BinaryIO]:
    if str(source) == "-":
        return nullcontext(sys.stdin.buffer)
    try:
        return source.open("rb")
    except OSError as error:
        raise UsageError(f"cannot read {source}: {error.strerror}") from error


def _apart(target: Path, source: Path) -> Path:
    if str(source) != "-" and target.exists() and source.samefile(target):
        raise UsageError(f"IN and OUT are the same file, {source}: it would be overwritten while it is read")
    return target


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.name}{suffix}")
