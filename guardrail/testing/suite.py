"""All laws at once: as a pytest class to derive from, and as a list of findings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from guardrail.testing import laws
from guardrail.testing.harness import Harness, LawBrokenError, NotApplicable

__all__ = ["Finding", "GuardLaws", "examine"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What came of one law: it ``holds``, is ``broken``, or is ``not applicable``; and why."""

    law: str
    result: Literal["holds", "broken", "not applicable"]
    reason: str = ""


def examine(harness: Harness) -> list[Finding]:
    """One finding for each law, in the order of ``LAWS``. Errors of the harness itself are raised."""
    findings = []
    for name, check in laws.LAWS.items():
        try:
            check(harness)
        except LawBrokenError as broken:
            findings.append(Finding(name, "broken", str(broken)))
        except NotApplicable as skipped:
            findings.append(Finding(name, "not applicable", str(skipped)))
        else:
            findings.append(Finding(name, "holds"))
    return findings


class GuardLaws(Harness):
    """A harness that pytest collects: derive ``TestMyGuard`` from it, with ``judge`` and ``guard``."""

    def test_clean_text_is_unchanged(self) -> None:
        laws.clean_text_is_unchanged(self)

    def test_flagged_text_does_not_pass(self) -> None:
        laws.flagged_text_does_not_pass(self)

    def test_streams_equal_the_whole(self) -> None:
        laws.streams_equal_the_whole(self)

    def test_nothing_is_shown_before_its_verdict(self) -> None:
        laws.nothing_is_shown_before_its_verdict(self)

    def test_nothing_passes_when_the_detector_fails(self) -> None:
        laws.nothing_passes_when_the_detector_fails(self)

    def test_nothing_passes_when_the_detector_answers_nonsense(self) -> None:
        laws.nothing_passes_when_the_detector_answers_nonsense(self)

    def test_nothing_passes_while_the_detector_hangs(self) -> None:
        laws.nothing_passes_while_the_detector_hangs(self)

    def test_a_call_returns_though_the_detector_hangs(self) -> None:
        laws.a_call_returns_though_the_detector_hangs(self)

    def test_no_log_holds_the_text(self) -> None:
        laws.no_log_holds_the_text(self)

    def test_no_error_quotes_the_text(self) -> None:
        laws.no_error_quotes_the_text(self)

    def test_rescans_are_bounded(self) -> None:
        laws.rescans_are_bounded(self)

    def test_time_is_linear(self) -> None:
        laws.time_is_linear(self)
