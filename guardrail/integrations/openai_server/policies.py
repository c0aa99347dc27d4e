"""Policies that a request may choose: another threshold, another ladder, all else as the server has it."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from guardrail.errors import ConfigError
from guardrail.integrations.openai_server.metrics import Metrics
from guardrail.integrations.openai_server.moderator import Moderator
from guardrail.integrations.openai_server.replies import ApiError
from guardrail.policy import Policy

__all__ = ["Choice", "Policies"]

REMEMBERED = 64


class Choice(BaseModel):
    """What a request wants different; None leaves it as it is."""

    model_config = ConfigDict(extra="forbid", strict=True)
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None
    ladder: list[Literal["rewrite", "mask", "block"]] | None = None


class Policies:
    """Moderators by policy, the latest ones remembered; all share the models of the first."""

    def __init__(self, moderator: Moderator, metrics: Metrics) -> None:
        self._first = moderator
        self._metrics = metrics
        self._known: OrderedDict[str, Moderator] = OrderedDict()

    def moderator(self, choice: Choice) -> Moderator:
        """The moderator under the chosen policy; ApiError for a ladder that cannot be."""
        policy = self._policy(choice)
        if policy == self._first.guard.policy:
            return self._first
        name = policy.digest()
        if name not in self._known:
            self._known[name] = Moderator(self._first.guard.with_policy(policy), self._metrics)
        self._known.move_to_end(name)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return self._known[name]

    def _policy(self, choice: Choice) -> Policy:
        policy = self._first.guard.policy
        try:
            if choice.threshold is not None:
                policy = replace(policy, threshold=choice.threshold)
            if choice.ladder is not None:
                policy = replace(policy, ladder=tuple(choice.ladder))
        except ConfigError as error:
            raise ApiError(str(error), status=400, param="policy") from None
        return policy
