"""A FastAPI app of one's own with the guard in it, one answer whole and one streamed."""

from __future__ import annotations

from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient

from guardrail import Guard, Policy

REVIEWS = ["The soup was warm. ", "The idiot who wrote this menu cannot spell. ", "We paid 23 euros."]

app = FastAPI()
guard = Guard(
    policy=Policy(ladder=("mask", "block"))
)  # one for the app: concurrent requests share model calls


async def written() -> AsyncIterator[str]:
    """What a language model would write, piece by piece."""
    for piece in REVIEWS:
        yield piece


@app.get("/review")
async def review() -> dict[str, object]:
    """The whole text, and what was done to it."""
    outcome = await guard.acheck("".join(REVIEWS))
    return {"text": outcome.text, "action": outcome.action, "score": round(outcome.verdict.score, 2)}


@app.get("/stream")
async def stream() -> StreamingResponse:
    """Each sentence as soon as it was judged."""
    return StreamingResponse(guard.astream(written()), media_type="text/plain")


def main() -> None:
    """Asks both paths; ``uvicorn`` would serve the same app."""
    with TestClient(app) as client:
        print("whole: ", client.get("/review").json())
        print("stream:", client.get("/stream").text)


if __name__ == "__main__":
    main()
