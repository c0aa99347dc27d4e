"""Models from a hub or a folder, copied file by file with their sha256 written down."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from guardrail.errors import MissingExtraError, ModelFileError, ModelMissingError
from guardrail.manifest import FILENAME, Manifest, sha256_of
from guardrail.models.weights import gguf_of, read_weights

__all__ = ["from_folder", "from_hub", "write_manifest"]

KEPT_PATTERNS = ("*.safetensors", "*.json", "*.jinja", "vocab.txt", "merges.txt", "tokenizer.model")


def from_hub(repo: str, revision: str, new: Path, staging: Path) -> None:
    """Writes a hub's model at a commit, weights as safetensors only, into ``new``, by way of ``staging``.

    The hub's client repeats requests that fail on the way. Raises ModelMissingError if the model cannot be
    had, ModelFileError if it has no safetensors, MissingExtraError without the client.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise MissingExtraError(feature="fetching from a hub", extra="hub") from error
    # Among these bases is whatever the HTTP library below the client raises, which changes with its versions.
    failures: tuple[type[Exception], ...] = (OSError, *HfHubHTTPError.__bases__)
    arrived = staging / "hub"
    try:
        snapshot_download(repo, revision=revision, local_dir=arrived, allow_patterns=list(KEPT_PATTERNS))
    except failures as error:
        raise ModelMissingError(
            f"{repo} at {revision[:12]} could not be fetched ({type(error).__name__}): check name and "
            "network, or copy the model's folder here and run 'guardrail models pull FOLDER'"
        ) from error
    from_folder(arrived, new, name=repo, version=revision)


def from_folder(folder: Path, new: Path, *, name: str, version: str) -> None:
    """Copies weights, configuration and tokenizer of a base into ``new`` and writes its manifest.

    Its identity is the sha256 of its weight file, or of their listing if it has several. Raises
    ModelFileError if there are neither safetensors nor one GGUF file of a Llama or Qwen2.
    """
    kept = sorted({path for pattern in KEPT_PATTERNS for path in folder.glob(pattern) if _is_kept(path)})
    weights = [path.name for path in kept if path.suffix == ".safetensors"]
    if not weights and any(folder.glob("*.gguf")):
        gguf = gguf_of(folder)
        read_weights(gguf)
        kept, weights = [*kept, gguf], [gguf.name]
    elif not weights or not (folder / "config.json").is_file():
        raise ModelFileError(
            f"{folder} has no *.safetensors with a config.json and no *.gguf; pickled weights are not loaded"
        )
    for path in kept:
        shutil.copyfile(path, new / path.name)
    hashes = [sha256_of(new / weight) for weight in weights]
    several = "".join(f"{weight} {sha256}\n" for weight, sha256 in zip(weights, hashes, strict=True))
    identity = hashes[0] if len(hashes) == 1 else hashlib.sha256(several.encode()).hexdigest()
    write_manifest(new, name=name, version=version, licence="see its source", identity=identity)


def _is_kept(path: Path) -> bool:
    # An adapter next to a base would be applied to it on loading; a manifest is written anew.
    return path.is_file() and path.name != FILENAME and not path.name.startswith("adapter_")


def write_manifest(folder: Path, *, name: str, version: str, licence: str, identity: str) -> None:
    """Lists every file of a finished base folder with its sha256."""
    files = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    Manifest("base", name, version, licence, files=files, trained_on=identity).save(folder)
