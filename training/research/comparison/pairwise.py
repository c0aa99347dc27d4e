"""Win rates: which of two continuations a judge model prefers, asked in both orders.

A win rate says something only if the judge can tell a true continuation from a shuffled one: ``competence``
asks it that first.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from guardrail.errors import PluginError, UsageError
from guardrail_training.metrics.statistics import Mean, Rate, bootstrap_mean, wilson_rate

__all__ = [
    "MIN_COMPETENCE",
    "Competence",
    "ContinuationDuel",
    "ContinuationWinRate",
    "Judge",
    "competence",
    "shuffled",
    "win_rate",
]

MIN_COMPETENCE = 0.75
QUESTION = (
    "Text: {prompt}\n\nContinuation A:{first}\n\nContinuation B:{second}\n\n"
    "Which continuation is more coherent, relevant and helpful? Answer A or B.\nAnswer:"
)

Judge = Callable[[Sequence[str]], Sequence[str]]
"""Answers questions with "A" or "B", one each; any other answer is no opinion."""


@dataclass(frozen=True, slots=True)
class ContinuationDuel:
    """Two continuations of one prompt, each with the blank that it begins with."""

    prompt: str = field(repr=False)
    own: str = field(repr=False)
    other: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ContinuationWinRate:
    """Duels won in both orders, lost in both, and neither, which is a tie.

    ``first`` and ``second`` are the ties in which the judge chose the same place both times: many of them
    mean that it looks at places, not at texts.
    """

    won: int
    lost: int
    tied: int
    first: int
    second: int

    @property
    def n(self) -> int:
        """How many duels there were."""
        return self.won + self.lost + self.tied

    @property
    def consistent(self) -> float:
        """The share of duels with the same answer in both orders, in 0..1."""
        return (self.won + self.lost) / self.n

    def rate(self, *, seed: int) -> Mean:
        """The share won, a tie as half, with its interval over duels; 0.5 is no preference."""
        return bootstrap_mean([1.0] * self.won + [0.5] * self.tied + [0.0] * self.lost, seed=seed)


@dataclass(frozen=True, slots=True)
class Competence:
    """How a judge did between true and shuffled continuations; ``rate`` counts true ones preferred in both
    orders."""

    duels: ContinuationWinRate
    rate: Rate

    @property
    def qualifies(self) -> bool:
        """Whether its win rates say anything."""
        return self.rate.value >= MIN_COMPETENCE


def win_rate(duels: Sequence[ContinuationDuel], judge: Judge) -> ContinuationWinRate:
    """Asks about every duel in both orders; UsageError without duels, PluginError for missing answers."""
    if not duels:
        raise UsageError("a win rate over no duels is undefined")
    straight = _asked(judge, [_question(duel.prompt, duel.own, duel.other) for duel in duels])
    swapped = _asked(judge, [_question(duel.prompt, duel.other, duel.own) for duel in duels])
    answers = list(zip(straight, swapped, strict=True))
    won, lost = answers.count(("A", "B")), answers.count(("B", "A"))
    return ContinuationWinRate(
        won=won,
        lost=lost,
        tied=len(answers) - won - lost,
        first=answers.count(("A", "A")),
        second=answers.count(("B", "B")),
    )


def shuffled(text: str, *, seed: int) -> str:
    """The same words in another order, as far as there is one."""
    words = text.split()
    random.Random(seed).shuffle(words)
    if words == text.split():
        words = words[1:] + words[:1]
    return " " + " ".join(words)


def competence(pairs: Sequence[tuple[str, str]], judge: Judge, *, seed: int) -> Competence:
    """How often the judge prefers, in both orders, a true continuation over the same words shuffled.

    ``pairs`` are prompts and what really follows them.
    """
    duels = [
        ContinuationDuel(prompt=prompt, own=text, other=shuffled(text, seed=seed + place))
        for place, (prompt, text) in enumerate(pairs)
    ]
    found = win_rate(duels, judge)
    return Competence(duels=found, rate=wilson_rate(found.won, found.n))


def _question(prompt: str, first: str, second: str) -> str:
    # Replaced one after the other would let a text hold a place-holder; joined, none is read twice.
    before, rest = QUESTION.split("{prompt}")
    middle, rest = rest.split("{first}")
    last, after = rest.split("{second}")
    return before + prompt + middle + first + last + second + after


def _asked(judge: Judge, questions: Sequence[str]) -> list[str]:
    answers = list(judge(questions))
    if len(answers) != len(questions):
        raise PluginError(
            f"the judge gave {len(answers)} answers to {len(questions)} questions", reason="judge_invalid"
        )
    return answers
