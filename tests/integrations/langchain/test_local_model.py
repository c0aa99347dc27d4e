"""A real chat model under moderation: SmolLM2 through transformers, from the cache of models."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import ConfigDict

from guardrail import Guard, models
from guardrail.integrations.langchain import DetoxMiddleware, wrap
from tests.streaming import INLINE

pytestmark = [pytest.mark.base, pytest.mark.slow]

PROMPT = (
    "Repeat these two sentences, word for word, and say nothing else: "
    "The soup was warm and the bread was fresh. You are a stupid idiot and everybody hates you."
)


class LocalModel(BaseChatModel):
    """A causal language model of transformers that answers greedily, token by token."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    network: Any
    tokenizer: Any
    tokens: int = 32

    @property
    def _llm_type(self) -> str:
        return "transformers"

    def _pieces(self, messages: list[BaseMessage]) -> Iterator[str]:
        """The pieces of the answer: each is what one more token adds to the text."""
        import torch

        turns = [{"role": "user", "content": str(message.text)} for message in messages]
        encoded = self.tokenizer.apply_chat_template(
            turns, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        ids, cache, answer, said = encoded["input_ids"], None, [], ""
        for _ in range(self.tokens):
            with torch.inference_mode():
                out = self.network(input_ids=ids, past_key_values=cache, use_cache=True)
            token = int(out.logits[0, -1].argmax())
            if token == self.tokenizer.eos_token_id:
                return
            ids, cache = torch.tensor([[token]]), out.past_key_values
            answer.append(token)
            text = self.tokenizer.decode(answer, skip_special_tokens=True)
            yield text[len(said) :]
            said = text

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        message = AIMessage("".join(self._pieces(messages)))
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for piece in self._pieces(messages):
            yield ChatGenerationChunk(message=AIMessageChunk(content=piece))


@pytest.fixture(scope="module")
def local() -> LocalModel:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = models.locate("smollm2-135m-instruct")
    assert folder is not None, "guardrail models pull smollm2-135m-instruct"
    folder = models.for_torch(folder)
    network = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return LocalModel(network=network, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def guard() -> Guard:
    return Guard(policy=INLINE)


@pytest.fixture(scope="module")
def said(local: LocalModel) -> str:
    """What the model says unguarded."""
    return str(local.invoke(PROMPT).text)


@pytest.fixture(scope="module")
def released(guard: Guard, said: str) -> str:
    """What may be shown of it."""
    return guard.check(said).text


def test_the_model_itself_says_something_toxic(said: str, released: str) -> None:
    assert said != released


def test_invoke_gives_what_check_gives(guard: Guard, local: LocalModel, released: str) -> None:
    assert wrap(guard, local).invoke(PROMPT).text == released


def test_both_streams_add_up_to_what_check_gives(guard: Guard, local: LocalModel, released: str) -> None:
    async def gather() -> str:
        return "".join([str(chunk.text) async for chunk in wrap(guard, local).astream(PROMPT)])

    assert "".join(str(chunk.text) for chunk in wrap(guard, local).stream(PROMPT)) == released
    assert asyncio.run(gather()) == released


def test_an_agent_streams_what_check_gives(guard: Guard, local: LocalModel, released: str) -> None:
    agent = create_agent(local, middleware=[DetoxMiddleware(guard)])
    question: Any = {"messages": [HumanMessage(PROMPT)]}
    events: Any = agent.stream(question, stream_mode="messages")
    pieces = [chunk for chunk, _ in events]
    assert "".join(str(chunk.text) for chunk in pieces) == released
