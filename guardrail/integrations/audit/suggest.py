"""Thresholds that people's reviews speak for, with the false alarms and misses to expect of them.

What a reviewer accepted or corrected was rightly flagged, what one rejected is a false alarm. An intervention
counts for the label with its highest score. Intervals are Wilson's at 95 % (Wilson, 1927, JASA 22:209).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import select

from guardrail.audit.database import Database
from guardrail.audit.schema import interventions
from guardrail.errors import UsageError
from guardrail.integrations.audit.query import LAST_REVIEWS

__all__ = ["Reviewed", "Share", "Suggestion", "Suggestions", "described", "suggested", "wanted_precision"]

NORMAL = 1.959964
"""The standard normal's 97.5 % quantile."""
MIN_FLAGGED = 10
"""A share of fewer flagged texts than this says too little to choose a threshold by it."""
STEPS = 1000
"""Thresholds have three decimals."""


@dataclass(frozen=True, slots=True)
class Reviewed:
    """The scores of an intervention, and whether a person says that it was rightly flagged."""

    scores: dict[str, float]
    is_right: bool

    @property
    def label(self) -> str:
        """The label with the highest score."""
        return max(self.scores, key=self.scores.__getitem__)

    @property
    def score(self) -> float:
        return max(self.scores.values())


@dataclass(frozen=True, slots=True)
class Share:
    """``count`` of ``total``, and between what the true share lies with 95 % confidence."""

    count: int
    total: int
    share: float
    low: float
    high: float

    @classmethod
    def of(cls, count: int, total: int) -> Share:
        """The share with its interval; 0 to 1 for nothing of nothing."""
        if total == 0:
            return cls(0, 0, 0.0, 0.0, 1.0)
        share, z = count / total, NORMAL**2 / total
        centre = (share + z / 2) / (1 + z)
        half = math.sqrt(z * (share * (1 - share) + z / 4)) / (1 + z)
        return cls(count, total, share, max(0.0, centre - half), min(1.0, centre + half))


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A threshold; ``label`` is None for one that holds for all labels, or for all thresholds together.

    ``threshold`` is None if no threshold has the wanted precision, or for all together. ``false_alarms`` is a
    share of the texts that would be flagged, ``missed`` one of those that are rightly flagged.
    """

    label: str | None
    threshold: float | None
    reviews: int
    false_alarms: Share
    missed: Share


@dataclass(frozen=True, slots=True)
class Suggestions:
    """What the reviews of one detector's verdicts speak for.

    ``others`` counts reviews of another detector's verdicts, whose scores cannot be compared.
    """

    precision: float
    detector: str
    reviews: int
    rightly_flagged: int
    others: int
    overall: Suggestion
    labels: tuple[Suggestion, ...]
    too_few: dict[str, int]
    together: Suggestion

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def thresholds(self) -> dict[str, float]:
        """By label, for those that have one of their own."""
        return {str(one.label): one.threshold for one in self.labels if one.threshold is not None}


def wanted_precision(precision: float | None, *, false_alarms: float | None) -> float:
    """The precision that is asked for in one of two ways; UsageError for both, or for none that can be."""
    if precision is not None and false_alarms is not None:
        raise UsageError("name --precision or --false-alarms, not both: the one is 1 minus the other")
    wanted = 1 - false_alarms if false_alarms is not None else 0.9 if precision is None else precision
    if not 0 < wanted <= 1:
        raise UsageError(
            f"the precision must be more than 0 and at most 1, got {wanted:g} (--false-alarms is 1 minus it)"
        )
    return wanted


def suggested(database: Database, *, precision: float, min_reviews: int = 30) -> Suggestions:
    """Thresholds with at least this precision and the fewest misses; UsageError if there is none."""
    by_detector = _reviewed(database)
    detector, reviewed = next(iter(by_detector.items()), ("", []))
    if len(reviewed) < min_reviews:
        raise UsageError(
            f"the audit has {len(reviewed)} reviewed interventions of its latest detector, and a threshold "
            f"needs {min_reviews}: accept, correct or reject more of them at /audit"
        )
    overall = _best(reviewed, lambda one: one.score, precision)
    if overall.threshold is None:
        raise UsageError(
            f"no threshold has a precision of {precision:g} among the reviews: all that was flagged has "
            f"{1 - overall.false_alarms.share:.2f}; ask for less, or review more at /audit"
        )
    labels = sorted({one.label for one in reviewed})
    groups = {label: [one for one in reviewed if one.label == label] for label in labels}
    enough = {label: group for label, group in groups.items() if len(group) >= min_reviews}
    found = tuple(
        _best(group, lambda one: one.score, precision, label=label) for label, group in enough.items()
    )
    limits = {str(one.label): one.threshold for one in found if one.threshold is not None}
    fallback = overall.threshold

    def is_flagged(one: Reviewed) -> bool:
        return any(score >= limits.get(label, fallback) for label, score in one.scores.items())

    return Suggestions(
        precision=precision,
        detector=detector,
        reviews=len(reviewed),
        rightly_flagged=sum(one.is_right for one in reviewed),
        others=sum(map(len, by_detector.values())) - len(reviewed),
        overall=overall,
        labels=found,
        too_few={label: len(group) for label, group in groups.items() if label not in enough},
        together=_expected(reviewed, [one for one in reviewed if is_flagged(one)]),
    )


def _reviewed(database: Database) -> dict[str, list[Reviewed]]:
    """Reviewed interventions by detector, that of the newest first."""
    last, table = LAST_REVIEWS, interventions.c
    wanted = (
        select(table.detector, table.scores, last.c.decision)
        .join(last, last.c.intervention == table.id)
        .where(table.kind == "edit")
        .order_by(table.id.desc())
    )
    found: dict[str, list[Reviewed]] = {}
    with database.transaction() as connection:
        for row in connection.execute(wanted):
            if row.scores:  # one that failed has none
                found.setdefault(row.detector, []).append(Reviewed(row.scores, row.decision != "rejected"))
    return found


def _best(
    reviewed: Sequence[Reviewed],
    score: Callable[[Reviewed], float],
    precision: float,
    *,
    label: str | None = None,
) -> Suggestion:
    """The lowest threshold with at least this precision: of all such it misses the least."""
    for step in sorted({math.floor(score(one) * STEPS) for one in reviewed}):
        threshold = step / STEPS
        flagged = [one for one in reviewed if score(one) >= threshold]
        if len(flagged) < MIN_FLAGGED:
            break
        if sum(one.is_right for one in flagged) >= precision * len(flagged) - 1e-9:
            return _expected(reviewed, flagged, label=label, threshold=threshold)
    return _expected(reviewed, reviewed, label=label)


def _expected(
    reviewed: Sequence[Reviewed],
    flagged: Sequence[Reviewed],
    *,
    label: str | None = None,
    threshold: float | None = None,
) -> Suggestion:
    right = sum(one.is_right for one in flagged)
    all_right = sum(one.is_right for one in reviewed)
    return Suggestion(
        label=label,
        threshold=threshold,
        reviews=len(reviewed),
        false_alarms=Share.of(len(flagged) - right, len(flagged)),
        missed=Share.of(all_right - right, all_right),
    )


def described(found: Suggestions) -> str:
    """The suggestions in lines, and the section of a configuration that takes them up."""
    wrong = found.reviews - found.rightly_flagged
    counted = f"{found.reviews} reviews: {found.rightly_flagged} rightly flagged, {wrong} false alarms"
    lines = [f"{counted}; detector {found.detector}"]
    if found.others:
        lines.append(f"{found.others} reviews of other detectors are left out: scores cannot be compared")
    lines.append(f"wanted: a precision of {found.precision:g}; shares with 95 % intervals")
    lines.append("")
    lines.append(f"{'label':<16} {'threshold':>9} {'reviews':>7}  {'false alarms':<24} missed")
    lines += [_line("any label", found.overall), *(_line(str(one.label), one) for one in found.labels)]
    lines.append(_line("all together", found.together))
    lines += [
        f"{label}: {count} reviews are too few for a threshold of its own, so that of any label holds"
        for label, count in found.too_few.items()
    ]
    lines += [
        f"{one.label}: no threshold has the wanted precision, so that of any label holds"
        for one in found.labels
        if one.threshold is None
    ]
    lines += ["", "[policy]", f"threshold = {found.overall.threshold}"]
    if found.thresholds:
        written = ", ".join(f"{label} = {limit}" for label, limit in found.thresholds.items())
        lines.append(f"thresholds = {{ {written} }}")
    return "\n".join(lines)


def _line(name: str, one: Suggestion) -> str:
    threshold = "-" if one.threshold is None else f"{one.threshold:.3f}"
    alarms, missed = _in_percent(one.false_alarms), _in_percent(one.missed)
    return f"{name:<16} {threshold:>9} {one.reviews:>7}  {alarms:<24} {missed}"


def _in_percent(one: Share) -> str:
    return f"{100 * one.share:.1f} % ({100 * one.low:.1f}-{100 * one.high:.1f})"
