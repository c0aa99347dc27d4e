"""Rewrites toxic text that programs generate, verifies the rewrite, and only then shows it."""

from guardrail.audit.trail import AuditLog
from guardrail.engine.stream import AsyncStream, Stream
from guardrail.errors import (
    AuditError,
    BlockedError,
    BudgetError,
    ConfigError,
    DeadlineError,
    FailureError,
    GuardrailError,
    GuardrailWarning,
    ManifestError,
    MissingExtraError,
    ModelFileError,
    ModelMissingError,
    PluginError,
    UsageError,
)
from guardrail.guard import Guard
from guardrail.integrations.decorator import detox_guard
from guardrail.outcome import Action, Edit, Outcome, Span, Timings, Verdict
from guardrail.policy import Policy
from guardrail.protocols import Detector, Embedder, Rewriter

__all__ = [
    "Action",
    "AsyncStream",
    "AuditError",
    "AuditLog",
    "BlockedError",
    "BudgetError",
    "ConfigError",
    "DeadlineError",
    "Detector",
    "Edit",
    "Embedder",
    "FailureError",
    "Guard",
    "GuardrailError",
    "GuardrailWarning",
    "ManifestError",
    "MissingExtraError",
    "ModelFileError",
    "ModelMissingError",
    "Outcome",
    "PluginError",
    "Policy",
    "Rewriter",
    "Span",
    "Stream",
    "Timings",
    "UsageError",
    "Verdict",
    "__version__",
    "detox_guard",
]

__version__ = "0.1.0"
