"""An agent with a tool: toxic answers are rewritten, and a toxic call never reaches the tool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool

from guardrail import Guard
from guardrail.integrations.langchain import DetoxMiddleware

ANSWER = "The letter is on its way to the customer. That stupid customer wants it by Friday."


@tool
def send_letter(text: str) -> str:
    """Sends a letter to the customer."""
    print("sent:", text)
    return "The letter was sent."


class ScriptedModel(FakeMessagesListChatModel):
    """Stands in for a chat model that calls tools."""

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        """The script calls tools of its own accord."""
        return self


def call(text: str) -> AIMessage:
    """What a model says that wants a letter to be sent."""
    return AIMessage("", tool_calls=[{"name": "send_letter", "args": {"text": text}, "id": "call-1"}])


def ask(model: BaseChatModel, guard: Guard) -> None:
    """Prints what the agent streams."""
    agent = create_agent(model, tools=[send_letter], middleware=[DetoxMiddleware(guard)])
    question = {"messages": [HumanMessage("Please answer the customer's complaint.")]}
    for message, _ in agent.stream(question, stream_mode="messages"):
        if message.type != "tool" and message.text:
            print("said:", message.text.strip())


def main() -> None:
    """Two runs: a clean call with a toxic answer behind it, and a toxic call."""
    guard = Guard()
    ask(ScriptedModel(responses=[call("We are sorry for the delay."), AIMessage(ANSWER)]), guard)
    ask(ScriptedModel(responses=[call("You are a stupid idiot."), AIMessage("It was sent.")]), guard)


if __name__ == "__main__":
    main()
