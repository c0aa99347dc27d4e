"""Rewards as values: named scores of answers that add, subtract and multiply.

reward = 2 * named("clean", clean) * named("meaning", meaning) - 0.5 * named("copy", copied)
reward(answers).total      # (n,) float32
reward(answers).terms      # {"clean": ..., "meaning": ..., "copy": ...}, each computed once
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from guardrail.errors import ConfigError, PluginError

__all__ = ["Answer", "Floats", "Reward", "Score", "Scored", "named"]

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Answer:
    """What is scored: the text that was asked about, the whole prompt made of it, and the response.

    ``references`` are human answers to the same query, where the data has any.
    """

    query: str = field(repr=False)
    prompt: str = field(repr=False)
    response: str = field(repr=False)
    references: tuple[str, ...] = field(default=(), repr=False)


Score = Callable[[Sequence[Answer]], npt.ArrayLike]
"""One number per answer; it depends on that answer alone."""


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """The reward of each answer and, by name, the terms it is made of; all ``(n,)`` float32."""

    total: Floats
    terms: Mapping[str, Floats]

    @classmethod
    def joined(cls, parts: Sequence[Scored]) -> Scored:
        """The scores of several batches as those of one."""
        return cls(
            total=np.concatenate([part.total for part in parts]),
            terms={name: np.concatenate([part.terms[name] for part in parts]) for name in parts[0].terms},
        )


@dataclass(frozen=True, slots=True)
class Reward:
    """A formula over named scores.

    Records know a reward by its ``formula``, so it names whatever decides its scores but the models.
    ``scores`` maps names to what computes them; ``combine`` makes the reward of their values; ``models``
    names what they read: sha256 of weights, hub ids, names.
    """

    formula: str
    scores: Mapping[str, Score] = field(repr=False)
    combine: Callable[[Mapping[str, Floats]], Floats] = field(repr=False)
    models: frozenset[str] = field(repr=False)

    def __call__(self, answers: Sequence[Answer]) -> Scored:
        """Scores answers; PluginError if a score is not one finite number per answer."""
        terms = {name: _checked(name, score, answers) for name, score in self.scores.items()}
        return Scored(total=np.float32(1) * self.combine(terms), terms=terms)

    def __add__(self, other: Reward | float) -> Reward:
        return self._with(_lift(other), "+", lambda left, right: left + right)

    def __sub__(self, other: Reward | float) -> Reward:
        return self._with(_lift(other), "-", lambda left, right: left - right)

    def __mul__(self, other: Reward | float) -> Reward:
        return self._with(_lift(other), "*", lambda left, right: left * right)

    def __radd__(self, other: float) -> Reward:
        return _lift(other) + self

    def __rsub__(self, other: float) -> Reward:
        return _lift(other) - self

    def __rmul__(self, other: float) -> Reward:
        return _lift(other) * self

    def __neg__(self) -> Reward:
        return _lift(-1.0) * self

    def _with(self, other: Reward, sign: str, join: Callable[[Floats, Floats], Floats]) -> Reward:
        clash = [
            name for name in self.scores if other.scores.get(name, self.scores[name]) != self.scores[name]
        ]
        if clash:
            raise ConfigError(f"two different rewards are called {', '.join(clash)}; give one another name")
        return Reward(
            formula=f"({self.formula} {sign} {other.formula})",
            scores={**self.scores, **other.scores},
            combine=lambda terms: join(self.combine(terms), other.combine(terms)),
            models=self.models | other.models,
        )


def named(name: str, score: Score, *, models: Sequence[str] = ()) -> Reward:
    """The reward that one score is; ``models`` names what it reads."""
    return Reward(
        formula=name, scores={name: score}, combine=lambda terms: terms[name], models=frozenset(models)
    )


def _lift(value: Reward | float) -> Reward:
    if isinstance(value, Reward):
        return value
    constant, short = np.float32(value), f"{value:g}"
    # What is read again must be the same number.
    written = short if float(short) == value else repr(float(value))
    return Reward(formula=written, scores={}, combine=lambda _: np.asarray(constant), models=frozenset())


def _checked(name: str, score: Score, answers: Sequence[Answer]) -> Floats:
    values = np.asarray(score(answers), dtype=np.float32)
    if values.shape != (len(answers),):
        raise PluginError(
            f"reward {name!r} gave shape {values.shape} for {len(answers)} answers, not one number each",
            reason="reward_invalid",
        )
    if not np.isfinite(values).all():
        raise PluginError(
            f"reward {name!r} gave numbers that are not finite for {int((~np.isfinite(values)).sum())} of "
            f"{len(answers)} answers",
            reason="reward_invalid",
        )
    return values
