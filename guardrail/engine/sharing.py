"""One model call for many askers, and a call for each where that fails."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

from guardrail.engine.calls import Calls
from guardrail.engine.portions import MAX_CHARACTERS, MAX_REWRITTEN
from guardrail.engine.steps import Detect, ModelCall, Rewrite, Verify
from guardrail.errors import DeadlineError, PluginError
from guardrail.outcome import Span

__all__ = ["answer_together", "batches", "fits", "kind_of"]

T = TypeVar("T")


def kind_of(call: ModelCall) -> object:
    """Equal for calls that one model call can answer together."""
    return type(call), getattr(call, "lexicon", None), getattr(call, "n", None)


def fits(group: Sequence[ModelCall], call: ModelCall, *, batch: int) -> bool:
    """True where one model call may answer this call too: it then stays within its texts and characters."""
    together = [text for one in (*group, call) for text in one.texts]
    limit = MAX_REWRITTEN if isinstance(call, Rewrite) else MAX_CHARACTERS
    return not group or (len(together) <= batch and sum(map(len, together)) <= limit)


def batches(asked: Iterable[tuple[T, ModelCall]], batch: int) -> Iterator[list[tuple[T, ModelCall]]]:
    """The askers in groups of one kind of call that one model call may answer."""
    kinds: dict[object, list[tuple[T, ModelCall]]] = {}
    for pair in asked:
        kinds.setdefault(kind_of(pair[1]), []).append(pair)
    for alike in kinds.values():
        group: list[tuple[T, ModelCall]] = []
        for pair in alike:
            if not fits([call for _, call in group], pair[1], batch=batch):
                yield group
                group = []
            group.append(pair)
        yield group


def answer_together(calls: Calls, pending: Sequence[ModelCall]) -> list[Any]:
    """One reply per call, by one model call for all; a PluginError stands in place of a reply.

    Where the shared call fails each gets its own, so that a bad text fails alone; but a missed deadline
    applies to all that waited for it.
    """
    try:
        reply = calls.answer(_merged(pending))
    except DeadlineError as error:
        return [error] * len(pending)
    except PluginError as error:
        return [error] if len(pending) == 1 else [answer_together(calls, [call])[0] for call in pending]
    ends = [0]
    for call in pending:
        ends.append(ends[-1] + len(call.texts))
    return [reply[start:end] for start, end in itertools.pairwise(ends)]


def _merged(pending: Sequence[ModelCall]) -> ModelCall:
    first = pending[0]
    if len(pending) == 1:
        return first
    texts = tuple(text for call in pending for text in call.texts)
    if isinstance(first, Detect):
        return Detect(texts, first.lexicon)
    if isinstance(first, Verify):
        return Verify(texts, tuple(source for call in pending for source in call.sources))  # type: ignore[union-attr]  # all are of one kind
    if isinstance(first, Rewrite):
        return Rewrite(texts, first.n, _spans(call for call in pending if isinstance(call, Rewrite)))
    return type(first)(texts)


def _spans(calls: Iterable[Rewrite]) -> tuple[tuple[Span, ...], ...]:
    """The spans of all texts of all calls."""
    return tuple(spans for call in calls for spans in (call.spans or ((),) * len(call.texts)))
