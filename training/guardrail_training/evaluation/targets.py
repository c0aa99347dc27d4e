"""How many of your own targets the guard's checks would refuse, which, and why: ``guardrail-train targets``.

A target that the guard would refuse teaches the adapter to write what is never released. The checks are
those of every rewrite: detector and word list on the target, closeness of meaning, what must stay or not
appear. What a rewriter's likelihood and the verifier decide is not among them: both need a rewriter's output.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from guardrail import Guard, Policy, Verdict
from guardrail.detectors.lexicon import Lexicon
from guardrail.text.checks import Proposal, failed
from guardrail_training.data import SourceRow

__all__ = ["CheckedTargets", "Refusal", "check_targets"]

PORTION = 64
WHY: Mapping[str, str] = {
    "toxic": "the detector still flags it",
    "lexicon": "a word of the word list is in it",
    "meaning": "its meaning is too far from the source",
    "length": "it is much longer or shorter than the source",
    "negation": "it lost or gained a negation",
    "opposite": "it says the opposite",
    "content": "too little of the source is left",
    "invention": "it says what the source does not",
    "name": "a name is in it that the source does not have",
    "number": "a number was lost, gained or changed",
    "copy": "it is the source",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A target that was refused: its row, the checks that failed, and both texts."""

    row: int
    checks: tuple[str, ...]
    source: str = field(repr=False)
    target: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class CheckedTargets:
    """All targets: how many there were, those refused, and of how many rows the source is not flagged."""

    targets: int
    rows: int
    unflagged: int
    refused: tuple[Refusal, ...]

    @property
    def by_check(self) -> Counter[str]:
        """How often each check refused; a target may fail several."""
        return Counter(name for each in self.refused for name in each.checks)

    def __str__(self) -> str:
        share = len(self.refused) / self.targets
        lines = [f"{len(self.refused)} of {self.targets} targets would be refused ({share:.1%})"]
        for name, count in self.by_check.most_common():
            rows = [str(each.row) for each in self.refused if name in each.checks]
            shown = ", ".join(rows[:5]) + (", ..." if len(rows) > 5 else "")
            lines.append(f"  {name} {count}: {WHY.get(name, 'the check of that name')}; rows {shown}")
        if self.unflagged:
            lines.append(
                f"{self.unflagged} of {self.rows} sources are not flagged: a guard never asks to rewrite them"
            )
        return "\n".join(lines)


def check_targets(
    rows: Sequence[SourceRow], *, guard: Guard | None = None, policy: Policy | None = None
) -> CheckedTargets:
    """Reads every source and target once and applies the checks of the guard's policy."""
    guard = guard or Guard(rewriter=None)
    policy = policy or guard.policy
    texts = sorted({text for row in rows for text in (row.source, *row.references)}, key=len)
    verdicts: dict[str, Verdict] = {}
    vectors: dict[str, Any] = {}
    listed: dict[str, bool] = {}
    lexicon = Lexicon.shipped()
    for start in range(0, len(texts), PORTION):
        part = texts[start : start + PORTION]
        verdicts |= dict(zip(part, guard.detect(part), strict=True))
        vectors |= dict(zip(part, guard.embed(part), strict=True))
        listed |= {text: found.flagged for text, found in zip(part, lexicon.detect(part), strict=True)}
    refused = []
    for row in rows:
        for target in row.references:
            proposal = Proposal(
                source=row.source,
                candidate=target,
                spans=verdicts[row.source].spans,
                similarity=float(vectors[row.source] @ vectors[target]),
                flagged=verdicts[target].flagged,
                listed=listed[target],
            )
            if names := failed(proposal, policy):
                refused.append(Refusal(row.number, tuple(names), row.source, target))
    return CheckedTargets(
        targets=sum(len(row.references) for row in rows),
        rows=len(rows),
        unflagged=sum(not verdicts[row.source].flagged for row in rows),
        refused=tuple(refused),
    )
