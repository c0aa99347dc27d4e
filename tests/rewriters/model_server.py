"""A small real server that speaks as OpenAI-compatible ones do, or misbehaves as a test wants it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

__all__ = ["Asked", "ModelServer", "Reply", "choices", "serving", "text_of"]


@dataclass(frozen=True)
class Asked:
    """One request."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def text(self) -> str:
        """What is to be rewritten, out of the last message."""
        return text_of(self.body)


@dataclass(frozen=True)
class Reply:
    """What comes back; a body that is ``cut`` ends before its announced length."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False


def text_of(body: dict[str, Any]) -> str:
    text: str = body["messages"][-1]["content"].partition("Rewrite this text:\n\n")[2]
    return text


def choices(*texts: Any, **more: Any) -> Reply:
    """A completion with one choice for each text."""
    found = [
        {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", **more}
        for i, text in enumerate(texts)
    ]
    return Reply(json.dumps({"object": "chat.completion", "choices": found}).encode())


def error(status: int, message: str = "no", *, headers: dict[str, str] | None = None, **more: Any) -> Reply:
    """An error as OpenAI-compatible servers put it."""
    return Reply(json.dumps({"error": {"message": message, **more}}).encode(), status, headers or {})


@dataclass
class ModelServer:
    """Notes what it is asked and answers with ``reply``; counts the requests that are in its hands."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    reply: Callable[[Asked], Reply] = field(default=lambda asked: choices("Fine."))
    current: int = 0
    peak: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def says(self, *replies: Reply) -> None:
        """Gives these replies one after the other, the last of them for ever."""
        left = list(replies)
        self.reply = lambda asked: left.pop(0) if len(left) > 1 else left[0]

    def answer(self, asked: Asked) -> Reply:
        with self.lock:
            self.asked.append(asked)
            self.current += 1
            self.peak = max(self.peak, self.current)
        try:
            return self.reply(asked)
        finally:
            with self.lock:
                self.current -= 1


@contextmanager
def serving() -> Iterator[ModelServer]:
    """A server on loopback until the block is left."""
    model = ModelServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = model.answer(Asked(self.path, headers, json.loads(content)))
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(reply.body) + reply.cut))
            self.end_headers()
            try:
                self.wfile.write(reply.body)
            except OSError:  # the client has left
                self.close_connection = True
            self.close_connection |= reply.cut

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128

        def handle_error(self, *_: object) -> None:
            pass  # a client that leaves in the middle is part of the tests

    with Server(("127.0.0.1", 0), Handler) as server:
        model.url = f"http://127.0.0.1:{server.server_port}/v1"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("NO_PROXY", "127.0.0.1")
            yield model
        server.shutdown()
        thread.join()


def mended(words: Sequence[str] = ("idiot", "moron")) -> Callable[[Asked], Reply]:
    """Answers as a good model does: each choice is the text with a kind word for each of these."""

    def reply(asked: Asked) -> Reply:
        text = asked.text
        for word in words:
            text = text.replace(word, "person")
        return choices(*[text] * asked.body.get("n", 1))

    return reply
