"""What a training of the tagger depends on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from guardrail.manifest import sha256_of
from guardrail_training.recipe import check_values

__all__ = ["TaggerSettings", "course"]

ASIDE = ("base", "out", "data", "own", "checkpoint_every", "threads")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggerSettings:
    """Settings of one run; a model's manifest names those that made it."""

    base: str  # name that ``guardrail models`` knows, or folder with model.safetensors and tokenizer.json
    out: str  # checkpoints and metrics; the finished model goes to its subfolder "model"
    start: str = ""  # network.safetensors of a detector's training, for its encoder; empty: the base
    data: str = ""  # folder of sources; GUARDRAIL_DATA by default
    own: tuple[str, ...] = ()  # hand-written pairs in the form of training/data/rewrites.jsonl
    seed: int = 0
    held_out: float = 0.1  # share of the hand-written sources, for figures
    phrases: int = 300  # that a tag may put in a word's place or behind it
    clean: float = 0.12  # share of texts in which every word is kept: look-alikes and rewrites
    paradetox_weight: float = 0.5  # of a pair of ParaDetox; a hand-written one counts 1
    passes: int = 5
    tokens_per_batch: int = 768
    max_tokens: int = 256  # longer texts are left out of training
    lr: float = 8e-5
    head_lr: float = 8e-4
    weight_decay: float = 0.01
    warmup: float = 0.06  # of all steps
    dropout: float = 0.1
    dtype: str = "auto"  # auto | float32 | bfloat16
    checkpoint_every: int = 200
    max_steps: int = 0  # stop early, for measuring throughput; 0 is to the end
    threads: int = 1

    def __post_init__(self) -> None:
        check_values(
            self,
            at_least_one=("phrases", "passes", "tokens_per_batch", "max_tokens", "threads"),
            positive=("lr", "head_lr"),
            not_negative=("paradetox_weight", "max_steps"),
            shares=("held_out", "clean", "warmup", "dropout"),
            choices={"dtype": ("auto", "float32", "bfloat16")},
        )


def course(settings: TaggerSettings) -> dict[str, Any]:
    """The settings that decide a run's result: files by their sha256, no path of one machine."""
    values = {key: value for key, value in asdict(settings).items() if key not in ASIDE}
    if settings.start:
        values["start"] = sha256_of(settings.start)
    return values | {"own": [sha256_of(path) for path in settings.own]}
