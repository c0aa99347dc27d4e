"""Settings of runs: each with its default, range and meaning in one place, and what all trainers share.

A trainer's settings are a frozen dataclass on top of ``TrainingSettings``, its fields made by ``setting``.
From that alone follow the checks, the options of the command line (``options``), the run's fingerprint and
what its models' manifests say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from guardrail.errors import ConfigError

__all__ = [
    "ALL_LINEAR",
    "DATA",
    "MODEL",
    "OUTPUT",
    "STEPS",
    "Setting",
    "TrainingSettings",
    "former_names",
    "setting",
    "setting_of",
]

ALL_LINEAR = ("all-linear",)
"""Every linear layer but the output layer, whatever the architecture calls them."""
MODEL, DATA, STEPS, OUTPUT = "Model", "Data", "Optimizer steps", "Machine and folder"


@dataclass(frozen=True, slots=True)
class Setting:
    """What is known of a setting apart from its type and default.

    ``formerly`` is a name that recipes may still use. ``is_place`` marks a path of this machine, ``is_free``
    what changes no number of a run: neither belongs to the run's fingerprint, and a place to no manifest.
    """

    help: str
    group: str
    min: float | None = None
    max: float | None = None
    above: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    is_free: bool = False
    is_place: bool = False
    formerly: str = ""

    @property
    def bounds(self) -> str:
        """The range in words, empty if any value will do."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.min is not None and self.max is not None:
            return f"between {self.min:g} and {self.max:g}"
        low = f"at least {self.min:g}" if self.min is not None else ""
        low = f"above {self.above:g}" if self.above is not None else low
        high = f"below {self.below:g}" if self.below is not None else ""
        return " and ".join(part for part in (low, high) if part)

    @property
    def _demand(self) -> str:
        if self.above == 0 and self.below is None:
            return "be positive"
        if self.min == 0 and self.max is None and self.below is None:
            return "not be negative"
        return f"be {self.bounds or 'a finite number'}"

    def check(self, name: str, value: Any) -> None:
        """Raises ConfigError for a value outside the range; None is within any."""
        if value is None:
            return
        if self.choices and value not in self.choices:
            raise ConfigError(f"{name} must be {self.bounds}, got {value!r}")
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return
        holds = (
            (self.min is None or value >= self.min)
            and (self.max is None or value <= self.max)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )
        if not holds or not math.isfinite(value):
            raise ConfigError(f"{name} must {self._demand}, got {value}")


def setting(default: Any, help: str, *, group: str, **known: Any) -> Any:  # noqa: A002  # click's word
    """A field of settings; ``known`` is that of ``Setting``."""
    return field(default=default, metadata={"setting": Setting(help, group, **known)})


def setting_of(kind: type, name: str) -> Setting:
    """What is known of a setting by its name."""
    known: Setting = next(one for one in fields(kind) if one.name == name).metadata["setting"]
    return known


def former_names(kind: type) -> dict[str, str]:
    """The present name of each setting by the one that it had before."""
    known = {one.name: one.metadata.get("setting") for one in fields(kind)}
    return {each.formerly: name for name, each in known.items() if each is not None and each.formerly}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """What every trainer's run depends on; a recipe is this as TOML."""

    trainer: ClassVar[str]

    base: str = setting(
        "smollm2-135m-instruct",
        "Base model: a name in 'guardrail models list', or a folder of config.json, safetensors, tokenizer.",
        group=MODEL,
        is_place=True,
    )
    adapter: str | None = setting(
        None, "Folder of an adapter for this base to start from.", group=MODEL, is_place=True
    )
    pad_token: str = setting(
        "", "What to pad with if neither tokenizer nor starting adapter says.", group=MODEL
    )
    out: str = setting("runs/run", "Folder that receives the result.", group=OUTPUT, is_place=True)
    data: str | None = setting(
        None, "Folder of the sources; else GUARDRAIL_DATA, else the hub.", group=DATA, is_place=True
    )
    licence: str = setting(
        "", "Licence of the rows that are trained on, by its SPDX name.", group=DATA, is_free=True
    )
    name: str = setting("", "Name of the result; else made of base and trainer.", group=MODEL)
    learning_rate: float = setting(1e-4, "Peak of the learning rate.", group=STEPS, above=0)
    warmup: float = setting(
        0.05, "Part of all steps over which the learning rate rises.", group=STEPS, min=0, below=1
    )
    max_grad_norm: float = setting(1.0, "Norm that gradients are clipped to.", group=STEPS, above=0)
    seed: int = setting(0, "Seed of all that is drawn.", group=STEPS)
    dtype: str = setting(
        "auto",
        "Format of matrix products; auto: bfloat16 if the device multiplies in it, else float32.",
        group=OUTPUT,
        choices=("auto", "float32", "bfloat16"),
    )
    device: str = setting(
        "auto",
        "Where to compute: cpu, cuda or another of torch's devices; auto: this process's GPU, if any.",
        group=OUTPUT,
        is_free=True,
    )
    threads: int = setting(0, "Threads of torch; 0: its own choice.", group=OUTPUT, min=0, is_free=True)
    checkpoint_every: int = setting(
        100, "Steps between states that an interrupted run continues from.", group=OUTPUT, min=1, is_free=True
    )

    track: tuple[str, ...] = setting(
        (),
        "accelerate's trackers that get the metrics too, such as wandb or mlflow.",
        group=OUTPUT,
        is_free=True,
    )
    keep_models: int = setting(
        2,
        "Models on disk at most: the last, the best if that is measured, then the newest; 0: all.",
        group=OUTPUT,
        min=0,
        is_free=True,
    )
    patience: int | None = setting(
        None,
        "Evaluations without a better one after which the run ends; else never.",
        group=OUTPUT,
        min=1,
        is_free=True,
    )

    def __post_init__(self) -> None:
        for one in fields(self):
            one.metadata["setting"].check(one.name, getattr(self, one.name))
        self._check_together()

    def _check_together(self) -> None:
        """Raises ConfigError for settings that exclude each other."""

    def decisive(self) -> dict[str, Any]:
        """The settings that decide a run's numbers, under the names by which a checkpoint knows them.

        A former name stays in the fingerprint while recipes may use it, so that earlier runs can continue.
        """
        known = {name: setting_of(type(self), name) for name in self.described()}
        return {
            known[name].formerly or name: value
            for name, value in self.described().items()
            if not known[name].is_free
        }

    def described(self) -> dict[str, Any]:
        """The settings that a manifest holds: all but the places of one machine."""
        return {
            one.name: getattr(self, one.name) for one in fields(self) if not one.metadata["setting"].is_place
        }
