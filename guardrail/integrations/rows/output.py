"""An output that one job writes at a time and can take back to an earlier size."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from guardrail.errors import UsageError

if sys.platform != "win32":
    import fcntl

__all__ = ["Output"]


class Output:
    """A file opened for a job, with what it held still in it; or standard output where ``path`` is None.

    ``size`` is in bytes. A file that is empty in the end is removed, unless ``keep_empty`` and all went well.
    Raises UsageError where it cannot be opened, or where another job writes it.
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
        """Takes back all behind ``size`` bytes; UsageError where there is less than that."""
        if self.path is None or size == self.size:
            return
        if size > self.size:
            raise UsageError(
                f"{self.path} is shorter than the interrupted job left it: begin anew with --overwrite"
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
