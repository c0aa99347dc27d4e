"""The values that travel: what a detector says, what was changed, what happened to a text.

All are frozen. None shows text in its ``repr``: lengths, labels and scores only.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from operator import index
from pathlib import Path
from typing import Any, NoReturn, TypeVar

__all__ = ["LABELS", "Action", "Edit", "Failure", "FrozenDict", "Outcome", "Span", "Timings", "Verdict"]

SCHEMA = Path(__file__).with_name("schema.json")
LABELS = (
    "toxicity",
    "insult",
    "obscene",
    "identity_attack",
    "threat",
    "sexual_explicit",
    "incivility",
)
"""The label names every shipped model uses.

``toxicity`` is an attack on a person or group, a threat, hate, or swearing at somebody. ``incivility`` is
wider: rude, demeaning, contemptuous or mocking, or swearing at all. The others name the kind of a toxic text.
"""


Value = TypeVar("Value")


class FrozenDict(dict[str, Value]):
    """A dict that cannot be changed, so that it has a hash."""

    __slots__ = ()

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
        raise TypeError("this mapping is read-only: make a new value, for example with dataclasses.replace")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __hash__(self) -> int:  # type: ignore[override]  # a dict has none because it changes
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict, (dict(self),)


class Action(str, Enum):
    """What was done, from the mildest to the strongest.

    ``lossy`` is a rewrite that keeps the stance and not all that was said, ``removed`` a sentence in whose
    place the policy's short text stands.
    """

    PASSED = "passed"
    REWRITTEN = "rewritten"
    LOSSY = "lossy"
    MASKED = "masked"
    REMOVED = "removed"
    BLOCKED = "blocked"

    def __str__(self) -> str:
        return self.value

    @property
    def rank(self) -> int:
        """0 for ``passed`` to 5 for ``blocked``; the action of a text is the highest of its segments."""
        return tuple(Action).index(self)

    @property
    def as_would(self) -> str:
        """``would_rewrite``, ``would_mask``, ``would_remove`` or ``would_block``; ``passed`` stays."""
        return _WOULD[self.value]


_WOULD = {
    "passed": "passed",
    "rewritten": "would_rewrite",
    "lossy": "would_rewrite",
    "masked": "would_mask",
    "removed": "would_remove",
    "blocked": "would_block",
}


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
    ``spans`` are the characters that it holds responsible (may be empty); ``unsupported`` is true if the
    text is mostly unknown to the model, or in a script or language that its manifest does not list.
    ``presets`` says for each preset of a policy that the detector knows whether it flags the text; empty if
    it knows none.
    ``clear`` is true if the detector is sure that the text is not a part of something toxic: two texts that
    are clear stay clean when they are joined, so they need not be judged together. A detector that cannot
    tell leaves it false.

    Numbers of numpy, torch and the like become Python's own, and pairs become Spans. Raises TypeError for
    what is neither.
    """

    scores: Mapping[str, float]
    flagged: bool
    spans: tuple[Span, ...] = ()
    unsupported: bool = False
    presets: Mapping[str, bool] = field(default_factory=FrozenDict)
    clear: bool = False

    def __post_init__(self) -> None:
        scores = self.scores
        if type(scores) is not FrozenDict:
            scores = FrozenDict({_label(label): _number(score) for label, score in dict(scores).items()})
            object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "flagged", _truth(self.flagged, "flagged"))
        object.__setattr__(self, "unsupported", _truth(self.unsupported, "unsupported"))
        object.__setattr__(self, "clear", _truth(self.clear, "clear"))
        if type(self.spans) is not tuple or self.spans:
            object.__setattr__(self, "spans", tuple(map(_span, self.spans)))
        if self.presets:
            presets = {str(name): _truth(said, "presets") for name, said in dict(self.presets).items()}
            object.__setattr__(self, "presets", FrozenDict(presets))

    @property
    def score(self) -> float:
        """The highest score of any label, 0 if there is none."""
        return max(self.scores.values(), default=0.0)


def _label(label: object) -> str:
    if isinstance(label, str):
        return str.__str__(label)
    raise TypeError(f"a label of a verdict must be a str, got {type(label).__name__}")


def _number(value: object, name: str = "a score") -> float:
    if type(value) is float:
        return value
    plain = _plain(value)
    if hasattr(plain, "__float__"):  # numbers of every library have it, and str has not
        return float(plain)
    raise TypeError(f"{name} of a verdict must be a number, got {type(value).__name__}")


def _truth(value: object, name: str) -> bool:
    if value is True or value is False:
        return value
    number = _number(value, name)
    if math.isnan(number):
        raise TypeError(f"{name} of a verdict must be True or False, got nan")
    return bool(number)


def _plain(value: Any) -> Any:
    """The Python value in a scalar of numpy, torch and the like."""
    item = getattr(value, "item", None)
    try:
        return value if item is None else item()
    except (TypeError, ValueError, RuntimeError):  # it holds none, or several
        return None


