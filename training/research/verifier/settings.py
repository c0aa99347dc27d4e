"""What a training of the verifier depends on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from guardrail.manifest import sha256_of
from guardrail_training.recipe import check_values

__all__ = ["VerifierSettings", "course"]

ASIDE = ("base", "out", "data", "own", "ratings", "checkpoint_every", "threads")


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierSettings:
    """Settings of one run; a model's manifest names those that made it."""

    base: str  # name that ``guardrail models`` knows, or folder with model.safetensors and tokenizer.json
    out: str  # checkpoints and metrics; the finished model goes to its subfolder "model"
    start: str = ""  # network.safetensors of a detector's or an earlier verifier's training; empty: the base
    data: str = ""  # folder of sources; GUARDRAIL_DATA by default
    own: tuple[str, ...] = ()  # hand-written pairs in the form of training/data/rewrites.jsonl
    ratings: tuple[str, ...] = ()  # rated candidates in the form of training/data/ratings.jsonl
    seed: int = 16
    held_out: float = 0.2  # share of the sources, for calibration, threshold and figures
    per_pair: int = 3  # candidates with a made fault for each source
    refused_share: float = 1.0  # of ParaDetox's references that a rule refused
    refused_weight: float = 0.7  # of one of these: the rules are not always right
    rated_weight: float = 3.0  # of a rated candidate
    rated_repeats: int = 1  # how often a pass reads each of them
    fault_weight: float = 0.3  # of saying what is wrong, beside whether something is
    passes: int = 1
    tokens_per_batch: int = 3072
    max_tokens: int = 160  # longer pairs are left out of training
    lr: float = 1.2e-4
    head_lr: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.06  # of all steps
    precision: float = 0.95  # share of what is taken that must be acceptable, on held-out candidates
    threshold: float = 0.0  # probability from which a candidate is taken; 0 is the least with ``precision``
    dtype: str = "auto"  # auto | float32 | bfloat16
    checkpoint_every: int = 200
    max_steps: int = 0  # stop early, for measuring throughput; 0 is to the end
    threads: int = 1

    def __post_init__(self) -> None:
        check_values(
            self,
            at_least_one=("per_pair", "rated_repeats", "passes", "tokens_per_batch", "max_tokens", "threads"),
            positive=("lr", "head_lr"),
            not_negative=("refused_weight", "rated_weight", "fault_weight", "max_steps"),
            shares=("held_out", "refused_share", "warmup", "precision", "threshold"),
            choices={"dtype": ("auto", "float32", "bfloat16")},
        )


def course(settings: VerifierSettings) -> dict[str, Any]:
    """The settings that decide a run's result: files by their sha256, no path of one machine."""
    values = {key: value for key, value in asdict(settings).items() if key not in ASIDE}
    if settings.start:
        values["start"] = sha256_of(settings.start)
    files = {"own": settings.own, "ratings": settings.ratings}
    return values | {key: [sha256_of(path) for path in paths] for key, paths in files.items()}
