"""What a job leaves on disk: outputs that can be taken back to an earlier size, and how far it has come."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from guardrail.errors import UsageError
from guardrail.integrations.rows.record import Position, Result

if sys.platform != "win32":
    import fcntl

__all__ = ["Counts", "Journal", "Output", "replacing"]


class Output:
    """A file opened for a job, with what it held still in it; or standard output if ``path`` is None.

    ``size`` is in bytes. A file that is empty in the end is removed, unless ``keep_empty`` and all went well.
    Raises UsageError if it cannot be opened, or if another job writes it.
    """

    def __init__(self, path: Path | None, *, keep_empty: bool = False) -> None:
        self.path = path
        self._keep_empty = keep_empty
        self._is_needed = True
        self.size = 0
        self._file: BinaryIO = sys.stdout.buffer if path is None else _opened(path)
        if path is not None:
            self.size = self._file.seek(0, os.SEEK_END)

    def rewind(self, size: int) -> None:
        """Takes back all behind ``size`` bytes; UsageError if there is less than that."""
        if self.path is None or size == self.size:
            return
        if size > self.size:
            raise UsageError(
                f"{self.path} is shorter than the interrupted job left it: start over with --overwrite"
            )
        self._file.truncate(size)
        self.size = self._file.seek(size)

    def write(self, content: bytes) -> None:
        """Adds to the end; on disk after ``sync``."""
        self._file.write(content)
        self.size += len(content)

    def sync(self) -> None:
        """Returns once all that was written is on disk."""
        self._file.flush()
        if self.path is not None:
            os.fsync(self._file.fileno())

    @contextmanager
    def written(self) -> Iterator[BinaryIO]:
        """All that was written, to be read from its beginning."""
        self.sync()
        self._file.seek(0)
        try:
            yield self._file
        finally:
            self._file.seek(self.size)

    def discard(self) -> None:
        """Says that the file is of no more use: it is removed in the end."""
        self._is_needed = False

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.path is None:
            return
        if not self._is_needed or (self.size == 0 and (error is not None or not self._keep_empty)):
            self.path.unlink()
        self._file.close()


@contextmanager
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


@dataclass(frozen=True, slots=True)
class Counts:
    """How many rows came to what: ``actions`` of judged rows, or ``flagged`` and ``clean`` of scored ones.

    ``bad`` rows could not be judged; ``degraded`` ones are among the judged.
    """

    actions: Mapping[str, int] = field(default_factory=dict)
    degraded: int = 0
    bad: int = 0

    @property
    def judged(self) -> int:
        return sum(self.actions.values())

    def plus(self, results: Iterable[Result]) -> Counts:
        """The counts with more rows."""
        actions, degraded, bad = dict(self.actions), self.degraded, self.bad
        for result in results:
            if result.error is not None:
                bad += 1
            else:
                actions[result.label] = actions.get(result.label, 0) + 1
                degraded += result.is_degraded
        return Counts(actions, degraded, bad)

    def together(self, other: Counts) -> Counts:
        labels = {**self.actions, **other.actions}
        actions = {label: self.actions.get(label, 0) + other.actions.get(label, 0) for label in labels}
        return Counts(actions, self.degraded + other.degraded, self.bad + other.bad)


@dataclass(frozen=True, slots=True)
class Journal:
    """A moment at which all that was read up to ``source`` is in the outputs up to ``target`` and ``bad``.

    ``job`` is what the outcome depends on: a job that differs in it is another one. ``key`` names the job in
    an audit. Positions in the outputs are sizes in bytes.
    """

    job: Mapping[str, Any]
    key: str = field(default_factory=lambda: secrets.token_hex(8))
    source: Position = field(default_factory=Position)
    target: int = 0
    bad: int = 0
    counts: Counts = field(default_factory=Counts)

    @classmethod
    def read(cls, path: Path) -> Journal | None:
        """The journal of an interrupted job, None if there is none; UsageError for another version's."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                **{**content, "source": Position(**content["source"]), "counts": Counts(**content["counts"])}
            )
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError) as error:
            raise UsageError(f"{path} is not a journal of this version; --overwrite starts over") from error

    def write(self, path: Path) -> None:
        """Puts this moment in the place of the last one, at once and for good."""
        new = path.with_name(f"{path.name}.new")
        with new.open("w", encoding="utf-8") as file:
            json.dump(asdict(self), file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)

    def at(self, source: Position, *, target: int, bad: int, counts: Counts) -> Journal:
        """The same job, further on."""
        return replace(self, source=source, target=target, bad=bad, counts=counts)

    def require_same(self, job: Mapping[str, Any], *, anew: str = "start over with --overwrite") -> None:
        """UsageError, naming what differs and how to begin ``anew``, unless the journal is that job's."""
        # Through JSON, as the journal itself went: tuples come back as lists.
        now = json.loads(json.dumps(job))
        differing = sorted(key for key in {*now, *self.job} if now.get(key) != self.job.get(key))
        if differing:
            raise UsageError(
                f"an interrupted job is to be continued, but its {', '.join(differing)} differed: "
                f"call it as before, or {anew}"
            )


def _opened(path: Path) -> BinaryIO:
    try:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+b")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise UsageError(f"another job is writing {path}") from error
    return file
