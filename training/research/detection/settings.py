"""What a training of the detector depends on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from guardrail.manifest import sha256_of

__all__ = ["DetectorSettings", "course"]

ASIDE = ("base", "out", "data", "checkpoint_every", "threads", "export")


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorSettings:
    """Settings of one run; a model's manifest names those that made it."""

    base: str  # name that ``guardrail models`` knows, or folder with model.safetensors and tokenizer.json
    out: str  # checkpoints and metrics; the finished model goes to its subfolder "model"
    start: str = ""  # network.safetensors of an earlier run to continue from; empty: the base itself
    data: str | None = None  # folder of sources; GUARDRAIL_DATA, then the hub, by default
    seed: int = 20
    share: float = 1.0  # of the rows of a pass
    passes: int = 1
    tokens_per_batch: int = 2048
    max_tokens: int = 144
    lr: float = 1.5e-4
    head_lr: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.06  # of all steps
    distillation: float = 2.0  # weight of 1 - cosine
    distilled: float = 0.35  # share of each batch that the teacher reads
    token_weight: float = 0.3
    pair_weight: float = 0.2  # of ranking a hostile sentence above its harmless twin
    soft: str = ""  # scores of a larger network by text, from ``python -m research detector-scores``
    soft_share: float = 0.5  # what those scores count where a source has a label too
    last_share: float = 0.35  # rows of a last phase, in parts of a pass; 0 leaves it out
    last_lr: float = 6e-5
    last_distillation: float = 8.0
    last_distilled: float = 0.5
    averaged: float = 0.6  # weight of the last phase's result; the rest is the network before that phase
    blend: str = ""  # network.safetensors of an earlier run to average the result with, chosen after training
    blended: float = 0.5  # its weight
    last_obfuscated: float = 0.3  # share of its texts with hidden words; 0.18 before
    token_embeddings: bool = True  # whether the table of token embeddings is trained
    templates: bool = True
    without: str = ""  # a source to leave out, for cross-source figures
    dtype: str = "auto"  # auto | float32 | bfloat16
    checkpoint_every: int = 200
    max_steps: int = 0  # stop early, for measuring throughput; 0 is to the end
    threads: int = 2
    export: bool = True


def course(settings: DetectorSettings) -> dict[str, Any]:
    """The settings that decide a run's result: earlier networks by their sha256, no path of one machine."""
    values = {key: value for key, value in asdict(settings).items() if key not in ASIDE}
    return values | {key: sha256_of(values[key]) for key in ("start", "blend", "soft") if values[key]}
