"""Writes a run's result as one folder: an adapter as it is, or merged into its base."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from guardrail.errors import ConfigError, ManifestError, UsageError
from guardrail.manifest import FILENAME, Manifest, sha256_of
from guardrail.rewriters.adapter import read_adapter
from guardrail_training import modeling
from guardrail_training.evaluation.best_checkpoint import step_folders
from guardrail_training.export.card import model_card
from guardrail_training.modeling.stacked import merge
from guardrail_training.provenance import model_folder, weights_sha256

__all__ = ["ExportSettings", "export"]

CARD = "README.md"  # where hubs look for it
FORMS = ("merged", "adapter")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportSettings:
    """What is exported, and as what.

    run          folder of a run, of which ``step-N`` is taken, N the ``step`` or the last; or that itself
    out          new folder that receives the result
    form         merged (weights that need no adapter any more) or adapter
    base         name or folder of the base to merge into; None: the run's own
    dtype        of merged weights, float32 or bfloat16; merging itself is done in float32
    temperature  at which ``rewrite`` samples from an adapter, above 0; None: its own. A guard never does
    results      JSON file of ``python -m research evaluate rewriter`` whose tables go into the model card
    """

    run: str
    out: str
    form: str = "merged"
    step: int | None = None
    base: str | None = None
    dtype: str = "float32"
    temperature: float | None = None
    results: str | None = None

    def __post_init__(self) -> None:
        for key, known in (("form", FORMS), ("dtype", tuple(DTYPES))):
            if getattr(self, key) not in known:
                raise ConfigError(f"{key} must be one of {', '.join(known)}, got {getattr(self, key)!r}")
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            raise ConfigError(f"temperature must be more than 0, got {self.temperature!r}")
        if self.temperature is not None and self.form != "adapter":
            raise ConfigError("temperature goes with form = 'adapter': merged weights keep no decoding")


def export(settings: ExportSettings) -> Path:
    """Writes weights, manifest and model card, and returns their folder.

    Raises UsageError if the folder is not empty or the run has no such step, ManifestError if files
    were altered or the base is another one; nothing is left behind then.
    """
    source, out = _source(settings), Path(settings.out)
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty: choose a new folder")
    manifest = Manifest.load(source)
    if manifest.template is None:
        raise ManifestError(f"{source} holds a {manifest.kind} without a prompt template, not a run's result")
    results = _results(settings.results)
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        if manifest.kind == "adapter" and settings.form == "merged":
            manifest = _merged(source, manifest, part, settings=settings)
        elif manifest.kind == "base" and settings.form == "adapter":
            raise ConfigError(f"form = 'adapter': {source} holds a whole model; take form = 'merged'")
        else:
            for name in manifest.files:
                shutil.copyfile(source / name, part / name)
            if settings.temperature is not None:
                manifest = replace(manifest, temperature=settings.temperature)
        (part / CARD).write_text(model_card(manifest, results=results), encoding="utf-8")
        files = {path.name: sha256_of(path) for path in sorted(part.iterdir())}
        replace(manifest, files=files).save(part)
        shutil.rmtree(out, ignore_errors=True)  # it is empty
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return out


def _source(settings: ExportSettings) -> Path:
    run = Path(settings.run)
    if (run / FILENAME).is_file():
        return run
    folders = step_folders(run)
    if settings.step is None:
        return folders[-1]
    chosen = run / f"step-{settings.step}"
    if chosen not in folders:
        raise UsageError(f"{run} has no step {settings.step}; it has {', '.join(f.name for f in folders)}")
    return chosen


def _results(path: str | None) -> Mapping[str, Any] | None:
    if path is None:
        return None
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"results: {path} not found; 'python -m research evaluate rewriter' writes it"
        ) from None
    except ValueError:
        raise UsageError(f"results: {path} is not valid JSON") from None
    if not isinstance(content, dict) or not {"blocks", "advantages"} <= set(content):
        raise UsageError(f"results: {path} holds no table of rewriters")
    return content


def _merged(source: Path, manifest: Manifest, folder: Path, *, settings: ExportSettings) -> Manifest:
    """Writes the base with the adapter in its weights; returns the manifest of the new model."""
    base = model_folder(settings.base or _base_of(source))
    manifest.check_base(weights_sha256(base))
    model = modeling.load_base(base, dtype=torch.float32)
    merge(model, read_adapter(source))
    modeling.save_model(model.to(DTYPES[settings.dtype]), folder, tokenizer=modeling.load_tokenizer(base))
    origin = {
        "adapter_sha256": manifest.files["adapter_model.safetensors"],
        "base_sha256": manifest.trained_on,
        "dtype": settings.dtype,
    }
    return replace(
        manifest,
        kind="base",
        trained_on=weights_sha256(folder),
        compatible_bases={},
        temperature=None,
        settings={**manifest.settings, "merged": origin},
    )


def _base_of(source: Path) -> str:
    """The base that the run alongside an adapter names."""
    try:
        base = json.loads((source.parent / "run.json").read_text(encoding="utf-8"))["settings"]["base"]
    except (FileNotFoundError, KeyError, ValueError):
        raise UsageError(f"no run.json beside {source} names the base: give it with --base") from None
    return str(base)