def _span(value: Any) -> Span:
    if type(value) is Span and type(value.start) is int and type(value.end) is int:
        return value
    start, end = (value.start, value.end) if isinstance(value, Span) else value
    return Span(index(_plain(start)), index(_plain(end)))


@dataclass(frozen=True, slots=True)
class Failure:
    """A plug-in that failed, and where its author should look.

    ``place`` is the part it plays: ``detector``, ``lexicon``, ``rewriter``, ``embedder`` or ``verifier``.
    ``error`` is the type of what it raised, ``PluginError`` if it returned what it may not,
    ``DeadlineError`` if it was late; ``module`` and ``line`` are where it raised, else where it
    is defined, as far as that is known.
    """

    place: str
    plugin: str
    error: str
    module: str | None = None
    line: int | None = None

    @property
    def where(self) -> str:
        """Module and line as the end of a sentence, empty if they are not known."""
        module = "" if self.module is None else f" in {self.module}"
        return module if self.line is None else f"{module}, line {self.line}"

    def __str__(self) -> str:
        return f"{self.place} {self.plugin} failed: {self.error}{self.where}"


@dataclass(frozen=True, slots=True)
class Edit:
    """One flagged segment and what became of it.

    ``start`` and ``end`` are offsets into the original text. ``failed_checks`` names the checks that refused
    candidates, and why rungs did not hold (``rewrite:budget``, ``mask:toxic``, a plug-in's failure).
    ``similarity`` is the cosine (-1..1) of accepted rewrite and original, None if nothing was rewritten;
    ``acceptable`` is what the verifier says of it, None if there is no verifier.
    ``would`` is what an enforcing policy would do, in monitor mode, where every action is ``passed`` and
    ``after`` equals ``before``; None for a policy that acts. ``rewritten`` then means that the rewriter would
    be asked: whether its rewrite would hold is not known.
    """

    start: int
    end: int
    before: str = field(repr=False)
    after: str = field(repr=False)
    action: Action
    verdict: Verdict
    verdict_after: Verdict | None = None
    similarity: float | None = None
    acceptable: float | None = None
    failed_checks: tuple[str, ...] = ()
    would: Action | None = None

    @property
    def decided(self) -> Action:
        """What was done, or in monitor mode would be."""
        return self.action if self.would is None else self.would

    @property
    def action_name(self) -> str:
        """The action's name, in monitor mode that of what would be done, such as ``would_mask``."""
        return str(self.action) if self.would is None else self.would.as_would


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds spent waiting for each kind of model call, and in total, as measured by the driver."""

    detect: float = 0.0
    rewrite: float = 0.0
    embed: float = 0.0
    verify: float = 0.0
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What happened to one text.

    ``text`` is what may be shown. ``verdict`` is the strongest verdict found in the original (scores are the
    maximum per label over all segments, spans refer to the original text), ``verdict_after`` the same for the
    final text. ``degraded`` lists why the text did not get a full pass with all models (empty: it did);
    ``failures`` are the plug-ins that broke on the way. ``would`` is the strongest action that an enforcing
    policy would take, in monitor mode, where ``action`` is ``passed``; None for a policy that acts, and as
    long as a stream in monitor mode still waits for its verdict (``degraded`` is then ``pending``).
    """

    text: str = field(repr=False)
    action: Action
    verdict: Verdict
    verdict_after: Verdict
    edits: tuple[Edit, ...] = ()
    degraded: tuple[str, ...] = ()
    timings: Timings = Timings()
    failures: tuple[Failure, ...] = ()
    would: Action | None = None

    @property
    def decided(self) -> Action:
        """What was done, or in monitor mode would be."""
        return self.action if self.would is None else self.would

    @property
    def action_name(self) -> str:
        """The action's name, in monitor mode that of what would be done, such as ``would_mask``."""
        return str(self.action) if self.would is None else self.would.as_would

    @property
    def changed(self) -> bool:
        """True if the text that came out is not the text that went in."""
        return self.action is not Action.PASSED

    @property
    def counts(self) -> Mapping[str, int]:
        """How many flagged segments each action was taken for, ``passed`` left out."""
        found = Counter(str(edit.action) for edit in self.edits)
        return FrozenDict({str(action): found[str(action)] for action in Action if action.rank})

    def to_dict(self, *, include_text: bool = True) -> dict[str, Any]:
        """The outcome as JSON has it, described by ``json_schema``; for logs leave the texts out."""
        from guardrail.outcome.rows import outcome_row

        return outcome_row(self, include_text=include_text)

    @staticmethod
    def json_schema() -> dict[str, Any]:
        """The JSON Schema (draft 2020-12) of what ``to_dict`` gives."""
        schema: dict[str, Any] = json.loads(SCHEMA.read_text(encoding="utf-8"))
        return schema

    def summary(self, *, include_text: bool = False) -> str:
        """What was done and why, in plain words, in a line and one more for each edit; texts if asked for."""
        from guardrail.outcome.summary import summarised

        return summarised(self, include_text=include_text)
