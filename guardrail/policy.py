"""What is tolerated, what is tried, and what happens when nothing works: one frozen value."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any, Literal

from guardrail.errors import ConfigError
from guardrail.outcome import FrozenDict, Verdict

__all__ = ["USES", "Policy", "Use"]

Rung = Literal["rewrite", "mask", "block"]
Use = Literal["assistant", "community"]
USES: tuple[Use, ...] = ("assistant", "community")
LADDER: tuple[Rung, ...] = ("rewrite", "mask", "block")
HIGH = 0.5
"""A label's score from which a text has that label, if the policy names no other."""
NAME = re.compile(r"[\w.-]{0,64}", re.ASCII)
HARMS = {"threat": 0.3, "identity_attack": 0.5, "hate": 0.5}
WHOLE = (
    "candidates",
    "negation_change",
    "max_rewrites",
    "context",
    "segment_min",
    "segment_max",
    "batch",
    "queue",
)
REAL = ("meaning_floor", "batch_wait")
OPTIONAL = ("threshold", "early_stop", "acceptable", "likelihood_floor", "detect_timeout", "rewrite_timeout")
ON_ERROR = ("closed", "open", "lexicon", "raise")
CONTAINERS: tuple[tuple[str, Callable[[Any], Any], str], ...] = (
    ("thresholds", FrozenDict, "a mapping of labels to numbers"),
    ("harms", FrozenDict, "a mapping of labels to numbers"),
    ("removals", FrozenDict, "a mapping of labels to texts"),
    ("ladder", tuple, f"a part of {LADDER} that ends with 'block'"),
    ("length_ratio", tuple, "two numbers around 1"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a guard decides. Every field has a safe default.

    Args:
        use: What the text is for: "assistant" (a product's own words: incivility and toxicity are flagged) or
            "community" (people's comments: toxicity alone).
        threshold: A segment is flagged if any score is at or above it, 0..1; None: as the detector decides,
            as it also does for a verdict without scores.
        thresholds: The same per label, in place of ``threshold`` for those labels; with ``threshold=None``
            they add to what the detector flags; a label that the detector does not score is an error.
        meaning_floor: Minimum cosine between a rewrite and its original, -1..1.
        length_ratio: Minimum and maximum length of a rewrite in units of its original's, after two spare
            words.
        negation_change: Maximum difference in the number of negations outside what was rewritten.
        acceptable: Minimum probability, 0..1, by the guard's verifier, that a reader accepts a rewrite; None:
            the verifier's own threshold.
        likelihood_floor: Minimum log-probability per word of a rewrite relative to its original's, for
            rewriters that report one; None: any.
        ladder: The rungs to try in order: a run of "rewrite", "mask", "block" that ends with "block".
        candidates: Rewrites tried per segment; of those that pass every check the rewriter's first is taken.
        early_stop: Worth, 0..1, from which the first rewrite is taken before others are tried: how surely it
            is clean, times how close it is in meaning and how acceptable to the guard's verifier, if it has
            one; None: all are tried.
        max_rewrites: Flagged segments per text that may be rewritten; later ones start at the next rung.
        block: "segment": the refusal takes the segment's place and nothing after it is released; "whole": the
            refusal replaces the whole text (not for streams); "raise": BlockedError.
        refusal: The text shown in place of what was blocked.
        mask: None keeps the first letter of each masked word ("i****"); or a text such as "[masked]".
        removed: The text in place of a sentence that neither a rewrite nor a mask makes readable.
        removals: The same per label, for sentences in which that label's score is the highest of these.
        harms: Labels, and scores from which a sentence has no kind version (threats, contempt for groups): it
            is removed, not rewritten; with a threshold for the label, from that on.
        lossy: Such sentences are rewritten all the same, into what stance is left of them ("lossy").
        on_error: A detector failure: "closed" blocks, "lexicon" asks the word list alone, "open" passes;
            "raise": any plug-in that breaks raises PluginError, for those who write or test one.
        unsupported: A segment that the detector cannot read (its script, its language): "pass" only marks it,
            "mask" hides all its words, "block" blocks it.
        detect_timeout: Seconds for one call of the detector or embedder; None: no deadline, called inline.
        rewrite_timeout: Seconds for one call of the rewriter; None: no deadline, called inline.
        context: Characters of earlier text that a segment is scored with once more, unless both are clear.
        segment_min: A shorter segment joins the next one, in characters.
        segment_max: A longer segment is cut, in characters.
        batch: Texts per model call.
        enforce: False is monitor mode: everything is judged and recorded, and nothing is changed, blocked or
            held back; the rewriter is not asked, and ``Outcome.would`` says what would be done.
        name: What audit and metrics call this policy; letters, digits, "_", "-" and ".".
        batch_wait: Milliseconds that a call of a coroutine may wait for others to share a model call with;
            its deadline keeps running.
        queue: Texts that may wait for a model; further coroutines are held back until there is room.

    Raises:
        ConfigError: For a value of a wrong type or out of its range; the message names the field.
    """

    use: Use = "assistant"
    threshold: float | None = None
    thresholds: Mapping[str, float] = field(default_factory=FrozenDict)
    meaning_floor: float = 0.25
    length_ratio: tuple[float, float] = (0.3, 1.8)
    negation_change: int = 0
    acceptable: float | None = None
    likelihood_floor: float | None = None
    ladder: tuple[Rung, ...] = LADDER
    candidates: int = 7
    early_stop: float | None = None
    max_rewrites: int = 64
    block: Literal["segment", "whole", "raise"] = "segment"
    refusal: str = "[withheld: this part could not be made safe]"
    mask: str | None = None
    removed: str = "[removed]"
    removals: Mapping[str, str] = field(default_factory=FrozenDict)
    harms: Mapping[str, float] = field(default_factory=lambda: FrozenDict(HARMS))
    lossy: bool = False
    on_error: Literal["closed", "open", "lexicon", "raise"] = "closed"
    unsupported: Literal["pass", "mask", "block"] = "pass"
    detect_timeout: float | None = 30.0
    rewrite_timeout: float | None = 120.0
    context: int = 80
    segment_min: int = 24
    segment_max: int = 400
    batch: int = 64
    batch_wait: float = 2.0
    queue: int = 1024
    enforce: bool = True
    name: str = ""

    def __post_init__(self) -> None:
        _require(self.use in USES, "use", f"one of {USES}", self.use)
        self._set_containers()
        self._set_numbers()
        limits = (*self.thresholds.items(), *self.harms.items(), ("acceptable", self.acceptable))
        for name, value in (("threshold", self.threshold), *limits):
            _require(value is None or 0.0 <= value <= 1.0, name, "between 0 and 1", value)
        _require(-1.0 <= self.meaning_floor <= 1.0, "meaning_floor", "between -1 and 1", self.meaning_floor)
        early = self.early_stop
        _require(early is None or 0.0 <= early <= 1.0, "early_stop", "None or between 0 and 1", early)
        low, high = self.length_ratio
        _require(0.0 <= low <= 1.0 <= high, "length_ratio", "two numbers around 1", self.length_ratio)
        is_run = self.ladder and self.ladder == LADDER[-len(self.ladder) :]
        is_skip = self.ladder == ("rewrite", "block")
        _require(is_run or is_skip, "ladder", f"a part of {LADDER} that ends with 'block'", self.ladder)
        _require(self.block in ("segment", "whole", "raise"), "block", "segment, whole or raise", self.block)
        _require(self.on_error in ON_ERROR, "on_error", "closed, open, lexicon or raise", self.on_error)
        is_known = self.unsupported in ("pass", "mask", "block")
        _require(is_known, "unsupported", "pass, mask or block", self.unsupported)
        for name in ("detect_timeout", "rewrite_timeout"):
            value = getattr(self, name)
            _require(value is None or 0 < value < math.inf, name, "None or more than 0 seconds", value)
        for name in ("negation_change", "max_rewrites", "context"):
            _require(getattr(self, name) >= 0, name, "0 or more", getattr(self, name))
        _require(0.0 <= self.batch_wait < math.inf, "batch_wait", "0 or more milliseconds", self.batch_wait)
        for name in ("candidates", "batch", "queue", "segment_min"):
            _require(getattr(self, name) >= 1, name, "1 or more", getattr(self, name))
        _require(
            self.segment_max >= 4 * self.segment_min,
            "segment_max",
            "at least 4 x segment_min",
            self.segment_max,
        )

    def _set_containers(self) -> None:
        """Makes thresholds, ladder and length ratio read-only; raises for what cannot be made so by name."""
        for name, make, expected in CONTAINERS:
            value = getattr(self, name)
            if isinstance(value, str):
                rungs = LADDER[[*LADDER, value].index(value) :] if name == "ladder" else ()
                advice = f"; write ladder={tuple(rungs)}" if rungs else ""
                raise ConfigError(f"policy {name} must be {expected}, got the str {value!r}{advice}")
            try:
                object.__setattr__(self, name, make(value))
            except (TypeError, ValueError):
                _require(False, name, expected, value)
        _require(len(self.length_ratio) == 2, "length_ratio", "two numbers around 1", self.length_ratio)

    def _set_numbers(self) -> None:
        """Raises for a wrong type by name; a comparison further on would not say which field it was.

        Numbers of other libraries become Python's own, so that equal policies have equal digests.
        """
        for name in WHOLE:
            object.__setattr__(
                self, name, int(_number(Integral, name, getattr(self, name), "a whole number"))
            )
        for name in REAL + OPTIONAL:
            if (value := getattr(self, name)) is not None or name in REAL:
                object.__setattr__(self, name, float(_number(Real, name, value)))
        ratio = tuple(float(_number(Real, "length_ratio", value)) for value in self.length_ratio)
        object.__setattr__(self, "length_ratio", ratio)
        for name in ("thresholds", "harms"):
            given = getattr(self, name)
            for label in given:
                _require(isinstance(label, str), name, "a mapping of labels to numbers", label)
            limits = {label: float(_number(Real, label, value)) for label, value in given.items()}
            object.__setattr__(self, name, FrozenDict(limits))
        for pair in self.removals.items():
            is_text = all(isinstance(part, str) for part in pair)
            _require(is_text, "removals", "a mapping of labels to texts", self.removals)
        for name in ("refusal", "removed"):
            _require(isinstance(getattr(self, name), str), name, "a str", getattr(self, name))
        for name in ("lossy", "enforce"):
            _require(isinstance(getattr(self, name), bool), name, "True or False", getattr(self, name))
        called: object = self.name  # settings come from anywhere
        is_name = isinstance(called, str) and NAME.fullmatch(called) is not None
        _require(is_name, "name", "up to 64 letters, digits, '_', '-' or '.'", called)
        _require(self.mask is None or isinstance(self.mask, str), "mask", "None or a str", self.mask)

    @classmethod
    def preset(cls, use: Use, **changes: Any) -> Policy:
        """The policy for a use, ``"assistant"`` or ``"community"``, with ``changes`` to other fields."""
        return cls(use=use, **changes)

    def flags(self, verdict: Verdict) -> bool:
        """True if this policy does not tolerate the verdict."""
        for label, score in verdict.scores.items():
            limit = self.thresholds.get(label, self.threshold)
            if limit is not None and score >= limit:
                return True
        flagged = verdict.presets.get(self.use, verdict.flagged)
        return flagged and (self.threshold is None or not verdict.scores)

    def is_harm(self, verdict: Verdict) -> bool:
        """True for what no rewrite makes kind: a threat, a wish of harm, contempt for a group."""
        return any(
            verdict.scores.get(label, 0.0) >= self.thresholds.get(label, limit)
            for label, limit in self.harms.items()
        )

    def removal(self, verdict: Verdict) -> str:
        """The text in place of a sentence with this verdict."""
        told = [label for label in self.removals if label in verdict.scores and self._is_high(label, verdict)]
        if not told:
            return self.removed
        return self.removals[max(told, key=lambda label: verdict.scores[label])]

    def _is_high(self, label: str, verdict: Verdict) -> bool:
        limit = self.thresholds.get(label, self.harms.get(label, self.threshold))
        return verdict.scores[label] >= (HIGH if limit is None else limit)

    def decided(self, verdict: Verdict) -> Verdict:
        """The verdict with ``flagged`` as this policy has it."""
        flagged = self.flags(verdict)
        return verdict if verdict.flagged is flagged else replace(verdict, flagged=flagged)

    @property
    def can_stream(self) -> bool:
        """False if the policy may take back what a stream has shown already."""
        return self.block != "whole" or not self.enforce

    def digest(self) -> str:
        """A short stable hash of all settings but the name, for audit rows."""
        content = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "name"}
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=dict).encode()).hexdigest()[:16]


def _number(kind: type, name: str, value: Any, expected: str = "a number") -> Any:
    _require(isinstance(value, kind), name, expected, value)
    return value


def _require(holds: bool, name: str, expected: str, value: object) -> None:
    if not holds:
        raise ConfigError(f"policy {name} must be {expected}, got {value!r}")
