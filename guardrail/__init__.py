"""Rewrites toxic text that programs generate, verifies the rewrite, and only then shows it."""

from guardrail.guard import Guard
from guardrail.integrations.decorator import detox_guard
from guardrail.outcome import Action, Edit, Outcome, Span, Verdict
from guardrail.policy import Policy
from guardrail.protocols import Detector, Embedder, Rewriter

__all__ = [
    "Action",
    "Detector",
    "Edit",
    "Embedder",
    "Guard",
    "Outcome",
    "Policy",
    "Rewriter",
    "Span",
    "Verdict",
    "__version__",
    "detox_guard",
]

__version__ = "0.1.0"
