"""Files of a model and of settings, opened with errors that say what to do."""

from __future__ import annotations

import json
import mmap
import sys
from pathlib import Path
from typing import Any

from guardrail.errors import ConfigError, ModelFileError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["forget", "mapped", "read_object", "read_toml"]


def mapped(path: Path) -> memoryview:
    """A file's bytes, read from the disk when they are looked at.

    Raises ModelFileError if it cannot be read or is empty.
    """
    try:
        with path.open("rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        reason = error.strerror if isinstance(error, OSError) else "it is empty"
        raise ModelFileError(f"{path} cannot be read ({reason}); fetch the model again") from error


def forget(content: memoryview) -> None:
    """Gives back the memory that a mapped file has taken so far; what is looked at again is read again."""
    if isinstance(content.obj, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
        content.obj.madvise(mmap.MADV_DONTNEED)


def read_object(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object; ModelFileError if it does not."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path} is not valid JSON; fetch the model again") from error
    if not isinstance(content, dict):
        raise ModelFileError(f"{path} is not a JSON object; fetch the model again")
    return content


def read_toml(path: Path) -> dict[str, Any]:
    """The decoded file; ConfigError if it is missing, unreadable or not TOML."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
