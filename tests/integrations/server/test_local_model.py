"""A real language model behind the proxy: SmolLM2 through transformers, asked by the real client."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI, Request
from openai import OpenAI
from starlette.responses import JSONResponse, Response, StreamingResponse

from guardrail import Guard, models
from tests.integrations.server.running import Upstream, chat_answer, delta, proxy, serving
from tests.integrations.server.test_streams import content, reasons
from tests.streaming import INLINE
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.base, pytest.mark.slow]

TOKENS = 40
QUESTION: Any = [
    {
        "role": "user",
        "content": "Repeat these two sentences, word for word, and say nothing else: "
        "The soup was warm and the bread was fresh. You are a stupid idiot and everybody hates you.",
    }
]


class LanguageModel:
    """Answers chats greedily, so that the same question gets the same answer."""

    def __init__(self, folder: str) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.network = AutoModelForCausalLM.from_pretrained(folder)

    def pieces(self, messages: Any) -> Iterator[str]:
        """The answer as it is generated."""
        from transformers import TextIteratorStreamer

        turns = self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        streamer = TextIteratorStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        options = {**turns, "max_new_tokens": TOKENS, "do_sample": False, "streamer": streamer}
        worker = threading.Thread(target=self.network.generate, kwargs=options)
        worker.start()
        yield from streamer
        worker.join()

    def app(self) -> FastAPI:
        """An OpenAI-compatible server around the model."""
        app = FastAPI()

        @app.post("/v1/chat/completions")
        async def chat(request: Request) -> Response:
            question = await request.json()
            if question.get("stream"):
                return StreamingResponse(self._events(question["messages"]), media_type="text/event-stream")
            message = {"role": "assistant", "content": "".join(self.pieces(question["messages"]))}
            return JSONResponse(chat_answer([{"index": 0, "message": message, "finish_reason": "stop"}]))

        return app

    def _events(self, messages: Any) -> Iterator[str]:
        for piece in self.pieces(messages):
            yield f"data: {json.dumps(delta(piece))}\n\n"
        yield f"data: {json.dumps(delta(reason='stop'))}\n\ndata: [DONE]\n\n"


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    folder = models.locate("smollm2-135m-instruct")
    assert folder is not None, "guardrail models pull"
    return LanguageModel(str(models.for_torch(folder)))


def test_a_real_models_insult_is_rewritten_streamed_and_whole(model: LanguageModel) -> None:
    said = "".join(model.pieces(QUESTION))
    assert "stupid" in said, "the model was to repeat the insult"
    guard = Guard(policy=INLINE)
    expected = guard.check(said)
    with (
        serving(model.app()) as upstream,
        proxy(Upstream(url=upstream), guard=guard) as url,
        OpenAI(base_url=f"{url}/v1", api_key="k", timeout=PATIENCE) as client,
    ):
        whole = client.chat.completions.create(model="smollm2", messages=QUESTION)
        chunks = list(client.chat.completions.create(model="smollm2", messages=QUESTION, stream=True))
    assert whole.choices[0].message.content == content(chunks) == expected.text
    assert "stupid" not in expected.text
    assert "soup was warm" in expected.text
    assert reasons(chunks) == {0: "stop"}
    assert len(chunks) > 2
