"""Calls plug-ins under deadlines, has their replies checked, and tells their authors once what goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from guardrail.engine.contract import Plugin
from guardrail.engine.deadline import Deadline
from guardrail.engine.steps import Detect, ModelCall, Rewrite, Verify
from guardrail.errors import DeadlineError, PluginError
from guardrail.events import Told
from guardrail.policy import Policy

__all__ = ["Calls", "Models"]


@dataclass(frozen=True, slots=True)
class Models:
    """The plug-ins of one guard; each takes a batch and returns one of equal length.

    ``open_rewriter`` is called before each ``rewrite`` and outside its deadline: loading takes as long
    as it takes. It may raise PluginError(reason="rewriter_missing"), which takes the flow to the next rung.
    """

    detect: Plugin
    lexicon: Plugin
    rewrite: Plugin
    embed: Plugin
    verify: Plugin
    open_rewriter: Callable[[], object] | None = None


class Calls:
    """Answers a flow's model calls under the deadlines of a policy.

    ``told`` are the failures that were logged already. Raises ConfigError where the detector says that it
    does not score a label of the policy's thresholds.
    """

    def __init__(self, models: Models, policy: Policy, *, told: Told | None = None) -> None:
        self.models = models
        self.told = told or Told()
        self.is_open = models.open_rewriter is None
        self._thresholds = policy.thresholds
        self._labels_known = not policy.thresholds or models.detect.require_labels(policy.thresholds)
        self._detector = _deadline(policy.detect_timeout, models.detect)
        self._embedder = _deadline(policy.detect_timeout, models.embed)
        self._rewriter = _deadline(policy.rewrite_timeout, models.rewrite)
        self._verifier = _deadline(policy.detect_timeout, models.verify)

    def open(self) -> None:
        """Loads the rewriter, however long that takes; PluginError where it cannot run."""
        if self.models.open_rewriter is not None:
            self._asked(self.models.rewrite, self.models.open_rewriter)
        self.is_open = True

    def plugin(self, call: ModelCall) -> Plugin:
        """Whom this call asks."""
        if isinstance(call, Detect):
            return self.models.lexicon if call.lexicon else self.models.detect
        if isinstance(call, Verify):
            return self.models.verify
        return self.models.rewrite if isinstance(call, Rewrite) else self.models.embed

    def deadline(self, call: ModelCall) -> Deadline | None:
        """What bounds this call; the word list is pure and quick: it needs no deadline."""
        if isinstance(call, Detect):
            return None if call.lexicon else self._detector
        if isinstance(call, Verify):
            return self._verifier
        return self._rewriter if isinstance(call, Rewrite) else self._embedder

    def wait_until_ready(self, call: ModelCall) -> None:
        """Waits until this call would be made, where an open circuit will try one."""
        if (deadline := self.deadline(call)) is not None:
            deadline.wait_until_ready()

    def answer(self, call: ModelCall) -> Any:
        """The reply to a step; PluginError for any failure of the plug-in, DeadlineError for a late one.

        ConfigError where a verdict shows that the detector does not score a label of the thresholds.
        """
        plugin, deadline = self.plugin(call), self.deadline(call)
        if isinstance(call, Detect):
            ask: Callable[[], Any] = partial(plugin.verdicts, call.texts)
        elif isinstance(call, Rewrite):
            self.open()
            ask = partial(plugin.candidates, call.texts, call.n, spans=call.spans)
        elif isinstance(call, Verify):
            ask = partial(plugin.probabilities, call.sources, call.texts)
        else:
            ask = partial(plugin.vectors, call.texts)
        # What a plug-in yields bit by bit is read under its deadline too.
        reply = self._asked(plugin, ask if deadline is None else partial(deadline.run, ask))
        if not self._labels_known and plugin is self.models.detect:
            self._labels_known = plugin.require_labels(self._thresholds, reply)
        return reply

    def _asked(self, plugin: Plugin, ask: Callable[[], Any]) -> Any:
        try:
            return plugin.asked(ask)
        except PluginError as error:
            self.told.failed(error)
            raise


def _deadline(seconds: float | None, plugin: Plugin) -> Deadline:
    return Deadline(seconds, name=plugin.place, failure=plugin.failure(DeadlineError.__name__))
