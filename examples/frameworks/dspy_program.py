"""A DSPy program whose predictions are rewritten."""

from __future__ import annotations

import dspy
from dspy.utils.dummies import DummyLM

from guardrail import Guard
from guardrail.integrations.dspy import GuardedModule

ANSWER = "The parcel left Graz on Monday. What a stupid question that was. It arrives on Friday."


def main() -> None:
    """A dummy model stands for a real one."""
    program = GuardedModule(dspy.Predict("question -> answer"), guard=Guard())
    with dspy.context(lm=DummyLM([{"answer": ANSWER}])):
        print("answer:", program(question="Where is my parcel?").answer)


if __name__ == "__main__":
    main()
