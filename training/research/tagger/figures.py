"""How often what a tagger proposes is what somebody wrote, the surest proposals first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from guardrail.rewriters.edits.ranking import letters
from guardrail.rewriters.edits.tagger import Tagger
from research.pairs.mixture import PairRow

__all__ = ["AT", "TaggerMetrics", "measure"]

AT = (50, 100, 200)


@dataclass(frozen=True, slots=True)
class TaggerMetrics:
    """``exact`` proposals have a reference's letters; ``precision`` is their share of the surest so many."""

    pairs: int
    proposed: int
    exact: int
    precision: dict[str, float]


def measure(tagger: Tagger, pairs: Sequence[PairRow]) -> TaggerMetrics:
    """The figures of the likeliest edit of each source."""
    found = []
    proposals = tagger.propose([pair.source for pair in pairs])
    for pair, edits in zip(pairs, proposals, strict=True):
        if edits:
            wanted = {letters(reference) for reference in pair.references}
            found.append((edits[0].confidence, letters(edits[0].text) in wanted))
    hits = [hit for _, hit in sorted(found, key=lambda each: -each[0])]
    precision = {f"at {count}": sum(hits[:count]) / count for count in AT if count <= len(hits)}
    return TaggerMetrics(len(pairs), len(hits), sum(hits), precision)
