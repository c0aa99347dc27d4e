"""Judges the files of a folder on a Ray cluster, part by part, and resumes what an interrupted run left."""

from __future__ import annotations

import json
import logging
import os
import pickle
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from time import monotonic
from typing import Any

import ray
from ray import cloudpickle
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayError

from guardrail.errors import FailureError, GuardrailError, UsageError
from guardrail.guard import Guard
from guardrail.integrations.ray.folder import Folder, FolderEntry
from guardrail.integrations.ray.parts import NO_COUNTS, Done, FilePart, PartWorker, Places, parts_of
from guardrail.integrations.rows.formats import Kind, kind_of, require_alike
from guardrail.integrations.rows.job import Job, Report, Summary
from guardrail.integrations.rows.output import Journal
from guardrail.integrations.rows.record import Position

__all__ = ["RayJob"]

NOTE = "job.json"
MAX_BLOCKS = 4096
"""Into which parts are divided for the workers; each is at least one part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RayJob:
    """Files to moderate on a Ray cluster, whose every worker has a guard of its own.

    Paths are those of all machines of the cluster.

    Args:
        source: A file or a folder, by its path or by a URL of an object store that fsspec opens
            (``s3://bucket/comments``); in a folder every file is judged, in those below it too.
        target: A folder that gets one file for each part, of the same format, under the file's name and the
            part's number; must not hold anything yet.
        bad: A folder for rows that cannot be judged; default: the output's name with ``.bad``.
        field: The field or column that holds the text, or a path to it, such as ``comments.0.body``.
        into: Where to put action, scores and what was degraded; None: nowhere.
        kind: "jsonl", "csv", "parquet" or "arrow"; None: by the name of each file.
        delimiter: CSV delimiter; None: detected.
        workers: Actors, each with one core.
        part_rows: Rows of a part; the work that a worker's death costs.
        batch: Rows judged together.
    """

    source: str
    target: str
    bad: str | None = None
    field: str = "text"
    into: str | None = None
    kind: Kind | None = None
    delimiter: str | None = None
    workers: int = 1
    part_rows: int = 10_000
    batch: int = 128

    scores_only = False
    is_resumable = True

    def run(self, guard: Guard, *, report: Report = lambda position, counts: None) -> Summary:
        """Returns once every part is in its place.

        ``report`` is told after every part how many bytes of the input are done. A worker that dies is
        replaced, and its part judged again. A run that is interrupted, killed even, is continued by the next
        one: nothing is lost and nothing is there twice. Raises UsageError if the output belongs to something
        else, or if a file cannot be read as said.
        """
        started, run = monotonic(), secrets.token_hex(8)
        _require_portable(guard)
        entries = self._entries()
        journal = self._journal(entries, guard)
        counts, resumed, size = NO_COUNTS, 0, 0
        with _cluster(self.workers):
            parts = self._planned(entries)
            for done in self._judged(parts, guard, key=journal.key, run=run):
                counts, size = counts.together(done.counts), size + done.size
                resumed += 0 if done.run == run else done.counts.judged + done.counts.bad
                report(Position(size), counts)
        Folder(self.target).remove_unfinished()
        Folder(self.bad_rows).remove_unfinished()
        Folder(self.journal).remove_all()
        return Summary(counts, resumed, monotonic() - started)

    def length(self) -> int:
        """The bytes of all files."""
        return sum(entry.size for entry in self._entries())

    @property
    def bad_rows(self) -> str:
        """The folder for rows that cannot be judged."""
        return self.bad or f"{self.target.rstrip('/')}.bad"

    @property
    def journal(self) -> str:
        """The folder that says which parts are done, as long as not all are."""
        return f"{self.target.rstrip('/')}.journal"

    @property
    def _template(self) -> Job:
        """How one file's rows are read and written."""
        return Job(
            source=Path(),
            target=Path("-"),
            field=self.field,
            into=self.into,
            kind=self.kind,
            delimiter=self.delimiter,
            batch=self.batch,
        )

    @property
    def _places(self) -> Places:
        return Places(source=self.source, target=self.target, bad=self.bad_rows, journal=self.journal)

    def _entries(self) -> list[FolderEntry]:
        """The files to judge; UsageError if there are none, or if one has a name that says no format."""
        source, target = Folder(self.source), Folder(self.target)
        if target.is_file or _names_a_file(self.target):
            raise UsageError(f"OUT is a folder of parts with --engine ray, and {self.target} names a file")
        for written in (target, Folder(self.bad_rows)):
            if source.contains(written) or written.contains(source):
                raise UsageError(f"{written.path} and IN, {self.source}, must be apart")
        entries = source.entries()
        if not entries:
            raise UsageError(f"cannot read {self.source}: there is no file there")
        for entry in entries:
            require_alike(Path(entry.name), Path("-"), kind_of(Path(entry.name), self.kind))
        return entries

    def _journal(self, entries: Sequence[FolderEntry], guard: Guard) -> Journal:
        """The journal of this job, found or begun."""
        listed = [asdict(entry) for entry in entries]
        described = {
            "command": "filter",
            "format": self.kind,
            "field": self.field,
            "into": self.into,
            "delimiter": self.delimiter,
            "rows of a part": self.part_rows,
            "input": f"{len(entries)} files {sha256(json.dumps(listed).encode()).hexdigest()}",
            **asdict(guard.origin()),
        }
        folder = Folder(self.journal)
        if (noted := folder.read(NOTE)) is not None:
            earlier = Journal(**json.loads(noted))
            earlier.require_same(described, anew=f"remove {self.target} and {self.journal} to start over")
            return earlier
        for where in (self.target, self.bad_rows):
            if Folder(where).entries():
                raise UsageError(f"{where} already exists: choose another, or remove it")
        journal = Journal(described)
        folder.put(NOTE, json.dumps({"job": described, "key": journal.key}).encode())
        return journal

    def _planned(self, entries: Sequence[FolderEntry]) -> list[FilePart]:
        """The parts of all files, which are read for it on the cluster."""
        items = [{"entry": json.dumps(asdict(entry))} for entry in entries]
        with _ray_data():
            dataset = ray.data.from_items(items, override_num_blocks=min(len(items), MAX_BLOCKS))
            rows = dataset.flat_map(_planned, fn_args=(self.source, self._template, self.part_rows))
            parts = [FilePart.of(found) for found in _contents(rows.iter_rows())]
        return sorted(parts, key=lambda part: (part.file, part.number))

    def _judged(self, parts: Sequence[FilePart], guard: Guard, *, key: str, run: str) -> Iterator[Done]:
        items = [{"part": json.dumps(asdict(part))} for part in parts]
        with _ray_data():
            dataset = ray.data.from_items(items, override_num_blocks=min(len(items), MAX_BLOCKS))
            rows = dataset.map_batches(
                _Parts,
                fn_constructor_args=(self._template, guard, self._places, key, run),
                batch_size=1,
                compute=ActorPoolStrategy(
                    size=min(self.workers, len(items)), max_tasks_in_flight_per_actor=2
                ),
                num_cpus=1,
            )
            yield from map(Done.of, _contents(rows.iter_rows()))


def _planned(row: dict[str, str], source: str, template: Job, part_rows: int) -> list[dict[str, str]]:
    """The parts of a file, as rows; or one row with what is wrong with it."""
    entry = FolderEntry(**json.loads(row["entry"]))
    try:
        return [_content(part) for part in parts_of(Folder(source), entry, template, rows=part_rows)]
    except GuardrailError as error:
        return [_problem(entry.name, error)]


class _Parts:
    """An actor of the pool."""

    def __init__(self, template: Job, guard: Guard, places: Places, key: str, run: str) -> None:
        self._worker = PartWorker(template, guard, places, key=key, run=run)

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[str]]]:
        for content in batch["part"]:
            part = FilePart.of(json.loads(content))
            try:
                row = _content(self._worker.done(part))
            except GuardrailError as error:
                row = _problem(part.file, error)
            yield {name: [value] for name, value in row.items()}


