"""Uses a detector and a rewriter of one's own: any callable of the right shape will do."""

from __future__ import annotations

import re
from collections.abc import Sequence

from guardrail import Guard, Span, Verdict

HOUSE_RULES = {"cheapskate": "careful buyer", "skinflint": "careful buyer"}
WORDS = re.compile("|".join(HOUSE_RULES), re.IGNORECASE)


def detect(texts: Sequence[str]) -> list[Verdict]:
    """One verdict per text; the spans are what masking would cover."""
    spans = [tuple(Span(*match.span()) for match in WORDS.finditer(text)) for text in texts]
    return [Verdict({"insult": 1.0 if found else 0.0}, flagged=bool(found), spans=found) for found in spans]


def rewrite(segments: Sequence[str], n: int) -> list[list[str]]:
    """Up to ``n`` candidates per segment; the guard verifies each before it is used."""
    return [[WORDS.sub(lambda match: HOUSE_RULES[match.group().lower()], text)][:n] for text in segments]


def main() -> None:
    """Prints what becomes of two sentences under the house's own rules."""
    guard = Guard(detector=detect, rewriter=rewrite)
    for text in ("Our client is a skinflint who asks for three offers.", "Our client asks for three offers."):
        outcome = guard.check(text)
        print(f"{outcome.action}: {outcome.text}")


if __name__ == "__main__":
    main()
