"""Moderates whole values: reads out their strings, has them judged together, puts the prose back.

``Task`` has no I/O and no model; ``judge`` and ``ajudge`` have its texts judged in shared model calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from guardrail.engine.batching import Batcher
from guardrail.engine.drive import WINDOW, adrive, drive_many
from guardrail.engine.flow import moderate
from guardrail.engine.runner import Runner
from guardrail.engine.steps import Flow
from guardrail.errors import BlockedError
from guardrail.outcome import Action, Outcome
from guardrail.policy import Policy
from guardrail.structured.nodes import Passage
from guardrail.structured.paths import parse_paths
from guardrail.structured.reading import Reading, read
from guardrail.structured.rebuilding import Rebuilding
from guardrail.structured.terms import Terms

__all__ = ["Task", "ajudge", "judge"]


class Task:
    """One value on its way: the texts to judge, each with its flow, and then the value to return.

    Raises TypeError and UsageError as ``read`` and ``parse_paths`` do.
    """

    def __init__(self, value: object, *, paths: Sequence[str], policy: Policy, terms: Terms) -> None:
        self._value = value
        self._policy = policy
        self._terms = terms
        self._reading: Reading = read(value, parse_paths(paths))
        whole = isinstance(value, str)  # its outcome is announced even where it is blank, as by ``check``
        self._asked = [
            passage
            for passage in self._reading.passages
            if whole or (passage.text.strip() and (passage.prose or passage.text not in terms))
        ]

    def windows(self) -> Iterator[tuple[list[Flow], list[str]]]:
        """The texts in groups, each with its flow: the whole ladder for prose, block alone for all else."""
        policy = blocking = self._policy
        if not all(passage.prose for passage in self._asked):
            blocking = replace(policy, ladder=("block",), block="raise")
        for start in range(0, len(self._asked), WINDOW):
            window = self._asked[start : start + WINDOW]
            flows = [moderate(policy if passage.prose else blocking) for passage in window]
            yield flows, [passage.text for passage in window]

    def noteworthy(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """The outcomes to announce: those of prose, and of other strings that were flagged or degraded."""
        pairs = zip(self._asked, outcomes, strict=True)
        return [outcome for passage, outcome in pairs if passage.prose or outcome.edits or outcome.degraded]

    def value(self, outcomes: Sequence[Outcome]) -> Any:
        """The value to return; the very same object if nothing in it changed.

        Raises BlockedError under ``block="raise"``, and if a flagged string is neither prose nor a message.
        """
        known: dict[Passage, Outcome] = {}
        for passage, outcome in zip(self._asked, outcomes, strict=True):
            if outcome.action is Action.BLOCKED and self._policy.block == "raise":
                raise BlockedError(outcome)
            if not passage.prose:
                self._terms.learn(passage.text, outcome)
            known[passage] = outcome
        if self._reading.root is None:
            return self._value
        judged = [known.get(passage) for passage in self._reading.passages]
        return Rebuilding(self._policy, judged).value(self._reading.root)


def judge(task: Task, runner: Runner, *, batch: int) -> list[Outcome]:
    """One outcome for each text of a task."""
    outcomes: list[Outcome] = []
    for flows, texts in task.windows():
        outcomes += drive_many(flows, texts, runner, batch=batch)
    return outcomes


async def ajudge(task: Task, batcher: Batcher) -> list[Outcome]:
    """The same without blocking the event loop; the texts run side by side."""
    outcomes: list[Outcome] = []
    for flows, texts in task.windows():
        pairs = zip(flows, texts, strict=True)
        outcomes += await asyncio.gather(*(adrive(flow, text, batcher) for flow, text in pairs))
    return outcomes
