"""Lets a chat model on a server rewrite, and verifies what it writes. Needs the extra ``remote``."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from guardrail import Guard
from guardrail.rewriters.remote import RemoteRewriter

ANSWERS = ["You brainless idiot!", 'Sure! Here is the rewrite: "Why is the report late again?"']


class Model(BaseHTTPRequestHandler):
    """Stands for vLLM, Ollama or a hosted model; its first answer is no better than the text."""

    def do_POST(self) -> None:
        """Answers with two choices."""
        body = json.dumps({"choices": [{"message": {"content": answer}} for answer in ANSWERS]}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keeps the example's output to itself."""


def main() -> None:
    """Prints what may be shown of a text, and which checks refused the other candidate."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Model) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        guard = Guard(rewriter=RemoteRewriter(f"http://127.0.0.1:{server.server_port}/v1", model="any"))
        outcome = guard.check("Why is the report late again, you stupid idiot?")
        print(f"{outcome.action}: {outcome.text}", outcome.edits[0].failed_checks)
        server.shutdown()


if __name__ == "__main__":
    main()
