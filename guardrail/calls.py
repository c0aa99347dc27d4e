"""Calls plug-ins, checks what they return, and turns whatever goes wrong into one kind of error."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from guardrail.deadline import Deadline
from guardrail.errors import ModelFileError, PluginError
from guardrail.flow.steps import Detect, ModelCall, Rewrite
from guardrail.outcome import Verdict
from guardrail.policy import Policy
from guardrail.protocols import Embeddings

__all__ = ["Calls", "Models"]


@dataclass(frozen=True, slots=True)
class Models:
    """The plug-ins of one guard, as plain functions; each takes a batch and returns one of equal length.

    ``open_rewriter`` is called before each ``rewrite`` and outside its deadline: loading takes as long
    as it takes. It may raise PluginError(reason="rewriter_missing"), which takes the flow to the next rung.
    """

    detect: Callable[[Sequence[str]], Sequence[Verdict]]
    lexicon: Callable[[Sequence[str]], Sequence[Verdict]]
    rewrite: Callable[[Sequence[str], int], Sequence[Sequence[str]]]
    embed: Callable[[Sequence[str]], Any]
    open_rewriter: Callable[[], object] | None = None


class Calls:
    """Answers a flow's model calls under the deadlines of a policy."""

    def __init__(self, models: Models, policy: Policy) -> None:
        self.models = models
        self.is_open = models.open_rewriter is None
        self._detector = Deadline(policy.detect_timeout, name="detector")
        self._embedder = Deadline(policy.detect_timeout, name="embedder")
        self._rewriter = Deadline(policy.rewrite_timeout, name="rewriter")

    def open(self) -> None:
        """Loads the rewriter, however long that takes; PluginError where it cannot run."""
        if self.models.open_rewriter is not None:
            _guarded("rewriter", self.models.open_rewriter)
        self.is_open = True

    def deadline(self, call: ModelCall) -> Deadline | None:
        """What bounds this call; the word list is pure and quick: it needs no deadline."""
        if isinstance(call, Detect):
            return None if call.lexicon else self._detector
        return self._rewriter if isinstance(call, Rewrite) else self._embedder

    def answer(self, call: ModelCall) -> Any:
        """The reply to a step; PluginError for any failure of the plug-in, DeadlineError for a late one."""
        if isinstance(call, Detect):
            if call.lexicon:
                return _guarded("lexicon", lambda: _verdicts(self.models.lexicon(call.texts), call.texts))
            run = self._detector.run
            return _guarded(
                "detector", lambda: _verdicts(run(lambda: self.models.detect(call.texts)), call.texts)
            )
        if isinstance(call, Rewrite):
            texts, n = call.texts, call.n
            self.open()
            return _guarded(
                "rewriter",
                lambda: _candidates(self._rewriter.run(lambda: self.models.rewrite(texts, n)), texts, n),
            )
        return _guarded(
            "embedder",
            lambda: _vectors(self._embedder.run(lambda: self.models.embed(call.texts)), call.texts),
        )


def _guarded(name: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (PluginError, ModelFileError):
        raise
    except Exception as error:  # noqa: BLE001  # any failure of a plug-in becomes one kind
        # The plug-in's own message may quote the text, so only its type is passed on.
        failure = PluginError(f"{name} raised {type(error).__name__}", reason=f"{name}_error", original=error)
    raise failure


def _invalid(name: str, problem: str) -> PluginError:
    return PluginError(f"{name} returned {problem}", reason=f"{name}_invalid")


def _verdicts(reply: Any, texts: Sequence[str]) -> list[Verdict]:
    verdicts = list(reply)
    if len(verdicts) != len(texts):
        raise _invalid("detector", f"{len(verdicts)} verdicts for {len(texts)} texts")
    for verdict, text in zip(verdicts, texts, strict=True):
        if not isinstance(verdict, Verdict):
            raise _invalid("detector", f"a {type(verdict).__name__} in place of a Verdict")
        for label, score in verdict.scores.items():
            if not (math.isfinite(score) and 0.0 <= score <= 1.0):
                raise _invalid("detector", f"score {score} for {label!r}, outside 0..1")
        if any(not 0 <= span.start < span.end <= len(text) for span in verdict.spans):
            raise _invalid("detector", f"a span outside its text of {len(text)} characters")
    return verdicts


def _candidates(reply: Any, texts: Sequence[str], n: int) -> list[list[str]]:
    groups = [list(group) for group in reply]
    if len(groups) != len(texts):
        raise _invalid("rewriter", f"{len(groups)} lists of candidates for {len(texts)} segments")
    if any(not isinstance(candidate, str) for group in groups for candidate in group):
        raise _invalid("rewriter", "a candidate that is not a str")
    return [group[:n] for group in groups]


def _vectors(reply: Any, texts: Sequence[str]) -> Embeddings:
    vectors: Embeddings = np.asarray(reply, dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(texts):
        raise _invalid(
            "embedder", f"shape {vectors.shape} for {len(texts)} texts, expected ({len(texts)}, d)"
        )
    if not np.isfinite(vectors).all():
        raise _invalid("embedder", "a value that is not finite")
    return vectors
