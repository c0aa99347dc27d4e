"""Moderates many texts at once: the same outcomes as one by one, with shared model calls."""

from __future__ import annotations

from collections import Counter

from guardrail import Guard

COMMENTS = [
    "Thanks for the quick answer, it worked at once.",
    "What a pathetic loser you are.",
    "The second chapter is hard to follow.",
    "My wife and her mother, both Muslim, loved the film.",
    "Shut your mouth, you worthless piece of trash.",
]


def main() -> None:
    """Prints every comment as it may be shown, and how often each action was taken."""
    outcomes = Guard(rewriter=None).check_many(COMMENTS)
    for outcome in outcomes:
        print(f"{outcome.action!s:10} {outcome.text}")
    print(dict(Counter(str(outcome.action) for outcome in outcomes)))


if __name__ == "__main__":
    main()
