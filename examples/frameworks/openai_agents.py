"""An agent of the OpenAI Agents SDK whose answer is rewritten while it is streamed."""

from __future__ import annotations

import asyncio

from agents import Agent, Runner, set_tracing_disabled
from agents.testing import ScriptedModel, assistant_message

from guardrail import Guard
from guardrail.integrations.openai_agents import GuardedModel

ANSWER = "The parcel left Graz on Monday. What a stupid question that was. It arrives on Friday."


async def main() -> None:
    """Prints the pieces as they come; a scripted model stands for a real one."""
    set_tracing_disabled(True)
    agent = Agent("helper", model=GuardedModel(ScriptedModel([[assistant_message(ANSWER)]]), guard=Guard()))
    result = Runner.run_streamed(agent, "Where is my parcel?")
    async for event in result.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            print("piece:", event.data.delta.strip())
    print("final:", result.final_output)


if __name__ == "__main__":
    asyncio.run(main())
