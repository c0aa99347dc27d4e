"""Every error this package raises on purpose.

    GuardrailError
    ├── UsageError                the caller's mistake: wrong argument, wrong setting
    │   └── ConfigError           a key or value of a policy or configuration is wrong
    ├── BlockedError              a text was stopped and nothing stands in its place; carries the outcome
    └── FailureError              something outside the caller's code did not work
        ├── MissingExtraError     an optional dependency is not installed; names the extra
        ├── BudgetError           models worked longer for one request than it may cost
        ├── AuditError            an audit could not be written or read
        ├── ModelFileError        a model file is missing, altered or unreadable
        │   ├── ModelMissingError     it is not on this machine; names the command that fetches it
        │   └── ManifestError         its manifest is missing, malformed or for another base
        └── PluginError           a detector, rewriter or embedder broke its contract
            └── DeadlineError     ... or did not answer in time

No message ever contains text that was moderated: evidence travels in attributes. Errors leave this package
without the frames they came through, because tracebacks that show local variables are common.
``GUARDRAIL_DEBUG=1`` is for those who look for a bug with texts that anyone may read: frames stay, and the
exception of a plug-in is chained to the PluginError.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from types import TracebackType

    from guardrail.outcome import Failure, Outcome

__all__ = [
    "REWRITER_MISSING",
    "AuditError",
    "BlockedError",
    "BudgetError",
    "ConfigError",
    "DeadlineError",
    "FailureError",
    "GuardrailError",
    "GuardrailWarning",
    "ManifestError",
    "MissingExtraError",
    "ModelFileError",
    "ModelMissingError",
    "PluginError",
    "UsageError",
    "WithoutFrames",
    "debugging",
    "without_frames",
]

E = TypeVar("E", bound=BaseException)
REWRITER_MISSING = "rewriter_missing"
"""The ``reason`` of a rewriter that is not there: what it alone could rewrite is masked."""


class GuardrailError(Exception):
    """The root of all errors of this package."""


class UsageError(GuardrailError, ValueError):
    """The caller passed something that cannot work; the message says what would."""


class ConfigError(UsageError):
    """A policy or configuration value is wrong; the message names the key."""


class BlockedError(GuardrailError):
    """A text was blocked under ``Policy(block="raise")``, or if no refusal can take its place.

    ``outcome`` holds what happened, with the clean prefix in ``outcome.text``. ``advice`` is what the
    caller could do about it.
    """

    def __init__(self, outcome: Outcome, *, advice: str | None = None) -> None:
        told = f"text blocked after {len(outcome.text)} released characters; the details are in .outcome"
        super().__init__(f"{told}; {advice}" if advice else told)
        self.outcome = outcome
        self.advice = advice

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), advice=self.advice), (self.outcome,)


class FailureError(GuardrailError, RuntimeError):
    """Something outside the caller's code failed."""


class MissingExtraError(FailureError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, *, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional dependency: pip install 'detox-guardrail[{extra}]'")
        self.feature = feature
        self.extra = extra

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), feature=self.feature, extra=self.extra), ()


class BudgetError(FailureError):
    """Models have worked for one task as long as they may, so that what is left of it stays unread."""


class AuditError(FailureError):
    """An intervention could not be recorded, so that its text is not returned, or an audit cannot be read."""


class ModelFileError(FailureError):
    """A model file is missing, altered or unreadable."""


class ModelMissingError(ModelFileError):
    """A model is not on this machine and downloading was not allowed."""


class ManifestError(ModelFileError):
    """A manifest is missing, malformed, or says that two files do not belong together."""


class PluginError(FailureError):
    """A detector, rewriter or embedder raised, or returned something that its contract forbids.

    ``reason`` is a stable token for ``Outcome.degraded``, ``failure`` the entry for ``Outcome.failures``.
    ``original`` is the plug-in's own exception; it is chained under ``GUARDRAIL_DEBUG=1`` only, because its
    message may quote the text and tracebacks are logged. It does not travel to another process.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        original: BaseException | None = None,
        failure: Failure | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.original = original
        self.failure = failure

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), reason=self.reason, failure=self.failure), self.args


class DeadlineError(PluginError):
    """A model call did not return before its deadline, or the circuit is open after two such calls."""


class GuardrailWarning(UserWarning):
    """Something works less well than it could; the message says how to fix it."""


def debugging() -> bool:
    """True under ``GUARDRAIL_DEBUG=1``; read anew each time, so that it can be set in a running process."""
    return os.environ.get("GUARDRAIL_DEBUG", "") not in ("", "0")


def without_frames(error: E) -> E:
    """The error, to be raised again without the frames it came through and without a context."""
    if not debugging():
        error.__cause__ = None  # hides the context, too
        error.__traceback__ = None
    return error


class WithoutFrames:
    """A block out of which errors of these types, by default this package's own, come ``without_frames``."""

    __slots__ = ("_types",)

    def __init__(self, *types: type[BaseException]) -> None:
        self._types = types or (GuardrailError,)

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, self._types) and not debugging():
            raise without_frames(error)
