"""Real servers on loopback, each in a thread of its own, and an upstream that says what a test wants."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx
import uvicorn
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import ASGIApp

from guardrail import Guard, Policy
from guardrail.config import ServerSettings
from guardrail.config.settings import Url
from guardrail.integrations.openai_server import Keys, create_app
from tests.fakes import BagEmbedder, WordDetector, WordRewriter
from tests.waiting import PATIENCE

TOXIC = "The driver of that bus is an idiot."
MENDED = "The driver of that bus is an person."
CLEAN = "The weather in the valley is fine today."
PROXY_KEY = "proxy-key-0123456789"
UPSTREAM_KEY = "upstream-key-9876543210"

Reply = Callable[["Asked"], Response | Awaitable[Response]]


@contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """Serves the application until the block is left; its address."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        app, log_level="critical", access_log=False, ws="none", timeout_graceful_shutdown=1, log_config=None
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    _wait_until_up(listener)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        listener.close()


def _wait_until_up(listener: socket.socket) -> None:
    # The socket is bound, so the connection waits in its queue until the server accepts it.
    listener.listen(2048)
    with socket.create_connection(listener.getsockname(), timeout=PATIENCE) as probe:
        probe.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        assert probe.recv(1)


def get(url: str, **options: Any) -> httpx.Response:
    """The answer to a GET, however long a busy machine takes over it."""
    return httpx.get(url, timeout=PATIENCE, **options)


def post(url: str, **options: Any) -> httpx.Response:
    """The answer to a POST, likewise."""
    return httpx.post(url, timeout=PATIENCE, **options)


@dataclass(frozen=True)
class Asked:
    """What the upstream was asked."""

    method: str
    path: str
    headers: list[tuple[str, str]]
    body: dict[str, Any]

    def header(self, name: str) -> str | None:
        """The first header of that name."""
        return next((value for key, value in self.headers if key == name), None)


@dataclass
class Upstream:
    """A small server that notes what it is asked and answers with ``reply``."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    reply: Reply = field(default=lambda asked: completion([CLEAN]))

    def app(self) -> FastAPI:
        """Answers every path."""
        app = FastAPI()

        @app.api_route("/{path:path}", methods=["GET", "POST"])
        async def answer(request: Request, path: str) -> Response:
            body = await request.body()
            asked = Asked(
                request.method, f"/{path}", list(request.headers.items()), json.loads(body) if body else {}
            )
            if path == "healthz":
                return Response()
            self.asked.append(asked)
            reply = self.reply(asked)
            return reply if isinstance(reply, Response) else await reply

        return app

    def says(self, *chunks: dict[str, Any] | str | bytes, **headers: str) -> None:
        """From now on every answer is a stream of these events."""
        self.reply = lambda asked: events(chunks, headers)


def completion(texts: Sequence[str | None], **message: Any) -> Response:
    """A whole answer with one choice for each text."""
    choices = [
        {"index": i, "message": {"role": "assistant", "content": text, **message}, "finish_reason": "stop"}
        for i, text in enumerate(texts)
    ]
    return JSONResponse(chat_answer(choices))


@contextmanager
def silence() -> Iterator[Reply]:
    """A reply that does not come before the block is left."""
    over = threading.Event()

    async def reply(asked: Asked) -> Response:
        while not over.is_set():
            await anyio.sleep(0.001)
        return completion([CLEAN])

    try:
        yield reply
    finally:
        over.set()


def chat_answer(choices: Sequence[dict[str, Any]], **rest: Any) -> dict[str, Any]:
    """The body of a whole answer."""
    usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1700000000, "model": "small-1"}
    return head | {"choices": list(choices), "usage": usage} | rest


def delta(
    text: str | None = None, *, index: int = 0, reason: str | None = None, **fields: Any
) -> dict[str, Any]:
    """One chunk of a streamed chat answer."""
    content = {} if text is None else {"content": text}
    choice = {"index": index, "delta": content | fields, "finish_reason": reason}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1700000000, "model": "small-1"}
    return head | {"choices": [choice]}


def text_delta(text: str, *, index: int = 0, reason: str | None = None) -> dict[str, Any]:
    """One chunk of a streamed text completion."""
    choice = {"index": index, "text": text, "finish_reason": reason, "logprobs": None}
    return {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]}


def usage_chunk() -> dict[str, Any]:
    """The last chunk of a stream whose usage was asked for."""
    usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    return {"id": "chatcmpl-1", "created": 1, "model": "small-1", "choices": [], "usage": usage}


def events(chunks: Sequence[dict[str, Any] | str | bytes], headers: dict[str, str] | None = None) -> Response:
    """A stream of these events."""

    async def body() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield encoded(chunk)
            await anyio.sleep(0)

    return streaming(body(), headers)


def encoded(chunk: dict[str, Any] | str | bytes) -> bytes:
    """A dictionary as an event with JSON, a string as the event's payload, bytes as they are."""
    if isinstance(chunk, bytes):
        return chunk
    payload = chunk if isinstance(chunk, str) else json.dumps(chunk)
    return f"data: {payload}\n\n".encode()


def streaming(body: AsyncIterator[bytes], headers: dict[str, str] | None = None) -> Response:
    """A stream of events from their bytes."""
    named = {name.replace("_", "-"): value for name, value in (headers or {}).items()}
    return StreamingResponse(body, media_type="text/event-stream", headers=named)


def fake_guard(policy: Policy | None = None, **parts: Any) -> Guard:
    """A guard on words."""
    fakes: dict[str, Any] = {
        "detector": WordDetector(),
        "rewriter": WordRewriter(),
        "embedder": BagEmbedder(),
        "lexicon": WordDetector(),
    }
    return Guard(policy=policy, **fakes | parts)


@contextmanager
def proxy(
    upstream: Upstream | None = None, *, guard: Guard | None = None, keys: Keys | None = None, **settings: Any
) -> Iterator[str]:
    """The server under test before an upstream; its address."""
    chosen = ServerSettings(upstream=Url(f"{upstream.url}/v1") if upstream else None, **settings)
    with serving(create_app(guard or fake_guard(), settings=chosen, keys=keys or Keys())) as url:
        yield url
