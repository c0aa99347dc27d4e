"""The values that travel: what a detector says, what was changed, what happened to a text.

All are frozen. None shows text in its ``repr``: lengths, labels and scores only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

__all__ = ["LABELS", "Action", "Edit", "Outcome", "Span", "Timings", "Verdict"]

LABELS = ("toxicity", "insult", "obscene", "identity_attack", "threat", "sexual_explicit")
"""The label names every shipped model uses; ``toxicity`` means any of the others, or toxic in another way."""


class Action(str, Enum):
    """What was done, from the mildest to the strongest."""

    PASSED = "passed"
    REWRITTEN = "rewritten"
    MASKED = "masked"
    BLOCKED = "blocked"

    def __str__(self) -> str:
        return self.value

    @property
    def rank(self) -> int:
        """0 for ``passed`` to 3 for ``blocked``; the action of a text is the highest of its segments."""
        return tuple(Action).index(self)


@dataclass(frozen=True, slots=True)
class Span:
    """Characters ``start`` (included) to ``end`` (excluded), as in a Python slice."""

    start: int
    end: int

    def shifted(self, offset: int) -> Span:
        """The same span measured from ``offset`` characters earlier."""
        return Span(self.start + offset, self.end + offset)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a detector says of one text.

    ``scores`` maps each label to 0..1; ``flagged`` is the detector's own decision at its default thresholds;
    ``spans`` are the characters that it holds responsible (may be empty); ``unsupported`` is true where the
    text is mostly unknown to the model, or in a script or language that its manifest does not list. ``clear``
    is true if the detector is sure that the text is not a part of something toxic: two texts that are clear
    stay clean when they are joined, so they need not be judged together. A detector that cannot
    tell leaves it false.
    """

    scores: Mapping[str, float]
    flagged: bool
    spans: tuple[Span, ...] = ()
    unsupported: bool = False
    clear: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", dict(self.scores))
        object.__setattr__(self, "spans", tuple(self.spans))

    @property
    def score(self) -> float:
        """The highest score of any label, 0 if there is none."""
        return max(self.scores.values(), default=0.0)


@dataclass(frozen=True, slots=True)
class Edit:
    """One flagged segment and what became of it.

    ``start`` and ``end`` are offsets into the original text. ``failed_checks`` names the checks that refused
    candidates, and why rungs did not hold (``rewrite:budget``, ``mask:toxic``, a plug-in's failure).
    ``similarity`` is the cosine (-1..1) of accepted rewrite and original, None where nothing was rewritten.
    """

    start: int
    end: int
    before: str = field(repr=False)
    after: str = field(repr=False)
    action: Action
    verdict: Verdict
    verdict_after: Verdict | None = None
    similarity: float | None = None
    failed_checks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds spent waiting for each kind of model call, and in total, as measured by the driver."""

    detect: float = 0.0
    rewrite: float = 0.0
    embed: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened to one text.

    ``text`` is what may be shown. ``verdict`` is the strongest verdict found in the original (scores are the
    maximum per label over all segments, spans refer to the original text), ``verdict_after`` the same for the
    final text. ``degraded`` lists why the text did not get a full pass with all models (empty: it did).
    """

    text: str = field(repr=False)
    action: Action
    verdict: Verdict
    verdict_after: Verdict
    edits: tuple[Edit, ...] = ()
    degraded: tuple[str, ...] = ()
    timings: Timings = Timings()

    @property
    def changed(self) -> bool:
        """True where the text that came out is not the text that went in."""
        return self.action is not Action.PASSED
