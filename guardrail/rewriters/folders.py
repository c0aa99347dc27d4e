"""The folder of an adapter's base: found, verified, and for no other adapter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from guardrail import models
from guardrail.errors import ManifestError
from guardrail.manifest import FILENAME, Manifest

__all__ = ["BaseFolder", "find_base"]


@dataclass(frozen=True, slots=True)
class BaseFolder:
    """A verified folder, and the sha256 by which manifests name the base in it."""

    path: Path
    identity: str


def find_base(adapter: Manifest, folder_or_name: str | Path | None) -> BaseFolder:
    """The chosen base, else the one that the adapter's manifest names.

    Raises ModelMissingError if it is not on this machine, ManifestError if it is altered, holds files that
    its manifest does not list, or is not a base for this adapter.
    """
    folder = models.require(folder_or_name if folder_or_name is not None else _known(adapter))
    manifest = Manifest.load(folder, verify=False)
    if manifest.kind != "base" or manifest.trained_on is None:
        raise ManifestError(f"{folder} holds a {manifest.kind}, expected a base model with its identity")
    adapter.check_base(manifest.trained_on)
    unlisted = sorted(path.name for path in folder.iterdir() if path.name not in {*manifest.files, FILENAME})
    if unlisted:
        # transformers opens files by name, an adapter_config.json for one: only verified ones may be there.
        raise ManifestError(f"{folder} has files that its manifest does not list: {unlisted}; remove them")
    return BaseFolder(folder, manifest.trained_on)


def _known(adapter: Manifest) -> str:
    source = models.source_of(adapter.trained_on)
    if source is None:
        raise ManifestError(
            f"the base of adapter {adapter.name!r} ({str(adapter.trained_on)[:16]}...) is not one that "
            "this package knows: pass its folder as base_folder"
        )
    return source.name