def _names_a_file(target: str) -> bool:
    """True if the name of an output is that of a file of rows."""
    try:
        kind_of(Path(target))
    except UsageError:
        return False
    return True


def _require_portable(guard: Guard) -> None:
    try:
        cloudpickle.dumps(guard)
    except pickle.PicklingError as error:  # it says what to do
        raise UsageError(str(error)) from None


def _content(found: FilePart | Done) -> dict[str, str]:
    return {"content": json.dumps(asdict(found)), "error": "", "kind": ""}


def _problem(file: str, error: GuardrailError) -> dict[str, str]:
    """An error as a row: raised, it would be tried again, and hidden among Ray's own."""
    kind = "usage" if isinstance(error, UsageError) else "failure"
    return {"content": "", "error": f"{file}: {error}", "kind": kind}


def _contents(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What the workers found; their first error is raised."""
    try:
        for row in rows:
            if row["error"]:
                raise UsageError(row["error"]) if row["kind"] == "usage" else FailureError(row["error"])
            yield json.loads(row["content"])
    except RayError as error:
        raise FailureError(
            f"Ray gave up ({type(error).__name__}); its logs say why, and the same command resumes here"
        ) from None


@contextmanager
def _cluster(workers: int) -> Iterator[None]:
    """The cluster that this process or RAY_ADDRESS knows; if there is none, one on this machine."""
    if ray.is_initialized():
        yield
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level=logging.ERROR)
    else:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(num_cpus=workers, include_dashboard=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _ray_data() -> Iterator[None]:
    """Ray Data without words of its own on the terminal, where this package's progress is."""
    log = logging.getLogger("ray.data")
    level = log.level
    context = DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    with DataContext.current(context):
        log.setLevel(logging.WARNING)
        try:
            yield
        finally:
            log.setLevel(level)
