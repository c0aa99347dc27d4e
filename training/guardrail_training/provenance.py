"""What a result file says of where its numbers come from, and values as JSON holds them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from guardrail import models
from guardrail.errors import ModelMissingError
from guardrail.manifest import FILENAME, Manifest, sha256_of
from guardrail_training.records import required_folder
from guardrail_training.runlog import git_commit, package_versions

__all__ = ["SHIPPED", "model_folder", "model_hashes", "plain", "provenance", "weights_sha256"]

SHIPPED = models.SHIPPED
PACKAGES = ("onnxruntime", "scikit-learn", "scipy", "sacrebleu", "rouge-score", "alt-profanity-check")
WEIGHTS = ("*.safetensors", "*.onnx", "lexicon.txt")


class Described(Protocol):
    """Settings (a dataclass) that name data and models."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def what(self) -> str: ...
    @property
    def data(self) -> str: ...
    @property
    def adapter(self) -> str: ...
    @property
    def pilot(self) -> str: ...
    @property
    def detector(self) -> str: ...
    @property
    def base(self) -> str: ...
    @property
    def encoder(self) -> str: ...
    @property
    def original(self) -> str: ...


def model_folder(name: str) -> Path:
    """A folder, or a known model's verified folder, as torch opens it; a base kept as GGUF is copied once.

    ModelMissingError names the pull command.
    """
    return models.for_torch(Path(name) if Path(name).is_dir() else models.require(name))


def weights_sha256(base: Path) -> str:
    """The sha256 of a base's weight file, or of their listing where it has several."""
    if (base / "model.safetensors").is_file():
        return sha256_of(base / "model.safetensors")
    parts = sorted(base.glob("*.safetensors"))
    if not parts:
        raise ModelMissingError(f"{base} has no weights: no *.safetensors file")
    listing = "".join(f"{path.name} {sha256_of(path)}\n" for path in parts)
    return hashlib.sha256(listing.encode()).hexdigest()


def provenance(settings: Described) -> dict[str, Any]:
    """Settings, versions, commit, and the sha256 of the data files and of the models' files.

    Paths are left out of the settings but for their last part: they are those of one machine.
    """
    return {
        "settings": {field.name: _short(getattr(settings, field.name)) for field in fields(settings)},
        "versions": package_versions() | _versions(),
        "git": git_commit(),
        "data": {} if settings.what in ("annotate", "agreement") else _hashes(required_folder(settings.data)),
        "models": {name: files for name, files in _models(settings).items() if files},
    }


def _models(settings: Described) -> dict[str, dict[str, str]]:
    """Per model the sha256 of its files; empty if it is not on this machine."""
    known = {Path(name).name: _pinned(name) for name in (settings.base, settings.encoder, settings.original)}
    return known | {
        "detector": model_hashes(Path(settings.detector) if settings.detector else SHIPPED / "detector"),
        "adapter": model_hashes(Path(settings.adapter) if settings.adapter else SHIPPED / "rewriter"),
        "pilot": model_hashes(Path(settings.pilot)) if settings.pilot else {},
    }


def _short(value: Any) -> Any:
    if isinstance(value, str) and "/" in value:
        return Path(value).name
    return [_short(item) for item in value] if isinstance(value, tuple) else value


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.glob("*/*") if path.suffix in (".jsonl", ".txt"))
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}


def model_hashes(folder: Path) -> dict[str, str]:
    """The sha256 of each weight file and word list in a folder."""
    files = sorted(path for pattern in WEIGHTS for path in folder.glob(pattern))
    return {path.name: sha256_of(path) for path in files}


def _pinned(name: str) -> dict[str, str]:
    """The hashes in the manifest of a known model or a folder; empty if it is not on this machine."""
    folder = Path(name) if Path(name).is_dir() else models.locate(name)
    if folder is None or not (folder / FILENAME).is_file():
        return {}
    return dict(Manifest.load(folder, verify=False).files)


def plain(value: Any) -> Any:
    """The value in JSON's own types: dataclasses as objects, numbers that are not finite as null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Enum):
        return str(value)
    return str(value) if isinstance(value, Path) else value
