"""Model calls of bounded size: a deadline holds for a call, so a call must not grow with what is asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from guardrail.outcome import Span, Verdict
from guardrail.text.boundaries import last_resort

__all__ = ["MAX_CHARACTERS", "MAX_REWRITTEN", "Piece", "merged", "pieces", "portions", "united"]

MAX_CHARACTERS = 8192
"""Characters per call of a detector or embedder: under a second of processor time with the shipped one."""
MAX_REWRITTEN = 2048
"""Characters per call of a rewriter."""
OVERLAP = 256
"""Characters that two pieces of one text share, so that what stands at the cut is read as a whole."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text that is too long for one call; ``start`` is its offset in the text."""

    start: int
    text: str


def portions(texts: Iterable[str], *, batch: int, characters: int = MAX_CHARACTERS) -> Iterator[list[str]]:
    """The texts in order, in groups for one call each; a text that is longer than a call stands alone."""
    portion: list[str] = []
    size = 0
    for text in texts:
        if portion and (len(portion) == batch or size + len(text) > characters):
            yield portion
            portion, size = [], 0
        portion.append(text)
        size += len(text)
    if portion:
        yield portion


def pieces(text: str) -> list[Piece]:
    """Pieces that fit one call each and overlap, cut at white space if there is some."""
    earlier = []
    start = 0
    while len(text) - start > MAX_CHARACTERS:
        cut = last_resort(text, start, start + MAX_CHARACTERS)
        earlier.append(Piece(start, text[start:cut]))
        blank = next((i for i in range(cut - OVERLAP, cut) if text[i].isspace()), cut - OVERLAP)
        start = blank
    return [*earlier, Piece(start, text[start:])]


def merged(parts: Sequence[tuple[Piece, Verdict]]) -> Verdict:
    """The verdict of a text whose pieces were judged apart: its highest scores, and all spans."""
    if len(parts) == 1:
        return parts[0][1]
    verdicts = [verdict for _, verdict in parts]
    scores: dict[str, float] = {}
    for verdict in verdicts:
        for label, score in verdict.scores.items():
            scores[label] = max(score, scores.get(label, 0.0))
    presets: dict[str, bool] = {}
    for verdict in verdicts:
        for name, is_flagged in verdict.presets.items():
            presets[name] = is_flagged or presets.get(name, False)
    spans = (span.shifted(piece.start) for piece, verdict in parts for span in verdict.spans)
    unread = sum(len(piece.text) for piece, verdict in parts if verdict.unsupported)
    return Verdict(
        scores=scores,
        flagged=any(verdict.flagged for verdict in verdicts),
        spans=tuple(united(spans)),
        unsupported=2 * unread > sum(len(piece.text) for piece, _ in parts),
        presets=presets,
        clear=all(verdict.clear for verdict in verdicts),
    )


def united(spans: Iterable[Span], *, touching: bool = False) -> Iterator[Span]:
    """The same characters in disjoint spans, in order; ``touching`` ones are one span, too."""
    current: Span | None = None
    for span in sorted(spans, key=lambda span: (span.start, span.end)):
        if current is not None and span.start < current.end + touching:
            current = Span(current.start, max(current.end, span.end))
            continue
        if current is not None:
            yield current
        current = span
    if current is not None:
        yield current
