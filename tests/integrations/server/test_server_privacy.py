"""Law 9 at the server: a canary and keys pass through every path and show up in no log or metric."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import pytest
from starlette.responses import JSONResponse

from guardrail import Policy
from guardrail.integrations.completions.moderator import Moderator
from guardrail.integrations.openai_server import Keys
from tests.integrations.server.running import (
    PROXY_KEY,
    UPSTREAM_KEY,
    Asked,
    Upstream,
    completion,
    delta,
    events,
    fake_guard,
    post,
    proxy,
)
from tests.waiting import PATIENCE

CANARY = "canaryword7419"
SECRET = "client-secret-0123456789"
TEXT = f"The weather in {CANARY} is fine. The driver of that {CANARY} bus is an idiot."


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG):
        yield caplog


def raises_the_text(texts: Sequence[str], *rest: int) -> Any:
    raise ValueError(texts[0])


def reply(asked: Asked) -> Any:
    """Answers with the canary, in as many wrong ways as right ones."""
    way = asked.body.get("user")
    if way == "error":
        return JSONResponse({"error": {"message": TEXT, "code": CANARY}}, status_code=400)
    if way == "malformed":
        return events([b"data: {" + CANARY.encode() + b"\n\n"])
    if asked.body.get("stream"):
        return events([delta(TEXT), delta(reason="stop"), "[DONE]"])
    return completion([TEXT])


def ask_everything(url: str, key: str) -> str:
    """Asks on every path, rightly and wrongly; what /metrics says afterwards."""
    headers = {"authorization": f"Bearer {key}", "x-note": CANARY}
    message = {"messages": [{"role": "user", "content": TEXT}], "prompt": TEXT}
    with httpx.Client(base_url=url, headers=headers, timeout=PATIENCE) as client:
        for path in ("/v1/chat/completions", "/v1/completions"):
            for user in ("fine", "error", "malformed"):
                for stream in (True, False):
                    client.post(path, json={"user": user, "stream": stream, **message})
        client.post("/v1/detoxify", json={"input": TEXT, "sentences": True})
        client.post("/v1/detoxify", json={"input": 3, CANARY: TEXT})
        client.post("/v1/detoxify", content=TEXT.encode())
        client.post("/v1/moderations", json={"model": "guardrail-moderation", "input": TEXT})
        client.post("/v1/embeddings", json={"model": "guardrail-embedding", "input": TEXT})
        client.get(f"/{CANARY}", params={"q": CANARY})
        client.get(f"/v1/models/{CANARY}")
        client.post("/v1/detoxify", json={"input": TEXT}, headers={"authorization": f"Bearer {CANARY}"})
        return client.get("/metrics").text


@pytest.mark.parametrize(
    ("policy", "part", "locked"),
    [
        (Policy(), None, True),
        (Policy(), None, False),
        (Policy(ladder=("block",)), None, False),
        (Policy(ladder=("block",), block="raise"), None, False),
        (Policy(), "detector", False),
        (Policy(), "rewriter", False),
        (Policy(), "embedder", False),
        (Policy(), "lexicon", False),
    ],
)
def test_no_log_and_no_metric_shows_text_or_keys(
    upstream: Upstream, logged: pytest.LogCaptureFixture, policy: Policy, part: str | None, locked: bool
) -> None:
    upstream.reply = reply
    guard = fake_guard(policy, **({part: raises_the_text} if part else {}))
    keys = Keys((PROXY_KEY,), UPSTREAM_KEY) if locked else Keys()
    with proxy(upstream, guard=guard, keys=keys) as url:
        metrics = ask_everything(url, PROXY_KEY if locked else SECRET)
    # This client's own log names the addresses that it asks for.
    records = [record for record in logged.records if not is_the_tests_own(record)]
    shown = "\n".join(record.getMessage() + str(record.exc_info or "") for record in records) + metrics
    assert "guardrail_outcomes_total" in metrics
    for secret in (CANARY, PROXY_KEY, UPSTREAM_KEY, SECRET):
        assert secret not in shown


def is_the_tests_own(record: logging.LogRecord) -> bool:
    """True for what the test's client logs of its own requests, in the main thread."""
    return record.threadName == "MainThread" and record.name.startswith(("httpx", "httpcore"))


def test_an_unforeseen_failure_is_logged_by_its_place_alone(
    upstream: Upstream, logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def bug(self: Moderator, text: str) -> Any:
        raise RuntimeError(f"cannot read {text}")

    monkeypatch.setattr(Moderator, "prose", bug)
    upstream.reply = lambda asked: completion([TEXT])
    with proxy(upstream) as url:
        answer = post(f"{url}/v1/chat/completions", json={})
    assert answer.status_code == 500
    assert CANARY not in answer.text + logged.text
    assert "RuntimeError in bug" in logged.text
