"""The models that a run's folder speaks of: the bare base, what training started from, what it made."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from guardrail.errors import UsageError
from guardrail.manifest import Template
from guardrail.rewriters.adapter import Adapter, read_adapter
from guardrail_training import modeling
from guardrail_training.evaluation.best_checkpoint import step_folders
from guardrail_training.evaluation.generation.settings import GenerationSettings
from guardrail_training.modeling.stacked import merge
from guardrail_training.provenance import model_folder, weights_sha256

__all__ = ["Compared", "compared_models"]


@dataclass(frozen=True, slots=True)
class Compared:
    """Base and adapters of a run; every model is asked with the trained adapter's template.

    ``start`` is None if training began with the bare base. ``settings`` are the run's own.
    """

    base: Path
    start: Adapter | None
    trained: Adapter
    settings: dict[str, Any]
    device: torch.device
    dtype: torch.dtype

    @property
    def template(self) -> Template:
        """The prompt's literal."""
        return self.trained.template

    @property
    def pad_token(self) -> str:
        """What the run padded with, if the tokenizer does not say."""
        return str(self.trained.manifest.settings.get("pad_token", ""))

    @property
    def titles(self) -> dict[str, str]:
        """The models by name, as a reader should know them, in the order of training."""
        titles = {"zero-shot": "base, zero-shot"}
        if self.start is not None:
            titles["start"] = f"start: {self.start.manifest.name}"
        step = (self.trained.manifest.metrics or {}).get("step")
        suffix = "" if step is None else f", step {step}"
        return titles | {"trained": f"trained: {self.trained.manifest.name}{suffix}"}

    @property
    def before(self) -> str:
        """The name of the model that training began with."""
        return "zero-shot" if self.start is None else "start"

    @property
    def sha256(self) -> dict[str, dict[str, str]]:
        """The files of each model."""
        files = {"base": {"model.safetensors": weights_sha256(self.base)}}
        if self.start is not None:
            files["start"] = dict(self.start.manifest.files)
        return files | {"trained": dict(self.trained.manifest.files)}

    def load(self, name: str) -> Any:
        """One of the models, its adapter merged."""
        model = modeling.load_base(self.base, dtype=self.dtype, device=self.device)
        adapter = {"zero-shot": None, "start": self.start, "trained": self.trained}[name]
        if adapter is not None:
            merge(model, adapter)
        return model


def compared_models(settings: GenerationSettings) -> Compared:
    """What a run's folder names; UsageError, ManifestError or ModelFileError for what is missing or does not
    belong together."""
    path = Path(settings.run) / "run.json"
    try:
        own = json.loads(path.read_text(encoding="utf-8"))["settings"]
        base = model_folder(own["base"])
    except FileNotFoundError:
        raise UsageError(f"{path} not found: run must be the folder that a trainer wrote") from None
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{path} has no settings with a base: no trainer of adapters wrote it") from None
    trained = read_adapter(settings.adapter or step_folders(settings.run)[-1])
    start = read_adapter(own["adapter"]) if own.get("adapter") else None
    identity = weights_sha256(base)
    for adapter in (start, trained):
        if adapter is not None:
            adapter.manifest.check_base(identity)
    device = modeling.resolve_device(settings.device)
    dtype = modeling.resolve_dtype(settings.dtype, device)
    return Compared(base=base, start=start, trained=trained, settings=own, device=device, dtype=dtype)
