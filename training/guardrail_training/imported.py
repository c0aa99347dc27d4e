"""Takes a plain peft adapter over: checks it, measures its base, and writes it with a manifest of ours.

    guardrail-train import ADAPTER --base BASE --out FOLDER --template 'Rewrite: {text}'

What comes out is a start for every trainer (``--adapter``), and a guard can load it.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from guardrail.errors import ConfigError, ManifestError, ModelFileError, UsageError
from guardrail.manifest import FILENAME, Manifest, Template, sha256_of
from guardrail.rewriters.adapter import Adapter, read_adapter
from guardrail_training.outputs import require_writable
from guardrail_training.provenance import model_folder
from guardrail_training.run import identity_of

__all__ = ["FILES", "import_adapter"]

FILES = ("adapter_config.json", "adapter_model.safetensors")
NO_LICENCE = "NOASSERTION"


def import_adapter(
    source: str | Path,
    *,
    base: str,
    out: str | Path,
    template: str,
    name: str | None = None,
    licence: str = NO_LICENCE,
) -> Path:
    """Copies both files of an adapter into a new folder, writes its manifest there, and returns the folder.

    ``template`` is the prompt that the adapter was trained with, ``{text}`` in place of the text. The
    configuration is read against an allow-list and the weights as data; nothing of the source is executed.
    Raises ModelFileError for what is not a plain LoRA adapter or does not fit the base, UsageError if the
    source has a manifest already, is not a folder or lacks a file, or if ``out`` exists.
    """
    source, out = Path(source), require_writable(out, folder=True)
    if not source.is_dir():
        raise UsageError(f"{source} is not a folder: name the one that peft wrote")
    if (source / FILENAME).is_file():
        raise UsageError(f"{source} has a manifest already: it is a start as it is")
    for file in FILES:
        if not (source / file).is_file():
            pickled = " (pickled weights are not opened; save the adapter as safetensors)"
            raise UsageError(f"{source} has no {file}{pickled if file.endswith('safetensors') else ''}")
    if out.exists():
        raise UsageError(f"{out} exists: choose another folder")
    try:
        Template(template)
    except ManifestError as error:
        raise ConfigError(f"template: {error}") from None
    folder = model_folder(base)
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        for file in FILES:
            shutil.copyfile(source / file, part / file)
        Manifest(
            kind="adapter",
            name=name or source.resolve().name,
            version="1",
            licence=licence,
            files={file: sha256_of(part / file) for file in FILES},
            template=template,
            settings={"imported": True},
            **identity_of(folder),
        ).save(part)
        _require_fit(read_adapter(part), folder)
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return out


def _require_fit(adapter: Adapter, base: Path) -> None:
    """ModelFileError if a layer is not in the base in that shape; no weights of the base are read."""
    import torch

    from guardrail_training.modeling.bases import empty_base

    model: Any = empty_base(base)
    shapes = {
        module: tuple(layer.weight.shape)
        for module, layer in model.named_modules()
        if isinstance(getattr(layer, "weight", None), torch.Tensor) and layer.weight.dim() == 2
    }
    for module, factors in adapter.layers.items():
        wanted = (factors.up.shape[0], factors.down.shape[1])
        if wanted not in (shapes.get(module), (shapes.get(module) or ())[::-1]):
            raise ModelFileError(
                f"the adapter changes {module!r} with matrices for {wanted}; the base {base.name} has "
                f"{shapes.get(module, 'no such layer')}: is it for another base?"
            )
