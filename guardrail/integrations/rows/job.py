"""Judges a file of any size, row by row in order, and resumes an interrupted run where it stopped."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any, BinaryIO

from guardrail.errors import UsageError
from guardrail.guard import Guard
from guardrail.integrations.rows.compression import compression_of, decompressed
from guardrail.integrations.rows.csv_rows import CsvRows
from guardrail.integrations.rows.formats import (
    TABLES,
    Kind,
    kind_of,
    opened_source,
    require_alike,
    require_apart,
    require_pyarrow,
)
from guardrail.integrations.rows.json_lines import JsonLines
from guardrail.integrations.rows.judging import OUTCOME_FIELDS, VERDICT_FIELDS, RowJudge, assembled, batches
from guardrail.integrations.rows.output import Counts, Journal, Output, replacing
from guardrail.integrations.rows.record import Assembled, Columns, Format, Position
from guardrail.outcome import Action

__all__ = ["Job", "Report", "Summary"]

Report = Callable[[Position, Counts], object]
CHECKPOINT_SECONDS = 1.0
SAMPLE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run came to; ``resumed`` counts the rows that an earlier run had done, ``seconds`` this one."""

    counts: Counts
    resumed: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One file to moderate, or to score.

    Args:
        source: The input; ``-`` is standard input, and then nothing is resumed. A name that ends in ``.gz``
            or ``.zst`` is that of a compressed file.
        target: The output, in the same way; ``-`` is standard output.
        bad: Receives rows that cannot be judged as ``{"line", "error", "source"}``, not the output; default:
            the output's name with ``.bad.jsonl``.
        field: The field or column that holds the text, or a path to it, such as ``comments.0.body``.
        into: Where to put what was found: action, scores and what was degraded, or the verdict; None:
            nowhere.
        scores_only: Leave every text as it is, and put its verdict into ``into`` ("verdict" if that is None).
        kind: "jsonl", "csv", "parquet" or "arrow"; None: by the input's suffix.
        delimiter: CSV delimiter; None: detected.
        overwrite: Begin anew even if there is an output.
        batch: Rows judged together.
    """

    source: Path
    target: Path
    bad: Path | None = None
    field: str = "text"
    into: str | None = None
    scores_only: bool = False
    kind: Kind | None = None
    delimiter: str | None = None
    overwrite: bool = False
    batch: int = 128

    def run(self, guard: Guard, *, report: Report = lambda position, counts: None) -> Summary:
        """Judges every row and returns once the output is complete and on disk.

        ``report`` is told after every batch how far the input is read. A run that is interrupted, killed
        even, is continued by the next one: nothing is lost and nothing written twice. Raises UsageError if
        the output belongs to something else, or if the input cannot be read as said.
        """
        kind = kind_of(self.source, self.kind)
        require_alike(self.source, self.target, kind)
        with opened_source(self.source, kind) as source:
            for written in (self.target, self.bad_rows):
                require_apart(self.source, written)
            with self._rows(kind) as rows, Output(self.bad_rows) as bad:
                return _Run(self, guard, source, rows, bad).finish(report)

    def length(self) -> int | None:
        """What positions come to at the end of the input: its bytes, a table's rows; None if nobody knows."""
        kind = kind_of(self.source, self.kind)
        if str(self.source) == "-" or compression_of(self.source) is not None:
            return None
        with opened_source(self.source, kind) as file:
            if kind == "jsonl" or kind == "csv":
                return os.fstat(file.fileno()).st_size
            require_pyarrow()
            from guardrail.integrations.rows.table_files import TableFile

            return TableFile(file, kind=kind).rows

    @contextmanager
    def _rows(self, kind: Kind) -> Iterator[Output]:
        """Where rows go: to the output, or apart if that can only be made of all of them."""
        if kind not in TABLES and compression_of(self.target) is None:
            path = None if str(self.target) == "-" else self.target
            with Output(path, keep_empty=True) as rows:
                yield rows
        elif str(self.target) == "-":
            with TemporaryDirectory() as folder, Output(Path(folder, "rows")) as rows:
                yield rows
        else:
            with Output(_alongside(self.target, ".rows")) as rows:
                yield rows

    @property
    def bad_rows(self) -> Path:
        """The file for rows that cannot be judged."""
        if self.bad is not None:
            return self.bad
        return Path("bad.jsonl") if str(self.target) == "-" else _alongside(self.target, ".bad.jsonl")

    @property
    def journal(self) -> Path:
        """Where an interrupted run says how far it came."""
        return _alongside(self.target, ".journal")

    @property
    def is_resumable(self) -> bool:
        """True if both ends are files."""
        return "-" not in (str(self.source), str(self.target))

    @property
    def columns(self) -> Columns:
        """Where the text is, and where what was found goes."""
        if self.scores_only:
            return Columns(self.field, self.into or "verdict", VERDICT_FIELDS)
        return Columns(self.field, self.into, OUTCOME_FIELDS)

    def opened(self, file: BinaryIO) -> Format:
        """The input's format; reads the header if it has one."""
        kind = kind_of(self.source, self.kind)
        if kind == "jsonl":
            return JsonLines(file, self.columns)
        if kind == "csv":
            return CsvRows(file, self.columns, delimiter=self.delimiter)
        require_pyarrow()
        from guardrail.integrations.rows.tables import TableRows

        return TableRows(file, self.columns, kind=kind)


