"""Sentences about a bus, and a guard that knows how to rewrite one of them."""

from __future__ import annotations

from typing import Any

from guardrail import Guard, Policy
from tests.fakes import BagEmbedder, WordDetector

__all__ = ["BLOCK", "CLEAN", "MENDED", "NEUTRAL", "REFUSAL", "TEXT", "TOXIC", "guard"]

TOXIC = "The driver of that bus is an idiot."
NEUTRAL = "The driver of that bus is a person."
CLEAN = "The weather on the coast is fine today."
TEXT = f"{CLEAN} {TOXIC} {CLEAN}"
MENDED = f"{CLEAN} {NEUTRAL} {CLEAN}"
REFUSAL = Policy().refusal
BLOCK = Policy(ladder=("block",))


def guard(policy: Policy | None = None, **parts: Any) -> Guard:
    """A guard on words, which rewrites to NEUTRAL."""
    fakes: dict[str, Any] = {
        "detector": WordDetector(),
        "rewriter": lambda segments, n: [[NEUTRAL] for _ in segments],
        "embedder": BagEmbedder(),
        "lexicon": WordDetector(),
    }
    return Guard(policy=policy, **fakes | parts)
