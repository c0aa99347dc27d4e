"""Files cut into parts between rows, and what a worker does with one: it judges, writes and notes it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any, BinaryIO, cast

from guardrail.errors import FailureError
from guardrail.guard import Guard
from guardrail.integrations.ray.folder import Folder, FolderEntry
from guardrail.integrations.rows.compression import compression_of, decompressed, name_inside
from guardrail.integrations.rows.formats import TABLES, TableKind, kind_of
from guardrail.integrations.rows.job import Job
from guardrail.integrations.rows.judging import RowJudge, assembled, batches
from guardrail.integrations.rows.output import Counts, Output
from guardrail.integrations.rows.record import Assembled, Format, Position, RowToJudge, lines_from
from guardrail.integrations.rows.table_files import TableFile
from guardrail.outcome import Action

__all__ = ["NO_COUNTS", "Done", "FilePart", "PartWorker", "Places", "parts_of"]

MAX_TRIES = 3
"""Of a part, in one run; more workers are not given up for it."""
NO_COUNTS = Counts(dict.fromkeys(map(str, Action), 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePart:
    """Rows of a file between two positions; ``end`` is None if nobody knows before it is read.

    ``size`` is its share of the file's bytes.
    """

    file: str
    number: int
    start: Position
    end: Position | None
    size: int

    @property
    def name(self) -> str:
        """Of its output: ``talks/en-000007.jsonl.gz``; different for different parts of different files."""
        path = Path(self.file)
        inner = name_inside(path)
        return path.with_name(f"{inner.stem}-{self.number:06}{path.name[len(inner.stem) :]}").as_posix()

    @classmethod
    def of(cls, content: dict[str, Any]) -> FilePart:
        """The part that was made into a dict by ``asdict``."""
        end = content["end"]
        start = Position(**content["start"])
        return cls(**content | {"start": start, "end": None if end is None else Position(**end)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What became of a part; ``run`` is the run that judged it, ``size`` the part's."""

    run: str
    size: int
    counts: Counts

    @classmethod
    def of(cls, content: dict[str, Any]) -> Done:
        """What was made into a dict by ``asdict``."""
        return cls(**content | {"counts": Counts(**content["counts"])})


def parts_of(source: Folder, entry: FolderEntry, job: Job, *, rows: int) -> Iterator[FilePart]:
    """The parts of a file of the folder, in order, of so many rows each; an empty file is one part, too.

    A compressed file is one part, because it can be read from its beginning only.
    """
    path = Path(entry.name)
    kind = kind_of(path, job.kind)
    with source.opened(entry.name) as raw:
        form = replace(job, source=path).opened(decompressed(raw, path))
        if compression_of(path) is not None:
            yield FilePart(file=entry.name, number=0, start=form.start, end=None, size=entry.size)
            return
        every = _table_ends(raw, kind) if kind in TABLES else _line_ends(form, raw, kind)
        ends = list(_last_of_each(every, rows)) or [form.start]
        starts = [form.start, *ends[:-1]]
        whole = max(1, ends[-1].offset - form.start.offset)  # bytes, or a table's rows
        for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
            before, after = (entry.size * (at.offset - form.start.offset) // whole for at in (start, end))
            yield FilePart(file=entry.name, number=number, start=start, end=end, size=after - before)


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The folders of a job, by path or URL."""

    source: str
    target: str
    bad: str
    journal: str


class PartWorker:
    """One of the processes that judge parts, with a guard of its own.

    ``job`` says how rows are read and written, ``key`` names it in an audit, ``run`` the run in the journal.
    """

    def __init__(self, job: Job, guard: Guard, places: Places, *, key: str, run: str) -> None:
        self._job, self._guard, self._key, self._run = job, guard, key, run
        self._source, self._target = Folder(places.source), Folder(places.target)
        self._bad, self._journal = Folder(places.bad), Folder(places.journal)

    def done(self, part: FilePart) -> Done:
        """What became of the part; judges it if no run has finished it.

        Its outputs are put in place first, the note of it last: whoever dies between leaves a part that is
        judged again and written under the same names.
        """
        note = f"{part.name}.json"
        if (noted := self._journal.read(note)) is not None:
            return Done.of(json.loads(noted))
        self._begin(part)
        done = Done(run=self._run, size=part.size, counts=self._judged(part))
        self._journal.put(note, json.dumps(asdict(done)).encode())
        return done

    def _begin(self, part: FilePart) -> None:
        """Notes that a worker tries the part; FailureError if too many have died of it."""
        note = f"{part.name}.tried"
        tried = json.loads(self._journal.read(note) or "{}")
        deaths = tried.get(self._run, 0)
        if deaths == MAX_TRIES:
            raise FailureError(f"part {part.number} killed {MAX_TRIES} workers one after the other")
        self._journal.put(note, json.dumps({self._run: deaths + 1}).encode())

    def _judged(self, part: FilePart) -> Counts:
        path = Path(part.file)
        job = replace(self._job, source=path)
        with (
            self._source.opened(part.file) as raw,
            TemporaryDirectory() as folder,
            Output(Path(folder, "rows")) as rows,
            Output(Path(folder, "bad")) as bad,
        ):
            file = decompressed(raw, path)
            form = job.opened(file)
            rows.write(form.head)
            judge = RowJudge(
                self._guard,
                form,
                rows=rows,
                bad=bad,
                columns=job.columns,
                scores_only=False,
                key=f"{self._key}-{sha256(part.file.encode()).hexdigest()[:16]}",
            )
            counts = NO_COUNTS
            for batch in batches(_records(form, file, part), self._job.batch):
                counts = counts.plus(judge.settle(batch))
            self._put(part, form, rows, bad)
            return counts

    def _put(self, part: FilePart, form: Format, rows: Output, bad: Output) -> None:
        with TemporaryFile() as made, rows.written() as kept:
            assembled(form, kept, made, name=Path(part.name), start=part.start, end=part.end)
            made.seek(0)
            self._target.put(part.name, made)
        name = f"{part.name}.bad.jsonl"
        if not bad.size:
            self._bad.remove(name)  # a run that died after it had written one may have judged otherwise
            return
        with bad.written() as refused:
            self._bad.put(name, refused)


def _records(form: Format, file: BinaryIO, part: FilePart) -> Iterator[RowToJudge]:
    """The records of a part; a table finds them by their numbers."""
    if part.start != form.start and not isinstance(form, Assembled):
        file.seek(part.start.offset)
    for record in form.records(file, part.start):
        if part.end is not None and record.end.offset > part.end.offset:
            return
        yield record


def _line_ends(form: Format, file: BinaryIO, kind: str) -> Iterator[Position]:
    """Where the rows of a file end; lines do, and records of CSV, which may go over several."""
    file.seek(0)
    if kind == "jsonl":
        return (line.end for line in lines_from(file, Position()))
    file.seek(form.start.offset)
    return (record.end for record in form.records(file, form.start))


def _table_ends(file: BinaryIO, kind: str) -> Iterator[Position]:
    table = TableFile(file, kind=cast(TableKind, kind))
    rows = table.rows  # Arrow does not say
    count = sum(portion.batch.num_rows for portion in table.portions()) if rows is None else rows
    return (Position(number, number) for number in range(1, count + 1))


def _last_of_each(ends: Iterator[Position], rows: int) -> Iterator[Position]:
    """Every ``rows``-th position, and the last one."""
    while some := list(itertools.islice(ends, rows)):
        yield some[-1]
