"""Moderates what a function returns: plain functions, coroutine functions and methods alike."""

from __future__ import annotations

import asyncio

from guardrail import Outcome, Policy, detox_guard

ANSWERS = {
    "plan": "Meet at nine, bring the printed maps, and leave before the rain starts.",
    "review": "The layout is clear. Whoever wrote the second part is a complete idiot.",
}


@detox_guard
def answer(topic: str) -> str:
    """What a language model would say; the guard loads its models at the first call."""
    return ANSWERS[topic]


def audit(outcome: Outcome) -> None:
    """Hears of every outcome, with all that was changed and why."""
    for edit in outcome.edits:
        print(f"  audit: {edit.action} {edit.start}-{edit.end}, score {edit.verdict.score:.2f}")


class Bot:
    """Methods work in the same way, and a policy can be given for each."""

    @detox_guard(policy=Policy(ladder=("mask", "block")), on_outcome=audit)
    async def reply(self, topic: str) -> str:
        """Masked instead of rewritten, because of the policy."""
        await asyncio.sleep(0)
        return ANSWERS[topic]


def main() -> None:
    """Prints two answers as they may be shown, and a masked one."""
    print("plan:  ", answer("plan"))
    print("review:", answer("review"))
    print("masked:", asyncio.run(Bot().reply("review")))


if __name__ == "__main__":
    main()
