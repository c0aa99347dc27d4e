"""The one module that believes plug-ins: checks what they return, and coerces if only the form differs.

Numbers of numpy and torch, tuples, generators and arrays in place of lists, and vectors of any length are
what Python code returns, and mean one thing only. All else is a PluginError that names the plug-in, the
place in which it stands and the line to look at: nothing is guessed, because a guess may depend on what else
is in the batch.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from guardrail.errors import REWRITER_MISSING, ConfigError, ModelFileError, PluginError, debugging
from guardrail.outcome import Failure, FrozenDict, Verdict
from guardrail.protocols import Embeddings

__all__ = ["UNTOUCHED", "Plugin", "joined"]

UNTOUCHED = (ModelFileError, KeyboardInterrupt, SystemExit, GeneratorExit)
"""Exceptions that pass as they are: a model file's says what to do, the others end the program."""
CALLERS = ("guardrail.engine.contract", "guardrail.engine.deadline", "guardrail.engine.runner")
"""The modules through which a plug-in is called: no line of theirs is its author's."""
ROUNDING = 1e-3
"""By how much a score may miss 0..1: what half precision makes of a softmax."""


class Plugin:
    """One plug-in in its place (``detector``, ``rewriter``, ``verifier`` ...), as a plain function.

    ``name`` is what errors call it if the function is not its own: a shipped model is loaded behind it. By
    default it is the name of the function, or of the type that it belongs to.
    ``labels`` gives those that a detector says it scores, None if it does not say; it is asked if need be.
    ``marked`` is a rewriter's ``rewrite_marked``, if it has one.
    """

    def __init__(
        self,
        place: str,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        labels: Callable[[], Iterable[str] | None] = lambda: None,
        marked: Callable[..., Any] | None = None,
    ) -> None:
        self.place = place
        self.function = function
        self.marked = marked
        self._labels = labels
        own_name, self._module, self._line = _definition(function) if name is None else (name, None, None)
        self.name = own_name

    def failure(self, error: str) -> Failure:
        """A failure that happened nowhere in the plug-in's code: where it is defined is where to look."""
        return Failure(self.place, self.name, error, self._module, self._line)

    def failed(self, error: BaseException) -> PluginError:
        """What stands for whatever the plug-in raised: a PluginError with ``failure``.

        A rewriter that says it is missing is left as it is: that is not a bug.
        """
        if not isinstance(error, PluginError):
            return self._raised(error, kind=PluginError, reason=f"{self.place}_error")
        if error.failure is not None or error.reason == REWRITER_MISSING:
            return error
        return self._raised(error, kind=type(error), reason=error.reason)

    def verdicts(self, reply: Any, texts: Sequence[str]) -> list[Verdict]:
        """One verdict per text, checked."""
        verdicts = self._listed(reply, len(texts), "verdicts", "texts")
        return [self._verdict(verdict, text) for verdict, text in zip(verdicts, texts, strict=True)]

    def candidates(self, reply: Any, size: int, n: int) -> list[list[str]]:
        """Up to ``n`` candidates for each of ``size`` texts, checked."""
        groups = self._listed(reply, size, "lists of candidates", "segments")
        return [self._group(group, n) for group in groups]

    def vectors(self, reply: Any, size: int) -> Embeddings:
        """Shape (size, d), float32, rows of unit length; never memory that the plug-in holds too."""
        rows = self._array(reply, size)
        if not np.isfinite(rows).all():
            raise self._invalid("a value that is not finite")
        largest = np.abs(rows).max(axis=1, initial=0.0, keepdims=True)
        if not largest.all():
            raise self._invalid("a vector of zeros, which has no direction")
        rows = rows / largest  # squares of what is left neither overflow nor vanish
        unit: Embeddings = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        return unit

    def probabilities(self, reply: Any, size: int) -> list[float]:
        """One probability for each of ``size`` candidates, checked."""
        return [self._probability(one) for one in self._listed(reply, size, "probabilities", "candidates")]

    def require_labels(self, thresholds: Mapping[str, float], verdicts: Sequence[Verdict] = ()) -> bool:
        """True once it is known that the detector scores every label of ``thresholds``.

        It is known from the detector itself, else from the first verdict with scores. ConfigError for a label
        that it does not score: its threshold would never be reached.
        """
        known = frozenset(self._labels() or next((v.scores for v in verdicts if v.scores), ()))
        if not known:
            return False
        if unknown := sorted(set(thresholds) - known):
            raise ConfigError(
                f"policy thresholds name {', '.join(map(repr, unknown))}, which {self.place} {self.name} "
                f"does not score; its labels are {', '.join(sorted(known))} (a detector that leaves labels "
                "out of verdicts can say which ones it has in an attribute labels)"
            )
        return True

    def _verdict(self, verdict: object, text: str) -> Verdict:
        if not isinstance(verdict, Verdict):
            raise self._invalid(f"a {type(verdict).__name__} in place of a Verdict")
        if type(verdict) is not Verdict:
            verdict = Verdict(
                verdict.scores, verdict.flagged, verdict.spans, verdict.unsupported, verdict.presets
            )
        misses = False
        for label, score in verdict.scores.items():
            if not -ROUNDING <= score <= 1.0 + ROUNDING:  # written so that NaN is refused
                raise self._invalid(f"score {score} for {label!r}, outside 0..1")
            misses |= not 0.0 <= score <= 1.0
        for span in verdict.spans:
            if not 0 <= span.start < span.end <= len(text):
                raise self._invalid(f"a span outside its text of {len(text)} characters")
        if misses:
            scores = {label: min(max(score, 0.0), 1.0) for label, score in verdict.scores.items()}
            return replace(verdict, scores=FrozenDict(scores))
        return verdict

    def _probability(self, reply: Any) -> float:
        try:
            probability = float(_dense(reply))
        except (TypeError, ValueError, RuntimeError):
            raise self._invalid(f"a {type(reply).__name__} in place of a probability") from None
        if isinstance(reply, str) or not -ROUNDING <= probability <= 1.0 + ROUNDING:  # so that NaN is refused
            raise self._invalid("a probability outside 0..1")
        return min(max(probability, 0.0), 1.0)

    def _group(self, group: Any, n: int) -> list[str]:
        candidates = list(islice(self._ordered(group, "a list of candidates"), n))
        for candidate in candidates:
            if not isinstance(candidate, str):
                raise self._invalid(f"a {type(candidate).__name__} in place of a candidate, which is a str")
        return [str.__str__(candidate) for candidate in candidates]  # a subclass may join in ways of its own

    def _listed(self, reply: Any, size: int, things: str, of: str) -> list[Any]:
        """The reply's elements, as many as there are texts; no more than one too many is ever taken."""
        elements = list(islice(self._ordered(reply, f"a list of {things}"), size + 1))
        if len(elements) != size:
            number = f"more than {size}" if len(elements) > size else str(len(elements))
            raise self._invalid(f"{number} {things} for {size} {of}")
        return elements

    def _ordered(self, reply: Any, expected: str) -> Iterator[Any]:
        if type(reply) is list:  # nearly every reply
            return iter(reply)
        if inspect.iscoroutine(reply):
            reply.close()
        try:
            if not isinstance(reply, (str, bytes, Mapping, Set)):  # these have no order that means anything
                return iter(reply)
        except TypeError:
            pass
        advice = "; plug-ins are plain functions, not async ones" if inspect.isawaitable(reply) else ""
        raise self._invalid(f"a {type(reply).__name__} in place of {expected}{advice}")

    def _array(self, reply: Any, size: int) -> Any:
        """The reply as floats of shape (size, d)."""
        if not hasattr(reply, "__array__") and not hasattr(reply, "toarray"):
            reply = [_dense(row) for row in self._listed(reply, size, "vectors", "texts")]
        try:
            array = np.asarray(_dense(reply))
        except (TypeError, ValueError, RuntimeError):  # rows of different lengths, tensors of another device
            raise self._invalid("something that is not an array of numbers") from None
        if array.dtype.kind not in "fiu":
            raise self._invalid(f"an array of {array.dtype}, not of numbers")
        if not size and not array.size:
            return np.zeros((0, array.shape[-1]), np.float64)
        if array.ndim != 2 or len(array) != size:
            raise self._invalid(f"shape {array.shape} for {size} texts, expected ({size}, d)")
        return np.ascontiguousarray(array, dtype=np.float64)

    def _raised(self, error: BaseException, *, kind: type[PluginError], reason: str) -> PluginError:
        """What stands for an exception of the plug-in, whose own message may quote the text."""
        failure = self._failure_of(error)
        raised = kind(
            f"{self.place} {self.name} raised {failure.error}{failure.where}; "
            "GUARDRAIL_DEBUG=1 chains it, message and all",
            reason=reason,
            original=error,
            failure=failure,
        )
        if debugging():
            raised.__cause__ = error
        return raised

    def _invalid(self, problem: str) -> PluginError:
        return PluginError(
            f"{self.place} {self.name} returned {problem}",
            reason=f"{self.place}_invalid",
            failure=self.failure("PluginError"),
        )

    def _failure_of(self, error: BaseException) -> Failure:
        """Where the plug-in raised it: the innermost line of its own module, else of any that it called."""
        failure = self.failure(type(error).__name__)
        innermost: tuple[str, int] | None = None
        trace = error.__traceback__
        while trace is not None:
            module = trace.tb_frame.f_globals.get("__name__", "")
            outside = module not in CALLERS and (innermost is None or innermost[0] != failure.module)
            if outside or module == failure.module:
                innermost = module, trace.tb_lineno
            trace = trace.tb_next
        return failure if innermost is None else replace(failure, module=innermost[0], line=innermost[1])


def _dense(value: Any) -> Any:
    """A tensor or sparse matrix as what numpy reads."""
    if hasattr(value, "detach"):
        return value.detach().cpu().double()
    return value.toarray() if hasattr(value, "toarray") else value


def _definition(function: Any) -> tuple[str, str | None, int | None]:
    """A plug-in's name, and the module and line where it is defined, as far as they are known."""
    while isinstance(function, functools.partial):
        function = function.func
    owner = type(function.__self__) if inspect.ismethod(function) else function
    if not hasattr(owner, "__qualname__"):
        owner, function = type(function), type(function).__call__
    code = getattr(function, "__code__", None)
    return f"{owner.__module__}.{owner.__qualname__}", owner.__module__, code and code.co_firstlineno


def joined(parts: Sequence[Embeddings], by: Plugin) -> Embeddings:
    """Embeddings of several calls as one array; PluginError if their lengths differ from call to call."""
    widths = sorted({part.shape[1] for part in parts})
    if len(widths) > 1:
        raise by._invalid(f"vectors of {widths[0]} numbers in one call and of {widths[-1]} in another")
    return np.concatenate(parts)
