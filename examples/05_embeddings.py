"""Finds the closest sentence by meaning with the encoder that already judges toxicity."""

from __future__ import annotations

from guardrail import Guard

QUESTION = "How do I get my money back?"
ANSWERS = ["Refunds are paid within five days.", "The shop opens at nine.", "Parking is free on Sundays."]


def main() -> None:
    """Prints the answers, closest first; rows have unit length, so a dot product is a cosine."""
    guard = Guard()
    similarity = guard.embed(ANSWERS) @ guard.embed([QUESTION])[0]
    for position in similarity.argsort()[::-1]:
        print(f"{similarity[position]:.2f} {ANSWERS[position]}")


if __name__ == "__main__":
    main()
