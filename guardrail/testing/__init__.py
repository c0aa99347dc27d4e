"""The laws of a guard as checks for any guard: as functions, as a pytest class, as a list of findings.

    class TestMyGuard(GuardLaws):
        def judge(self, text):
            return bool(self.found(text))          # what a detector of my guard answers

        def guard(self, detect):
            mine = MyGuard(detector=detect)
            return Subject(check=mine.clean, stream=mine.clean_stream)

Pytest then collects one test for each law; a guard without streams skips what is about streams. ``examine``
gives findings without pytest, and each law is a function of ``guardrail.testing.laws``. Needs no package but
this one.
"""

from guardrail.testing.harness import (
    Detect,
    Harness,
    LawBrokenError,
    NotApplicable,
    Samples,
    Subject,
    from_async,
)
from guardrail.testing.laws import LAWS
from guardrail.testing.suite import Finding, GuardLaws, examine

__all__ = [
    "LAWS",
    "Detect",
    "Finding",
    "GuardLaws",
    "Harness",
    "LawBrokenError",
    "NotApplicable",
    "Samples",
    "Subject",
    "examine",
    "from_async",
]
