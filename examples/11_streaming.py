"""Streams: an agent that yields its answer piece by piece, and the outcome once the stream has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

from guardrail import Guard, Outcome, detox_guard

ANSWER = "The train leaves at ten. Any idiot who is late has to take the next train. Bring some food along!"


def report(outcome: Outcome) -> None:
    """Called once, when a stream has ended."""
    print(f"{outcome.action}: {len(outcome.edits)} of the sentences changed")


@detox_guard(on_outcome=report)
def agent(question: str) -> Iterator[str]:
    """Yields the answer in pieces of any size; whoever calls it gets judged sentences."""
    for word in ANSWER.split(" "):
        yield f"{word} "


async def words() -> AsyncIterator[str]:
    """The same from asynchronous code."""
    for word in ANSWER.split(" "):
        yield f"{word} "


async def main() -> None:
    """Streams without a decorator; ``outcome`` is there as soon as the stream has ended."""
    async with Guard().astream(words()) as stream:
        async for piece in stream:
            print(repr(piece))
    assert stream.outcome is not None
    print("similarity of the rewrite:", [edit.similarity for edit in stream.outcome.edits])


if __name__ == "__main__":
    for piece in agent("When do we leave?"):
        print(repr(piece))
    asyncio.run(main())
