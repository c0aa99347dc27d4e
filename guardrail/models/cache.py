"""The cache of model folders: where it is, and how a finished folder gets its place in one step."""

from __future__ import annotations

import functools
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from guardrail.errors import ManifestError, ModelFileError
from guardrail.manifest import Manifest, sha256_of

__all__ = ["cache_folder", "clear_disk_errors", "is_intact", "publish", "require_room", "staging", "verified"]

STALE_SECONDS = 24 * 3600


def cache_folder() -> Path:
    """``GUARDRAIL_CACHE`` if set, else the platform's cache folder for this user."""
    import platformdirs

    chosen = os.environ.get("GUARDRAIL_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("guardrail")


def verified(folder: Path) -> Manifest:
    """The folder's manifest, once every file has the sha256 that it names; else ManifestError.

    Files that did not change since they were last hashed in this process are not hashed again.
    """
    with clear_disk_errors():
        manifest = Manifest.load(folder, verify=False)
        manifest.verify(folder, digest=_remembered_sha256)
    return manifest


def is_intact(folder: Path) -> bool:
    """Whether the folder is there and every file is what its manifest says."""
    with suppress(ManifestError):
        return folder.is_dir() and verified(folder) is not None
    return False


def _remembered_sha256(path: Path) -> str:
    status = path.stat()
    return _sha256_at(path.resolve(), status.st_size, status.st_mtime_ns, status.st_ino)


@functools.lru_cache(maxsize=256)
def _sha256_at(path: Path, size: int, mtime_ns: int, inode: int) -> str:
    return sha256_of(path)


@contextmanager
def staging() -> Iterator[Path]:
    """A fresh folder inside the cache, so that the last step is a rename; gone afterwards in any case."""
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    for old in cache.glob(".partial-*"):  # left by processes that were killed
        with suppress(FileNotFoundError):
            if time.time() - old.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
    fresh = cache / f".partial-{secrets.token_hex(8)}"
    fresh.mkdir()
    try:
        yield fresh
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def require_room(folder: Path, needed: int, *, what: str) -> None:
    """Raises ModelFileError if so many bytes are not free where the folder is."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ModelFileError(
            f"{what} needs {needed >> 20} MB in {folder.parent}, and {free >> 20} MB are free; "
            "GUARDRAIL_CACHE names another folder"
        )


@contextmanager
def clear_disk_errors() -> Iterator[None]:
    """Turns what the operating system says of a file into a ModelFileError."""
    try:
        yield
    except OSError as error:
        raise ModelFileError(
            f"cannot read or write {error.filename or cache_folder()} ({error.strerror or error}); "
            "GUARDRAIL_CACHE names another cache folder"
        ) from error


def publish(new: Path, target: Path, staged: Path, *, is_done: Callable[[], bool]) -> None:
    """Gives a finished folder its place, unless ``is_done`` says that another process was faster.

    What was in that place goes into the ``staged`` folder, and with it.
    """
    if is_done():
        return
    with suppress(FileNotFoundError):
        target.rename(staged / "replaced")
    try:
        new.rename(target)
    except OSError:
        if not is_done():
            raise
