"""Finds out before the work whether its result can be written."""

from __future__ import annotations

import os
from pathlib import Path

from guardrail.errors import UsageError

__all__ = ["require_writable"]


def require_writable(path: str | Path, *, folder: bool = False) -> Path:
    """The path, if a file (or a folder with files) can be written there; writes and makes nothing.

    Raises UsageError for a file in place of a folder, a folder in place of a file, and for folders in which
    nobody may write. Parents that are missing will be made.
    """
    path = Path(path)
    if folder and path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file: name a folder for what is written")
    if not folder and path.is_dir():
        raise UsageError(f"{path} is a folder: name a file in it for what is written")
    if not folder and path.exists():
        if not os.access(path, os.W_OK):
            raise UsageError(f"{path} cannot be written: it is protected")
        return path
    nearest = path if folder else path.parent
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        raise UsageError(f"{path} cannot be written: {nearest} is a file")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError(f"{path} cannot be written: {nearest} is protected")
    return path
