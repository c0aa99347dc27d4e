"""Asks a guard for an outcome: the text that may be shown, and everything that happened to it."""

from __future__ import annotations

from guardrail import Guard

TEXT = "The parcel arrives on Tuesday. You are a stupid liar and everybody knows it. Order no. 4711."


def main() -> None:
    """Prints the outcome of one text, edit by edit."""
    guard = Guard()
    outcome = guard.check(TEXT)
    print("action: ", outcome.action)
    print("text:   ", outcome.text)
    print("scores: ", {label: round(score, 2) for label, score in outcome.verdict.scores.items()})
    for edit in outcome.edits:
        print(f"edit:    {edit.before!r} -> {edit.after!r}, similarity {edit.similarity}")
        print(f"         refused candidates: {edit.failed_checks}")
    print("degraded:", outcome.degraded or "no")
    print(f"seconds:  {outcome.timings.total:.2f}")


if __name__ == "__main__":
    main()
