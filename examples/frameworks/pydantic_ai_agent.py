"""An agent of Pydantic AI whose answer is rewritten while it is streamed."""

from __future__ import annotations

import asyncio

from pydantic_ai import Agent
from pydantic_ai.models.test import TestModel

from guardrail import Guard
from guardrail.integrations.pydantic_ai import GuardedModel

ANSWER = "The parcel left Graz on Monday. What a stupid question that was. It arrives on Friday."


async def main() -> None:
    """Prints the pieces as they come; a test model stands for a real one."""
    agent = Agent(GuardedModel(TestModel(custom_output_text=ANSWER), guard=Guard()))
    async with agent.run_stream("Where is my parcel?") as result:
        async for piece in result.stream_text(delta=True, debounce_by=None):
            print("piece:", piece.strip())


if __name__ == "__main__":
    asyncio.run(main())
