"""The OpenAI client through the proxy: the same client, another base_url. Needs the extra ``server``."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import uvicorn
from openai import OpenAI

from guardrail import Guard
from guardrail.config import ServerSettings
from guardrail.config.settings import Url
from guardrail.integrations.openai_server import create_app

ANSWER = "Your parcel left Graz on Monday. Ask that again, you stupid idiot, and I will end this chat."


class Upstream(BaseHTTPRequestHandler):
    """Stands for a language model's server: streams one answer, word by word."""

    def do_POST(self) -> None:
        """Answers any question."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        for word in ANSWER.split():
            self._send({"choices": [{"index": 0, "delta": {"content": f"{word} "}}]})
        self._send({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        self.wfile.write(b"data: [DONE]\n\n")

    def _send(self, chunk: object) -> None:
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())

    def log_message(self, *_: object) -> None:
        """Keeps the example's output to itself."""


@contextmanager
def proxy(upstream: str) -> Iterator[str]:
    """What ``guardrail serve --upstream URL`` runs, here in a thread; its address."""
    app = create_app(Guard(), settings=ServerSettings(upstream=Url(upstream)))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    server.should_exit = True
    thread.join()


def main() -> None:
    """Prints a moderated answer as it arrives, sentence by sentence."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as model:
        threading.Thread(target=model.serve_forever, daemon=True).start()
        with proxy(f"http://127.0.0.1:{model.server_port}") as address:
            client = OpenAI(base_url=address, api_key="goes on to the upstream")
            question = [{"role": "user", "content": "Where is my parcel?"}]
            stream = client.chat.completions.create(model="any", messages=question, stream=True)
            for chunk in stream:
                if chunk.choices[0].delta.content:
                    print("piece:", chunk.choices[0].delta.content.strip())
        model.shutdown()


if __name__ == "__main__":
    main()
