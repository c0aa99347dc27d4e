"""How much gets in: bodies, requests at a time, seconds."""

from __future__ import annotations

import contextlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import httpx
import pytest
from openai import OpenAI
from starlette.responses import Response

from guardrail import Policy
from tests.fakes import WordDetector
from tests.integrations.server.running import (
    CLEAN,
    Upstream,
    completion,
    delta,
    fake_guard,
    get,
    post,
    proxy,
    silence,
)
from tests.integrations.server.test_completions import ask
from tests.waiting import PATIENCE, wait_until


@pytest.mark.parametrize("body", [b"", b"no JSON", b"[]", b'"text"', b"\xff", b"[" * 50_000])
def test_a_body_that_is_no_object_is_a_400(url: str, upstream: Upstream, body: bytes) -> None:
    answer = post(f"{url}/v1/chat/completions", content=body)
    assert answer.status_code == 400
    assert upstream.asked == []


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_beyond_the_limit_is_refused(upstream: Upstream, declared: bool) -> None:
    content = b'{"model": "' + b"x" * 3000 + b'"}'
    with proxy(upstream, max_body=2000) as url:
        answer = post(f"{url}/v1/chat/completions", content=content if declared else iter([content]))
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_too_large"
    assert upstream.asked == []


def test_a_body_that_does_not_arrive_in_time_is_refused(upstream: Upstream) -> None:
    with proxy(upstream, body_timeout=0.05) as url:
        host, port = httpx.URL(url).host, httpx.URL(url).port
        with socket.create_connection((host, port or 0)) as connection:
            head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: 10\r\n\r\n{{"
            connection.sendall(head.encode())
            assert connection.recv(64).startswith(b"HTTP/1.1 408")


def test_more_requests_than_the_limit_are_told_to_come_back(upstream: Upstream) -> None:
    begun, release = threading.Event(), threading.Event()

    async def slow(asked: Any) -> Response:
        begun.set()
        while not release.is_set():
            await anyio.sleep(0.001)
        return completion(["fine"])

    upstream.reply = slow
    answers: list[Any] = []
    with (
        proxy(upstream, max_requests=1) as url,
        OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client,
    ):
        first = threading.Thread(target=lambda: answers.append(ask(client)))
        first.start()
        assert begun.wait(PATIENCE)
        busy = post(f"{url}/v1/chat/completions", json={})
        healthy = get(f"{url}/healthz")
        release.set()
        first.join()
        again = post(f"{url}/v1/detoxify", json={"input": "Fine."})
    assert (busy.status_code, busy.headers["retry-after"]) == (429, "1")
    assert busy.json()["error"]["code"] == "overloaded"
    assert (healthy.status_code, again.status_code) == (200, 200)
    assert len(answers) == 1


def test_bodies_that_are_sent_by_halves_keep_nobody_from_health_and_figures(upstream: Upstream) -> None:
    with proxy(upstream, max_requests=3) as url, contextlib.ExitStack() as stack:
        host, port = httpx.URL(url).host, httpx.URL(url).port or 0
        for path in ("/v1/chat/completions", "/metrics", "/healthz", "/v1/detoxify", "/v1/moderations"):
            connection = stack.enter_context(socket.create_connection((host, port)))
            head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 10\r\n\r\n{{"
            connection.sendall(head.encode())
        wait_until(lambda: post(f"{url}/v1/detoxify", json={"input": "Fine."}).status_code == 429)
        for path in ("/healthz", "/metrics", "/readyz"):
            for method in ("GET", "HEAD"):
                answer = httpx.request(method, f"{url}{path}", timeout=PATIENCE)
                assert answer.status_code == 200 or path == "/readyz", answer.text
                assert "retry-after" not in answer.headers
        figures = get(f"{url}/metrics").text
    assert 'guardrail_limited_total{limit="overloaded"}' in figures


@pytest.mark.parametrize("streamed", [True, False])
def test_a_request_has_a_time_in_all(upstream: Upstream, streamed: bool) -> None:
    with silence() as upstream.reply, proxy(upstream, max_seconds=0.05) as url:
        answer = post(f"{url}/v1/chat/completions", json={"stream": streamed})
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")


@pytest.mark.parametrize("streamed", [True, False])
def test_an_answer_that_costs_too_much_ends_with_an_error(upstream: Upstream, streamed: bool) -> None:
    text = f"{CLEAN} " * 200
    if streamed:
        upstream.says(*(delta(f"{CLEAN} ") for _ in range(200)), delta(reason="stop"), "[DONE]")
    else:
        upstream.reply = lambda asked: completion([text])
    with proxy(upstream, max_model_seconds=0.001, guard=fake_guard(Policy(batch=2))) as url:
        answer = post(f"{url}/v1/chat/completions", json={"stream": streamed})
        figures = get(f"{url}/metrics").text
    assert '"too_costly"' in answer.text
    assert len(answer.text) < len(text)
    assert answer.status_code == (200 if streamed else 413)
    assert ('guardrail_cut_streams_total{code="too_costly"} 1.0' in figures) == streamed


def test_while_texts_wait_too_long_further_requests_are_refused(upstream: Upstream) -> None:
    release = threading.Event()

    class Slow(WordDetector):
        def detect(self, texts: Any) -> Any:
            release.wait(PATIENCE)
            return super().detect(texts)

    guard = fake_guard(Policy(batch=1), detector=Slow())
    with proxy(upstream, guard=guard, max_wait=0.05) as url, ThreadPoolExecutor(8) as pool:
        try:
            asked = [pool.submit(post, f"{url}/v1/detoxify", json={"input": CLEAN}) for _ in range(6)]
            wait_until(lambda: post(f"{url}/v1/detoxify", json={}).status_code == 429)  # else a 400
            refused = post(f"{url}/v1/detoxify", json={})
        finally:
            release.set()
        statuses = [each.result().status_code for each in asked]
        assert post(f"{url}/v1/detoxify", json={"input": CLEAN}).status_code == 200
    assert refused.json()["error"]["code"] == "overloaded"
    assert int(refused.headers["retry-after"]) >= 1
    assert set(statuses) <= {200, 429}
