"""Folders on disks and in object stores: what is in them, and files that are there whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from guardrail.errors import FailureError, UsageError

__all__ = ["Folder", "FolderEntry"]

STAMPS = ("ETag", "etag", "md5Hash", "content_md5", "mtime", "LastModified", "last_modified", "updated")
"""What file systems call that which changes with a file."""


@dataclass(frozen=True, slots=True)
class FolderEntry:
    """A file in a folder: its name from there on, its bytes, and what changes when it does."""

    name: str
    size: int
    stamp: str


class Folder:
    """A folder by its path, or by a URL that fsspec understands; it need not exist.

    ``where`` may be one file: then the folder is the one that it is in, with nothing else in it. UsageError
    if nothing here can open such a URL.
    """

    def __init__(self, where: str) -> None:
        try:
            self._files, path = url_to_fs(where)
        except (ImportError, ValueError) as error:  # fsspec says which package is needed
            raise UsageError(f"cannot open {where}: {error}") from error
        self.is_local = isinstance(self._files, LocalFileSystem)
        self._files.invalidate_cache()
        self.path = str(path).rstrip("/")
        self.is_file = bool(self._files.isfile(self.path))
        self._only = self.path
        if self.is_file:
            self.path = self.path.rpartition("/")[0]

    def entries(self) -> list[FolderEntry]:
        """All files in it, and in the folders in it, in the order of their names.

        Those whose name, or whose folder's, begins with a dot or an underscore are none: other programs
        take them for their own notes, and no readers of such folders look at them.
        """
        found: Mapping[str, Mapping[str, Any]] = self._files.find(self._only, detail=True)
        entries = [
            FolderEntry(path[len(self.path) + 1 :], int(details["size"] or 0), _stamp(details))
            for path, details in found.items()
            if details["type"] == "file"
        ]
        shown = (entry for entry in entries if self.is_file or not _is_note(entry.name))
        return sorted(shown, key=lambda entry: entry.name)

    def opened(self, name: str) -> BinaryIO:
        """A file to read; UsageError if it cannot be."""
        try:
            return cast(BinaryIO, self._files.open(self._at(name), "rb"))
        except OSError as error:
            raise UsageError(f"cannot read {name}: {error.strerror or type(error).__name__}") from error

    def read(self, name: str) -> bytes | None:
        """What is in a file; None if there is no such file."""
        try:
            return cast(bytes, self._files.cat_file(self._at(name)))
        except FileNotFoundError:
            return None

    def put(self, name: str, content: BinaryIO | bytes) -> None:
        """Returns once the file is there; whoever looks sees all of it, or what was there before."""
        try:
            if self.is_local:
                self._put_locally(Path(self._at(name)), content)
            elif isinstance(content, bytes):
                self._files.pipe_file(self._at(name), content)
            else:
                # An object is there once its upload ends, which it does not if this process is killed.
                with self._files.open(self._at(name), "wb") as file:
                    shutil.copyfileobj(content, file)
        except OSError as error:
            raise FailureError(f"cannot write {name}: {error.strerror or type(error).__name__}") from error

    def remove(self, name: str) -> None:
        """Returns once no such file is there."""
        if self._files.exists(self._at(name)):
            self._files.rm_file(self._at(name))

    def remove_all(self) -> None:
        """Removes the folder with all that is in it."""
        if self._files.exists(self.path):
            self._files.rm(self.path, recursive=True)

    def remove_unfinished(self) -> None:
        """Removes what killed processes were writing."""
        if self.is_local:
            for left in Path(self.path).rglob(".*.new"):
                left.unlink(missing_ok=True)

    def contains(self, other: Folder) -> bool:
        """True if the other folder is this one, or in it."""
        same = type(self._files) is type(other._files) and not self.is_file
        return same and f"{other.path}/".startswith(f"{self.path}/")

    def _at(self, name: str) -> str:
        return f"{self.path}/{name}"

    @staticmethod
    def _put_locally(path: Path, content: BinaryIO | bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
        try:
            with new.open("wb") as file:
                if isinstance(content, bytes):
                    file.write(content)
                else:
                    shutil.copyfileobj(content, file)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        finally:
            new.unlink(missing_ok=True)


def _stamp(details: Mapping[str, Any]) -> str:
    return next((str(details[name]) for name in STAMPS if details.get(name) is not None), "")


def _is_note(name: str) -> bool:
    return any(part.startswith((".", "_")) for part in PurePosixPath(name).parts)
