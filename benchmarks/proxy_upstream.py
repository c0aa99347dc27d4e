"""A language model's server that answers at once, for the benchmark of the proxy; it prints its port.

``seed`` of a request says which answer is wanted, so that two runs get the same ones; ``pace`` in its body is
the number of tokens a second, without it all of them are written at once. Raw asyncio, so that it takes as
little of the processor as it can.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets

from benchmarks.prose import PROSE

__all__ = ["ANSWERS", "WORDS", "answer", "main", "tokens"]

WORDS = 55
ANSWERS = 97
_WORDS = PROSE.split()
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\n%s\r\n\r\n"
ENVELOPE = {
    "id": f"chatcmpl-{secrets.token_hex(12)}",
    "object": "chat.completion.chunk",
    "created": 1700000000,
    "model": "fake-1",
}


def answer(seed: int) -> str:
    """55 words of prose, from another place of it for each seed."""
    start = seed % ANSWERS * 7 % len(_WORDS)
    return " ".join((_WORDS + _WORDS)[start : start + WORDS])


def tokens(text: str) -> list[str]:
    """The text in pieces of about a token's length."""
    return re.findall(r"\s?\w+|[^\w\s]|\s", text)


def _chunk(delta: dict[str, str], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return f"data: {json.dumps(ENVELOPE | {'choices': [choice]})}\n\n".encode()


def _framed(content: bytes) -> bytes:
    return f"{len(content):x}\r\n".encode() + content + b"\r\n"


async def _stream(writer: asyncio.StreamWriter, text: str, pace: float) -> None:
    writer.write(HEAD % (b"text/event-stream", b"transfer-encoding: chunked"))
    started = asyncio.get_running_loop().time()
    for number, token in enumerate(tokens(text), 1):
        if pace:
            await asyncio.sleep(started + number / pace - asyncio.get_running_loop().time())
        writer.write(_framed(_chunk({"content": token})))
    writer.write(_framed(_chunk({}, "stop") + b"data: [DONE]\n\n") + b"0\r\n\r\n")
    await writer.drain()


def _whole(text: str) -> bytes:
    message = {"role": "assistant", "content": text}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    usage = {"prompt_tokens": 5, "completion_tokens": 70, "total_tokens": 75}
    body = json.dumps(ENVELOPE | {"object": "chat.completion", "choices": choices, "usage": usage}).encode()
    return HEAD % (b"application/json", b"content-length: %d" % len(body)) + body


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(re.search(rb"content-length: (\d+)", head.lower() + b"content-length: 0")[1])  # type: ignore[index]  # it is there
            asked = json.loads(await reader.readexactly(length) or b"{}")
            text = answer(asked.get("seed", 0))
            if asked.get("stream"):
                await _stream(writer, text, asked.get("pace", 0.0))
            else:
                writer.write(_whole(text))
                await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main() -> None:
    """Serves until it is killed."""
    server = await asyncio.start_server(_serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
