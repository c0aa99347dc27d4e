"""Win rates: which of two systems' answers a judge model prefers, asked in both orders.

    guardrail-train win-rate ours.jsonl theirs.jsonl --endpoint http://127.0.0.1:8000/v1 --judge NAME

The judge is a model behind an OpenAI-compatible endpoint, to which the texts are sent. Both files hold rows
of ``prompt`` and ``response``. A duel is won if the judge prefers the same answer in both orders, else it is
a tie: a judge that looks at places alone ties everything, and is told apart by ``first`` and ``second``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guardrail.errors import MissingExtraError, PluginError, UsageError
from guardrail_training.metrics.statistics import Mean, bootstrap_mean
from guardrail_training.records import read_records

__all__ = ["QUESTION", "Duel", "WinRate", "connect", "endpoint_judge", "read_duels", "win_rate"]

CALLS, TIMEOUT = 4, 60.0  # to an endpoint at a time; seconds for one of them
QUESTION = (
    "Prompt: {prompt}\n\nAnswer A:\n{first}\n\nAnswer B:\n{second}\n\n"
    "Which answer is more coherent, relevant and helpful? Reply with A or B alone."
)
# "A", "B.", "(A)", "**B**", "Answer A", "A: it ..."; not the article in "A good text".
LETTER = re.compile(r"\W*(?:answer\W+)?([ab])(?:\W*$|[).:,*\n])", re.IGNORECASE)

Judge = Callable[[Sequence[str]], Sequence[str]]
"""Answers questions with "A" or "B", one each; any other answer is no opinion."""


@dataclass(frozen=True, slots=True)
class Duel:
    """Two answers to one prompt."""

    prompt: str = field(repr=False)
    own: str = field(repr=False)
    other: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class WinRate:
    """Duels won in both orders, lost in both, and tied; ``rate`` is the share won, a tie as half.

    ``first`` and ``second`` are the ties in which the judge chose the same place both times.
    """

    rate: Mean
    won: int
    lost: int
    tied: int
    first: int
    second: int


def read_duels(own: str | Path, other: str | Path) -> list[Duel]:
    """The prompts that both files answer, in the first one's order.

    Raises TrainingRowError for a bad row, UsageError if the files have no prompt in common.
    """
    fields: dict[str, type | tuple[type, ...]] = {"prompt": str, "response": str}
    theirs = {row["prompt"]: row["response"] for row in read_records(other, fields=fields)}
    ours = {row["prompt"]: row["response"] for row in read_records(own, fields=fields)}
    found = [Duel(prompt, answer, theirs[prompt]) for prompt, answer in ours.items() if prompt in theirs]
    if not found:
        raise UsageError(f"{own} and {other} have no prompt in common")
    return found


def win_rate(duels: Sequence[Duel], judge: Judge, *, seed: int) -> WinRate:
    """Asks about every duel in both orders; UsageError without duels, PluginError for missing answers."""
    if not duels:
        raise UsageError("a win rate over no duels is undefined")
    straight = _asked(judge, [_question(duel.prompt, duel.own, duel.other) for duel in duels])
    swapped = _asked(judge, [_question(duel.prompt, duel.other, duel.own) for duel in duels])
    answers = list(zip(straight, swapped, strict=True))
    won, lost = answers.count(("A", "B")), answers.count(("B", "A"))
    tied = len(answers) - won - lost
    return WinRate(
        rate=bootstrap_mean([1.0] * won + [0.5] * tied + [0.0] * lost, seed=seed),
        won=won,
        lost=lost,
        tied=tied,
        first=answers.count(("A", "A")),
        second=answers.count(("B", "B")),
    )


def connect(endpoint: str) -> Any:
    """A client of an OpenAI-compatible API, its key from OPENAI_API_KEY if that is set."""
    try:
        from openai import OpenAI
    except ImportError as error:
        raise MissingExtraError(feature="a judge behind an endpoint", extra="evaluate") from error
    key = os.environ.get("OPENAI_API_KEY") or "none"  # the client refuses to have none
    return OpenAI(base_url=endpoint, api_key=key, timeout=TIMEOUT)


def endpoint_judge(client: Any, *, model: str) -> Judge:
    """A model behind an endpoint as a judge; ``client`` is an ``openai.OpenAI``.

    An answer without a letter of its own at its beginning is no opinion. Raises PluginError if the endpoint
    fails.
    """

    def answer(question: str) -> str:
        try:
            done = client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": question}],
                max_tokens=4,
                temperature=0,
            )
            said = done.choices[0].message.content or ""
        except Exception as error:  # noqa: BLE001  # whatever it is, its message may quote the question
            raise PluginError(_failure(error), reason="judge_failed", original=error) from None
        found = LETTER.match(said)
        return found[1].upper() if found else ""

    def ask(questions: Sequence[str]) -> list[str]:
        with ThreadPoolExecutor(CALLS) as pool:
            return list(pool.map(answer, questions))

    return ask


def _question(prompt: str, first: str, second: str) -> str:
    # Replaced one after the other would let a text hold a placeholder; joined, none is read twice.
    parts = re.split(r"\{(?:prompt|first|second)\}", QUESTION)
    return parts[0] + prompt + parts[1] + first + parts[2] + second + parts[3]


def _asked(judge: Judge, questions: Sequence[str]) -> list[str]:
    answers = list(judge(questions))
    if len(answers) != len(questions):
        raise PluginError(
            f"the judge gave {len(answers)} answers to {len(questions)} questions", reason="judge_invalid"
        )
    return answers


def _failure(error: Exception) -> str:
    status = getattr(error, "status_code", None)
    told = type(error).__name__ if status is None else f"{type(error).__name__}, status {status}"
    return f"the judge's endpoint failed ({told}): check its address, the model's name and OPENAI_API_KEY"
