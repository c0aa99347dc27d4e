"""A LangChain chain under moderation: called as a whole, streamed, and in batches."""

from __future__ import annotations

from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from guardrail import Guard
from guardrail.integrations.langchain import wrap

REVIEW = "The second chapter is clear and well written. The man who wrote it is a stupid idiot."


def main() -> None:
    """Prints one answer of a model in three ways; any chat model can stand in for the scripted one."""
    model = FakeListChatModel(responses=[REVIEW])
    prompt = ChatPromptTemplate.from_messages([("user", "What do you think of {book}?")])
    chain = wrap(Guard(), prompt | model | StrOutputParser())

    print("invoke:", chain.invoke({"book": "the manual"}))
    for sentence in chain.stream({"book": "the manual"}):  # the model says it letter by letter
        print("stream:", sentence.strip())
    print("batch: ", *chain.batch([{"book": "the manual"}]))


if __name__ == "__main__":
    main()
