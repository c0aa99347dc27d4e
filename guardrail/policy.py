"""What is tolerated, what is tried, and what happens when nothing works: one frozen value."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import Literal

from guardrail.errors import ConfigError
from guardrail.outcome import Verdict

__all__ = ["Policy"]

Rung = Literal["rewrite", "mask", "block"]
LADDER: tuple[Rung, ...] = ("rewrite", "mask", "block")
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
OPTIONAL = ("threshold", "detect_timeout", "rewrite_timeout")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a guard decides. Every field has a safe default; a wrong value is a ConfigError that names it.

    threshold        a segment is flagged if any score is at or above it, 0..1; None: as the detector decides
    thresholds       the same per label, in place of ``threshold`` for those labels; beside ``threshold=None``
                     they add to what the detector flags
    meaning_floor    least cosine between a rewrite and its original, -1..1
    length_ratio     least and greatest length of a rewrite in units of its original's, after two spare words
    negation_change  greatest difference in the number of negations
    ladder           the rungs to try in order: a run of "rewrite", "mask", "block" that ends with "block"
    candidates       rewrites proposed per segment
    max_rewrites     flagged segments per text that may be rewritten; later ones start at the next rung
    block            "segment": the refusal takes the segment's place and nothing after it is released;
                     "whole": the refusal replaces the whole text (not for streams); "raise": BlockedError
    refusal          the text shown in place of what was blocked
    mask             None keeps the first letter of each masked word ("i****"); or a text such as "[removed]"
    on_error         a detector failure: "closed" blocks, "lexicon" falls back to the word list, "open" passes
    unsupported      a segment that the detector cannot read (its script, its language): "pass" only marks it,
                     "mask" hides all its words, "block" blocks it
    detect_timeout   seconds for one call of the detector or embedder; None: no deadline, called inline
    rewrite_timeout  seconds for one call of the rewriter; None: no deadline, called inline
    context          characters of earlier text that a segment is scored with once more, unless both are clear
    segment_min      a shorter segment joins the next one, in characters
    segment_max      a longer segment is cut, in characters
    batch            texts per model call
    batch_wait       milliseconds that a call of a coroutine may wait for others to share a model call with;
                     its deadline goes on meanwhile
    queue            texts that may wait for a model; further coroutines are held back until there is room
    """

    threshold: float | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    meaning_floor: float = 0.5
    length_ratio: tuple[float, float] = (0.3, 1.8)
    negation_change: int = 0
    ladder: tuple[Rung, ...] = LADDER
    candidates: int = 7
    max_rewrites: int = 64
    block: Literal["segment", "whole", "raise"] = "segment"
    refusal: str = "[withheld: this part could not be made safe]"
    mask: str | None = None
    on_error: Literal["closed", "open", "lexicon"] = "closed"
    unsupported: Literal["pass", "mask", "block"] = "pass"
    detect_timeout: float | None = 30.0
    rewrite_timeout: float | None = 120.0
    context: int = 100
    segment_min: int = 24
    segment_max: int = 400
    batch: int = 64
    batch_wait: float = 2.0
    queue: int = 1024

    def __post_init__(self) -> None:
        object.__setattr__(self, "thresholds", dict(self.thresholds))
        object.__setattr__(self, "ladder", tuple(self.ladder))
        object.__setattr__(self, "length_ratio", tuple(self.length_ratio))
        self._require_numbers()
        for name, value in {"threshold": self.threshold, **self.thresholds}.items():
            _require(value is None or 0.0 <= value <= 1.0, name, "between 0 and 1", value)
        _require(-1.0 <= self.meaning_floor <= 1.0, "meaning_floor", "between -1 and 1", self.meaning_floor)
        low, high = self.length_ratio
        _require(0.0 <= low <= 1.0 <= high, "length_ratio", "two numbers around 1", self.length_ratio)
        is_run = self.ladder and self.ladder == LADDER[-len(self.ladder) :]
        is_skip = self.ladder == ("rewrite", "block")
        _require(is_run or is_skip, "ladder", f"a part of {LADDER} that ends with 'block'", self.ladder)
        _require(self.block in ("segment", "whole", "raise"), "block", "segment, whole or raise", self.block)
        _require(
            self.on_error in ("closed", "open", "lexicon"),
            "on_error",
            "closed, open or lexicon",
            self.on_error,
        )
        _require(
            self.unsupported in ("pass", "mask", "block"),
            "unsupported",
            "pass, mask or block",
            self.unsupported,
        )
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

    def _require_numbers(self) -> None:
        """Raises for a wrong type by name; a comparison further on would not say which field it was."""
        for name in WHOLE:
            _require(isinstance(getattr(self, name), Integral), name, "a whole number", getattr(self, name))
        for name in REAL + OPTIONAL:
            value = getattr(self, name)
            is_left_out = value is None and name in OPTIONAL
            _require(is_left_out or isinstance(value, Real), name, "a number", value)
        for label, value in self.thresholds.items():
            _require(isinstance(value, Real), label, "a number", value)

    def flags(self, verdict: Verdict) -> bool:
        """True where this policy does not tolerate the verdict."""
        for label, score in verdict.scores.items():
            limit = self.thresholds.get(label, self.threshold)
            if limit is not None and score >= limit:
                return True
        return self.threshold is None and verdict.flagged

    def digest(self) -> str:
        """A short stable hash of all settings, for audit rows."""
        content = {f.name: getattr(self, f.name) for f in fields(self)}
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=dict).encode()).hexdigest()[:16]


def _require(holds: bool, name: str, expected: str, value: object) -> None:
    if not holds:
        raise ConfigError(f"policy {name} must be {expected}, got {value!r}")
