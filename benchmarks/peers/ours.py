"""This package's guard under the conformance kit."""

from __future__ import annotations

from guardrail import Guard, Policy, Span, Verdict
from guardrail.testing import Detect, Harness, Subject


class Peer(Harness):
    """``Guard`` without a rewriter: what is flagged is masked."""

    def judge(self, text: str) -> object:
        spans = [Span(*place) for place in self.found(text)]
        return Verdict({"toxicity": float(bool(spans))}, bool(spans), tuple(spans))

    def guard(self, detect: Detect) -> Subject:
        def batched(texts):
            return [detect(text) for text in texts]

        policy = Policy(detect_timeout=2.0)
        guard = Guard(policy=policy, detector=batched, lexicon=batched, rewriter=None)
        return Subject(lambda text: guard.check(text).text, guard.stream)
