"""Where model files come from: a folder, the cache, a package index, a hub. Nothing is fetched unasked.

A model is named by a key of ``SOURCES``, by a folder, or by ``org/name@revision`` on a hub. ``pull`` makes a
checked copy in the cache (``GUARDRAIL_CACHE``, else the user's cache folder); ``require`` opens only such
copies, or folders with a manifest, after comparing every file with its sha256.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from guardrail.errors import ManifestError, ModelMissingError, UsageError
from guardrail.manifest import FILENAME, Manifest, sha256_of
from guardrail.models import copies, wheels
from guardrail.models.cache import cache_folder, clear_disk_errors, publish, require_room, staging, verified
from guardrail.models.convert import COPY_SUFFIX, for_torch
from guardrail.models.sources import SOURCES, Source

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = [
    "REWRITER_BASE",
    "Installed",
    "cache_folder",
    "for_torch",
    "is_here",
    "listing",
    "locate",
    "pull",
    "require",
    "source_of",
    "verify",
]

REWRITER_BASE = "smollm2-135m-instruct"
SHIPPED = Path(__file__).parent.parent / "shipped"
SHIPPED_MODELS = ("detector", "rewriter", "tagger")  # beside them lie tables that no manifest describes
HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})")


@dataclass(frozen=True, slots=True)
class Installed:
    """One row of a listing; ``size`` in bytes (of the download's result where it is missing)."""

    name: str
    where: Path | None
    size: int
    state: Literal["ready", "missing", "altered"]
    purpose: str = ""
    problem: str | None = None


def source_of(identity: str | None) -> Source | None:
    """The known source whose weight file has this sha256, or None."""
    return next((source for source in SOURCES.values() if source.identity == identity), None)


def locate(name: str | Path) -> Path | None:
    """The model's folder with every file's sha256 verified, or None where it is not on this machine.

    Raises ManifestError if a file was altered; UsageError for a name that no model can have.
    """
    folder = _folder_of(name)
    if not folder.is_dir():
        return None
    try:
        manifest = verified(folder)
        _check_pins(SOURCES.get(str(name)), manifest, folder)
    except ManifestError as error:
        raise ManifestError(f"{error} ('guardrail models pull {name}' replaces it)") from error
    return folder


def is_here(name: str | Path) -> bool:
    """Whether there is a folder of the model; its files are not looked at."""
    return _folder_of(name).is_dir()


def require(name: str | Path) -> Path:
    """The model's verified folder; ModelMissingError names the command that fetches it."""
    folder = locate(name)
    if folder is None:
        raise ModelMissingError(
            f"model '{name}' is not on this machine: run 'guardrail models pull {name}' once"
        )
    return folder


def pull(name: str | Path, *, from_file: str | Path | None = None, progress: bool = True) -> Path:
    """The model's verified folder, fetched first if it is missing, altered, or of an earlier version's form.

    ``from_file`` is a wheel that was carried here by hand, used in place of the package index. ``progress``
    draws a bar on stderr. An interrupted pull leaves no model behind, only the finished one ever gets its
    place.
    """
    target, source = _folder_of(name), SOURCES.get(str(name))
    if from_file is not None and source is None:
        raise UsageError(f"from_file goes with one of {sorted(SOURCES)}, not with '{name}'")
    if _is_current(name, target):
        return target
    with clear_disk_errors(), _bar(shown=progress) as bar, staging() as staged:
        new = staged / "model"
        new.mkdir()
        if source is not None:
            carried = Path(from_file).expanduser() if from_file is not None else None
            _from_wheel(source, new, staged, bar, from_file=carried)
        elif (hub := HUB_ID.fullmatch(str(name))) and not Path(name).is_dir():
            copies.from_hub(hub["repo"], hub["revision"], new, staged)
        else:
            copies.from_folder(Path(name), new, name=Path(name).resolve().name, version="local")
        publish(new, target, staged, is_done=lambda: _is_current(name, target))
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
    yield from ((f"{name} (shipped)", SHIPPED / name) for name in SHIPPED_MODELS)
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
    purpose = source.purpose if source else _purpose(name)
    if not folder.is_dir():
        return Installed(name, None, source.installed if source else 0, "missing", purpose)
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    try:
        manifest = Manifest.load(folder, verify=False)
        manifest.verify(folder, digest=digest)
        _check_pins(source, manifest, folder)
    except (ManifestError, OSError) as error:
        return Installed(name, folder, size, "altered", purpose, str(error))
    if source is not None and not source.is_listed_in(manifest):
        purpose += f"; 'guardrail models pull {name}' replaces it by {source.installed / 1e6:.0f} MB"
    return Installed(name, folder, size, "ready", purpose)


def _purpose(name: str) -> str:
    if name.endswith("(shipped)"):
        return "part of this package"
    return "copy of a GGUF base for torch" if name.endswith(COPY_SUFFIX) else "pulled"


def _no_digest(path: Path) -> None:
    return None


def _check_pins(source: Source | None, manifest: Manifest, folder: Path) -> None:
    """Raises ManifestError if the files of a known model are not those that this package pins.

    A manifest that lists none of them was written by an earlier version, which converted the model.
    """
    if source is None or source.is_listed_in(manifest):
        return
    listed = sorted({member.filename for member in source.members} & set(manifest.files))
    if listed or manifest.trained_on != source.identity:
        raise ManifestError(f"{folder}: {listed or 'the base'} is not what {source.name} is pinned to")


def _is_current(name: str | Path, target: Path) -> bool:
    """Whether the model is here, intact, and in the form that a pull would give it."""
    try:
        if locate(name) is None:
            return False
    except ManifestError:
        if target.parent != cache_folder():
            raise  # the caller's own folder is never replaced
        return False
    source = SOURCES.get(str(name))
    return source is None or source.is_listed_in(Manifest.load(target, verify=False))


# ---- fetching


def _from_wheel(source: Source, new: Path, staged: Path, bar: Progress, *, from_file: Path | None) -> None:
    needed = source.installed + (source.wheel.size if from_file is None else 0)
    require_room(staged, needed, what=f"fetching {source.name}")
    if from_file is None:
        task = bar.add_task(f"downloading {source.name}", total=source.wheel.size)
        wheel = wheels.fetch(
            source.wheel, staged, report=lambda done: bar.update(task, completed=done), name=source.name
        )
        bar.update(task, completed=source.wheel.size)
    else:
        wheel = from_file
    wheels.check(wheel, source.wheel)
    task = bar.add_task("unpacking", total=source.installed)
    wheels.unpack(wheel, source.members, new, report=lambda done: bar.update(task, completed=done))
    copies.write_manifest(
        new,
        name=source.name,
        version=source.wheel.requirement,
        licence=source.licence,
        identity=source.identity,
    )


@contextmanager
def _bar(*, shown: bool) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(file=sys.stderr), disable=not shown) as bar:
        yield bar
