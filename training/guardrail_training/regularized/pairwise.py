"""Win rates: which of two continuations a judge model prefers, asked in both orders.

A win rate says something only if the judge can tell a true continuation from a shuffled one: ``competence``
asks it that first, and ``require_competent`` is the gate.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from guardrail.errors import FailureError, PluginError, UsageError
from guardrail_training.metrics.statistics import Rate, wilson_rate
from guardrail_training.regularized.subject import Subject

__all__ = [
    "Duel",
    "WinRate",
    "competence",
    "endpoint_judge",
    "likelihood_judge",
    "require_competent",
    "shuffled",
    "win_rate",
]

LEAST_COMPETENCE = 0.75
QUESTION = (
    "Text: {prompt}\n\nContinuation A:{first}\n\nContinuation B:{second}\n\n"
    "Which continuation is more coherent, relevant and helpful? Answer A or B.\nAnswer:"
)

Judge = Callable[[Sequence[str]], Sequence[str]]
"""Answers questions with "A" or "B", one each; any other answer is no opinion."""


@dataclass(frozen=True, slots=True)
class Duel:
    """Two continuations of one prompt."""

    prompt: str = field(repr=False)
    own: str = field(repr=False)
    other: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class WinRate:
    """Duels won in both orders, lost in both, and neither, which is a tie; ``rate`` counts a tie as half.

    ``consistent`` is the share of duels with the same answer in both orders.
    """

    won: int
    lost: int
    tied: int

    @property
    def rate(self) -> float:
        """In 0..1; 0.5 is no preference."""
        return (self.won + self.tied / 2) / (self.won + self.lost + self.tied)

    @property
    def consistent(self) -> float:
        """In 0..1."""
        return (self.won + self.lost) / (self.won + self.lost + self.tied)


def win_rate(duels: Sequence[Duel], judge: Judge) -> WinRate:
    """Asks about every duel in both orders; UsageError without duels, PluginError for missing answers."""
    if not duels:
        raise UsageError("a win rate over no duels is undefined")
    straight = _asked(judge, [_question(duel.prompt, duel.own, duel.other) for duel in duels])
    swapped = _asked(judge, [_question(duel.prompt, duel.other, duel.own) for duel in duels])
    answers = list(zip(straight, swapped, strict=True))
    won, lost = answers.count(("A", "B")), answers.count(("B", "A"))
    return WinRate(won=won, lost=lost, tied=len(answers) - won - lost)


def shuffled(text: str, *, seed: int) -> str:
    """The same words in another order."""
    words = text.split()
    random.Random(seed).shuffle(words)
    return " " + " ".join(words)


def competence(pairs: Sequence[tuple[str, str]], judge: Judge, *, seed: int) -> Rate:
    """How often the judge prefers, in both orders, a true continuation over the same words shuffled.

    ``pairs`` are prompts and what really follows them.
    """
    duels = [
        Duel(prompt=prompt, own=text, other=shuffled(text, seed=seed + place))
        for place, (prompt, text) in enumerate(pairs)
    ]
    return wilson_rate(win_rate(duels, judge).won, len(duels))


def require_competent(found: Rate) -> None:
    """Raises FailureError for a judge below 75 %: its win rates would be noise."""
    if found.value < LEAST_COMPETENCE:
        raise FailureError(
            f"this judge prefers the true continuation in {found.value:.0%} of {found.n} pairs, below "
            f"{LEAST_COMPETENCE:.0%}: there is no competent judge here, take a larger model"
        )


def likelihood_judge(subject: Subject) -> Judge:
    """A causal language model as a judge: the answer whose letter it finds likelier."""

    def ask(questions: Sequence[str]) -> list[str]:
        letters = [subject.ids(f" {letter}") for letter in "AB"]
        prompts = [subject.ids(question) for question in questions for _ in letters]
        found = subject.logprobs(prompts, letters * len(questions))
        scores = [float(values.sum()) for values in found]
        return ["A" if a > b else "B" for a, b in zip(scores[::2], scores[1::2], strict=True)]

    return ask


def endpoint_judge(client: Any, *, model: str) -> Judge:
    """A model behind an OpenAI-compatible endpoint as a judge; ``client`` is an ``openai.OpenAI``.

    An answer that does not begin with A or B is no opinion.
    """

    def ask(questions: Sequence[str]) -> list[str]:
        answers = []
        for question in questions:
            done = client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": question}],
                max_tokens=4,
                temperature=0,
            )
            answers.append((done.choices[0].message.content or "").strip()[:1].upper())
        return answers

    return ask


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
