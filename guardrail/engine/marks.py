"""Asks the rewriter for candidates, and tells it which characters are toxic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from guardrail.engine.record import Case
from guardrail.engine.scoring import detect
from guardrail.engine.steps import Rewrite, Steps
from guardrail.outcome import Span
from guardrail.policy import Policy

__all__ = ["candidates"]


def candidates(policy: Policy, cases: Sequence[Case], *, n: int) -> Steps[list[list[str]]]:
    """Up to ``n`` candidates for each case, with the spans of its verdict and those of the word list."""
    bodies = tuple(case.body for case in cases)
    listed = yield from detect(policy, bodies, lexicon=True)
    spans = tuple(
        tuple(_merged([*case.verdict.spans, *words.spans])) for case, words in zip(cases, listed, strict=True)
    )
    proposed: list[list[str]] = yield Rewrite(bodies, n, spans)
    return proposed


def _merged(spans: Iterable[Span]) -> Iterator[Span]:
    """The same characters in disjoint spans, in order."""
    current: Span | None = None
    for span in sorted(spans, key=lambda span: (span.start, span.end)):
        if current is not None and span.start <= current.end:
            current = Span(current.start, max(current.end, span.end))
            continue
        if current is not None:
            yield current
        current = span
    if current is not None:
        yield current