class _Run:
    """A job with its files open, at the place where it begins or resumes.

    ``rows`` is the output, or where rows are kept until that can be made.
    """

    def __init__(self, job: Job, guard: Guard, source: BinaryIO, rows: Output, bad: Output) -> None:
        self._job, self._guard, self._rows, self._bad = job, guard, rows, bad
        self._source = decompressed(source, job.source)
        self._format = job.opened(self._source)
        self._is_apart = rows.path is not None and rows.path != job.target
        identity = _identity(source) if job.is_resumable else {}
        described = {
            "command": "detect" if job.scores_only else "filter",
            "format": kind_of(job.source, job.kind),
            "field": job.columns.text,
            "into": job.columns.into,
            "delimiter": self._format.delimiter,
            **identity,
            **asdict(guard.origin()),
        }
        earlier = Journal.read(job.journal) if job.is_resumable and not job.overwrite else None
        if earlier is not None:
            earlier.require_same(described)
            self._journal = self._continued(earlier)
        else:
            labels = ("flagged", "clean") if job.scores_only else map(str, Action)
            counts = Counts(dict.fromkeys(labels, 0))
            self._journal = self._begun(Journal(described, source=self._format.start, counts=counts))

    def finish(self, report: Report) -> Summary:
        """Reads to the end of the input."""
        started = saved = monotonic()
        before = self._journal.counts
        judge = RowJudge(
            self._guard,
            self._format,
            rows=self._rows,
            bad=self._bad,
            columns=self._job.columns,
            scores_only=self._job.scores_only,
            key=self._journal.key,
        )
        for batch in batches(self._format.records(self._source, self._journal.source), self._job.batch):
            counts = self._journal.counts.plus(judge.settle(batch))
            sizes = {"target": self._rows.size, "bad": self._bad.size}
            self._journal = self._journal.at(batch[-1].end, counts=counts, **sizes)
            report(self._journal.source, counts)
            if monotonic() - saved >= CHECKPOINT_SECONDS:
                self._save()
                saved = monotonic()
        self._save()
        if self._is_apart:
            self._assemble()
        if self._job.is_resumable:
            self._job.journal.unlink()
        return Summary(self._journal.counts, before.judged + before.bad, monotonic() - started)

    def _assemble(self) -> None:
        """Makes the output of the rows that were kept apart, and puts it in its place at once."""
        with self._rows.written() as rows, replacing(self._job.target) as target:
            assembled(self._format, rows, target, name=self._job.target)
        self._rows.discard()

    def _begun(self, journal: Journal) -> Journal:
        sizes = {output.path: output.size for output in (self._rows, self._bad)}
        if self._job.target.is_file():
            sizes[self._job.target] = self._job.target.stat().st_size
        for path, size in sizes.items():
            if size and not self._job.overwrite:
                raise UsageError(f"{path} already exists: choose another, or --overwrite it")
        if self._job.is_resumable:  # or a job killed now would be resumed in files that are begun anew
            self._job.journal.unlink(missing_ok=True)
        self._rows.rewind(0)
        self._bad.rewind(0)
        self._rows.write(self._format.head)
        self._journal = journal.at(journal.source, target=self._rows.size, bad=0, counts=journal.counts)
        self._save()
        return self._journal

    def _continued(self, journal: Journal) -> Journal:
        self._rows.rewind(journal.target)
        self._bad.rewind(journal.bad)
        if journal.source != self._format.start and not isinstance(self._format, Assembled):
            self._source.seek(journal.source.offset)
        return journal

    def _save(self) -> None:
        """What was written so far is on disk, and then the journal says so."""
        self._rows.sync()
        self._bad.sync()
        if self._job.is_resumable:
            self._journal.write(self._job.journal)


def _identity(file: BinaryIO) -> dict[str, Any]:
    """What tells whether a file is still the one that a job began with; leaves it where it stands."""
    status, place = os.fstat(file.fileno()), file.tell()
    file.seek(0)
    sample = hashlib.sha256(file.read(SAMPLE_BYTES)).hexdigest()
    file.seek(place)
    return {"input size": status.st_size, "input time": status.st_mtime_ns, "input beginning": sample}


def _alongside(path: Path, suffix: str) -> Path:
    return path.with_name(f"{path.name}{suffix}")
