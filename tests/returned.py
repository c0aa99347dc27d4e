"""What Python people really return from plug-ins: strategies of disguises for what a fake returns.

A disguise takes an honest reply. Those of ``same`` mean what the reply means and must change nothing; those
of ``wrong`` break the contract, some of them by raising, and must be told of as the plug-in's failure.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from guardrail import Span, Verdict

__all__ = ["PLACES", "SAME_VECTORS", "WRONG_VECTORS", "disguised", "same", "wrong"]

Disguise = Callable[[Any], Any]
PLACES = ("detector", "lexicon", "rewriter", "embedder")
ERRORS = (
    ValueError("canary"),
    KeyError("canary"),
    StopIteration("canary"),
    AssertionError("canary"),
    RecursionError("canary"),
    asyncio.CancelledError("canary"),
)
NUMBERS: tuple[Callable[[float], Any], ...] = (
    float,
    np.float32,
    np.float64,
    np.array,
    lambda x: np.array([x]),
    torch.tensor,
    lambda x: torch.tensor([x], requires_grad=True),
    lambda x: torch.tensor(x, dtype=torch.bfloat16),
)
TRUTHS: tuple[Callable[[bool], Any], ...] = (bool, int, float, np.bool_, np.int64, np.array, torch.tensor)
INTEGERS: tuple[Callable[[int], Any], ...] = (int, np.int32, np.int64, torch.tensor)
LISTS: tuple[Disguise, ...] = (
    list,
    tuple,
    iter,
    deque,
    lambda reply: (one for one in reply),
    lambda reply: filter(lambda one: True, reply),
    lambda reply: dict(enumerate(reply)).values(),
)
NO_LISTS: tuple[Disguise, ...] = (
    lambda reply: None,
    lambda reply: 0.9,
    lambda reply: True,
    lambda reply: "canary",
    lambda reply: b"canary",
    lambda reply: {},
    lambda reply: object(),
    lambda reply: dict(enumerate(reply)),
    lambda reply: set(range(len(reply))),
    lambda reply: _coroutine(),
    lambda reply: [],
    lambda reply: [*reply, *reply],
    lambda reply: [reply],
    lambda reply: itertools.repeat(reply[0]),
    lambda reply: _breaks_midway(),
)


async def _coroutine() -> None:
    """What a plug-in that is an async function returns."""


def _breaks_midway() -> Iterator[Any]:
    yield Verdict({"toxicity": 0.0}, flagged=False)
    raise ValueError("canary")


def _raises(error: BaseException) -> Disguise:
    def disguise(reply: Any) -> Any:
        raise type(error)(*error.args)

    return disguise


class Markup(str):
    """A str that joins in a way of its own."""

    __slots__ = ()

    def __add__(self, other: str) -> str:
        return "canary"

    __radd__ = __add__

    def __str__(self) -> str:
        return "canary"


@st.composite
def _same_verdicts(draw: st.DrawFn) -> Disguise:
    number, truth = draw(st.sampled_from(NUMBERS)), draw(st.sampled_from(TRUTHS))
    integer, pairs = draw(st.sampled_from(INTEGERS)), draw(st.booleans())
    listed = draw(st.sampled_from((*LISTS, lambda reply: np.array(reply, dtype=object))))

    def span(span: Span) -> Any:
        start, end = integer(span.start), integer(span.end)
        return [start, end] if pairs else Span(start, end)

    def verdict(verdict: Verdict) -> Verdict:
        scores = {np.str_(label): number(score) for label, score in verdict.scores.items()}
        return Verdict(scores, truth(verdict.flagged), map(span, verdict.spans), truth(False))  # type: ignore[arg-type]  # as people do

    return lambda reply: listed([verdict(one) for one in reply])


def _wrong_verdict(one: Verdict) -> list[Callable[[], Any]]:
    """Ways to make something that is no verdict out of one, or to fail at it."""
    scores = dict(one.scores)
    low = {"toxicity": float("nan")}
    as_people_do: Any = Verdict
    return [
        lambda: None,
        lambda: 0.9,
        lambda: "canary",
        lambda: (scores, one.flagged),
        lambda: {"scores": scores, "flagged": one.flagged},
        lambda: Verdict(low, flagged=False),
        lambda: Verdict({"toxicity": float("inf")}, flagged=False),
        lambda: Verdict({"toxicity": 1.5}, flagged=False),
        lambda: Verdict({"toxicity": -0.5}, flagged=False),
        lambda: Verdict(scores, one.flagged, (Span(0, 10_000),)),
        lambda: Verdict(scores, one.flagged, (Span(3, 3),)),
        lambda: as_people_do(scores, None),
        lambda: as_people_do(scores, "False"),
        lambda: as_people_do(scores, float("nan")),
        lambda: as_people_do(scores, np.array([True, False])),
        lambda: as_people_do(None, one.flagged),
        lambda: as_people_do({"toxicity": "0.9"}, one.flagged),
        lambda: as_people_do({"toxicity": None}, one.flagged),
        lambda: as_people_do({0: 0.9}, one.flagged),
        lambda: as_people_do({"toxicity": np.array([0.1, 0.2])}, one.flagged),
        lambda: as_people_do(scores, one.flagged, 3),
        lambda: as_people_do(scores, one.flagged, [(0.5, 1.5)]),
    ]


@st.composite
def _wrong_verdicts(draw: st.DrawFn) -> Disguise:
    how = draw(st.integers(0, len(_wrong_verdict(Verdict({}, flagged=False))) - 1))
    return lambda reply: [*reply[:-1], _wrong_verdict(reply[-1])[how]()]


def _each(change: Callable[[str], Any], group: Disguise = list) -> Disguise:
    return lambda reply: [group([change(candidate) for candidate in one]) for one in reply]


SAME_CANDIDATES: tuple[Disguise, ...] = (
    *LISTS,
    *(_each(str, group) for group in LISTS),
    _each(str, np.array),
    _each(np.str_),
    _each(Markup),
    lambda reply: [itertools.chain(one, itertools.repeat("One more.")) for one in reply],
    lambda reply: np.array(reply, dtype=object),
)
WRONG_CANDIDATES: tuple[Disguise, ...] = (
    *NO_LISTS[:-1],
    lambda reply: [one[0] for one in reply],
    lambda reply: [None for _ in reply],
    lambda reply: [set(one) for one in reply],
    lambda reply: [dict.fromkeys(one) for one in reply],
    _each(lambda candidate: None),
    _each(str.encode),
    _each(lambda candidate: [candidate]),
    _each(lambda candidate: (candidate, 0.9)),
    _each(lambda candidate: {"text": candidate}),
)


class Sparse:
    """Most of its numbers are zero, so that it keeps the others alone."""

    def __init__(self, rows: Any) -> None:
        self.shape = rows.shape
        self._rows = rows

    def toarray(self) -> Any:
        """All of its numbers."""
        return self._rows


_buffer = np.zeros((1000, 64))


def _reused(reply: Any) -> Any:
    """Rows of one array that every call writes to."""
    rows = _buffer[: len(reply)]
    rows[:] = reply
    return rows


SAME_VECTORS: tuple[Disguise, ...] = (
    *LISTS,
    lambda reply: reply.tolist(),
    lambda reply: reply.astype(np.float64),
    lambda reply: reply.astype(np.float16),
    lambda reply: np.asfortranarray(reply),
    lambda reply: 3 * reply,
    lambda reply: 0.3 * reply,
    lambda reply: 1e-200 * reply.astype(np.float64),
    lambda reply: 1e200 * reply.astype(np.float64),
    lambda reply: reply * np.arange(1, len(reply) + 1)[:, None],
    lambda reply: torch.tensor(reply),
    lambda reply: torch.tensor(reply, requires_grad=True),
    lambda reply: [torch.tensor(row, requires_grad=True) for row in reply],
    lambda reply: torch.tensor(reply, dtype=torch.bfloat16),
    _reused,
    Sparse,
    lambda reply: [Sparse(row) for row in reply],
)
WRONG_VECTORS: tuple[Disguise, ...] = (
    *NO_LISTS[:-1],
    lambda reply: reply[0],
    lambda reply: reply[:-1],
    lambda reply: reply[:, :, None],
    lambda reply: reply * np.nan,
    lambda reply: np.where(reply > 0, np.inf, 0),
    lambda reply: 0 * reply,
    lambda reply: reply[:, :0],
    lambda reply: reply.astype(str),
    lambda reply: reply.astype(object),
    lambda reply: reply + 1j,
    lambda reply: reply > 0,
    lambda reply: [row[: i + 1] for i, row in enumerate(reply)],
    lambda reply: [None for _ in reply],
    lambda reply: ["canary" for _ in reply],
)


def same(place: str) -> st.SearchStrategy[Disguise]:
    """Disguises under which a plug-in in this place still says the same."""
    if place == "rewriter":
        return st.sampled_from(SAME_CANDIDATES)
    return st.sampled_from(SAME_VECTORS) if place == "embedder" else _same_verdicts()


def wrong(place: str) -> st.SearchStrategy[Disguise]:
    """Disguises that break the contract of a plug-in in this place."""
    raised = st.sampled_from(ERRORS).map(_raises)
    if place == "rewriter":
        return raised | st.sampled_from(WRONG_CANDIDATES)
    if place == "embedder":
        return raised | st.sampled_from(WRONG_VECTORS)
    return raised | st.sampled_from(NO_LISTS) | _wrong_verdicts()


def disguised(method: Callable[..., Any], disguise: Disguise) -> Callable[..., Any]:
    """The method of a fake, whose replies wear a disguise."""

    def plugin(texts: Sequence[str], *rest: int) -> Any:
        return disguise(method(texts, *rest))

    return plugin
