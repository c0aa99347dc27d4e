"""A Haystack pipeline whose replies are rewritten, for its streaming callback as well."""

from __future__ import annotations

from haystack import Pipeline
from haystack.components.generators.chat import MockChatGenerator
from haystack.dataclasses import ChatMessage, StreamingChunk

from guardrail import Guard
from guardrail.integrations.haystack import GuardedChatGenerator

ANSWER = "The parcel left Graz on Monday. What a stupid question that was. It arrives on Friday."


def show(chunk: StreamingChunk) -> None:
    """Prints a piece."""
    if chunk.content:
        print("piece:", chunk.content.strip())


def main() -> None:
    """A mock generator stands for a real one."""
    pipeline = Pipeline()
    pipeline.add_component("llm", GuardedChatGenerator(MockChatGenerator(ANSWER), guard=Guard()))
    asked = {"messages": [ChatMessage.from_user("Where is my parcel?")], "streaming_callback": show}
    print("reply:", pipeline.run({"llm": asked})["llm"]["replies"][0].text)


if __name__ == "__main__":
    main()
