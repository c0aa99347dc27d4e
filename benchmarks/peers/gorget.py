"""Gorget, which continues LLM Guard, under the conformance kit: ``scan_output`` with one scanner."""

from __future__ import annotations

from gorget import scan_output

from guardrail.testing import Detect, Harness, Subject


class Peer(Harness):
    """A scanner's three-tuple is the detector's answer; it has no streams.

    Texts that a scanner holds invalid are the caller's to withhold, as its documentation shows.
    """

    def judge(self, text: str) -> object:
        bad = bool(self.found(text))
        return "[removed]" if bad else text, not bad, float(bad)

    def guard(self, detect: Detect) -> Subject:
        class Scanner:
            def scan(self, prompt: str, output: str) -> object:
                return detect(output)

        def check(text: str) -> str:
            sanitized, valid, _ = scan_output([Scanner()], "", text)
            if not all(valid.values()) and sanitized == text:
                raise ValueError("withheld")
            return sanitized

        return Subject(check)
