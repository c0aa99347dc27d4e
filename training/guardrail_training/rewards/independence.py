"""Keeps the instruments of the reports out of rewards: what is optimised must not be what is reported."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from guardrail.errors import ConfigError
from guardrail.manifest import sha256_of
from guardrail.models.sources import SOURCES
from guardrail_training.rewards.algebra import Reward

__all__ = ["RESERVED", "check_independent", "identities", "independent_reward"]

RESERVED = ("profanity-check", "profanity_check", "char-ngram", "paraphrase-minilm-l3", "paraphrase_minilm")
"""Parts of the names of the two judges and of the encoder behind SIM."""

RESERVED_SHA256 = frozenset(
    {SOURCES["paraphrase-minilm-l3"].identity}
    | {file.sha256 for file in SOURCES["paraphrase-minilm-l3"].files}
)
RESERVED_MODULES = frozenset({"judges", "similarity", "profanity_check"})
DEPTH = 4  # how far into the objects that a score holds


def identities(folder_or_id: str) -> tuple[str, ...]:
    """The names by which a model is known here: its id or folder, and the sha256 of its weight files."""
    folder = Path(folder_or_id)
    if not folder.is_dir():
        return (folder_or_id,)
    weights = [path for path in sorted(folder.iterdir()) if path.suffix in (".safetensors", ".onnx")]
    return (folder.name, *(sha256_of(path) for path in weights))


def check_independent(reward: Reward) -> None:
    """Raises ConfigError if a judge or the SIM encoder is behind a score.

    It is found by the models that the reward names, and by the code and objects that its scores hold.
    """
    for model in reward.models:
        name = model.lower()
        if model in RESERVED_SHA256 or any(part in name for part in RESERVED):
            raise _refusal(f"reads {model!r}")
    for name, score in reward.scores.items():
        for module in _modules(score, depth=DEPTH):
            if module.split(".")[0] in RESERVED_MODULES or module.split(".")[-1] in RESERVED_MODULES:
                raise _refusal(f"calls {module!r} in its term {name!r}")


def independent_reward(formula: str, given: Reward | None = None, *, device: str = "auto") -> Reward:
    """The reward of a formula, its models on ``device``, or the one given in its place.

    Raises ConfigError as ``check_independent`` does.
    """
    if given is None:
        # Loads models, so it is imported if a formula is given in words.
        from guardrail_training.rewards.formula import read_formula

        given = read_formula(formula, device=device)
    check_independent(given)
    return given


def _refusal(what: str) -> ConfigError:
    return ConfigError(
        f"the reward {what}, with which results are measured: a policy trained on it would be measured by "
        "its own target; use the detector or another classifier"
    )


def _modules(part: Any, *, depth: int) -> Iterator[str]:
    """The modules of a callable and of what it is bound to or closes over."""
    yield str(getattr(part, "__module__", None) or "")
    yield str(type(part).__module__)
    if depth:
        for inner in _held(part):
            yield from _modules(inner, depth=depth - 1)


def _held(part: Any) -> Iterator[Any]:
    if isinstance(part, functools.partial):
        yield from (part.func, *part.args, *part.keywords.values())
    if (owner := getattr(part, "__self__", None)) is not None:
        yield owner
    for cell in getattr(part, "__closure__", None) or ():
        yield cell.cell_contents
