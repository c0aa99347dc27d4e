"""Who gets in, how much gets in, and which paths there are."""

from __future__ import annotations

import contextlib
import hmac
import socket
import threading
from typing import Any

import anyio
import httpx
import openai
import pytest
from openai import OpenAI
from starlette.responses import JSONResponse, Response

from guardrail.errors import ConfigError
from guardrail.integrations.openai_server import Keys
from guardrail.integrations.web.auth import require_safe_address
from tests.integrations.server.running import (
    PROXY_KEY,
    UPSTREAM_KEY,
    Upstream,
    completion,
    get,
    post,
    proxy,
    silence,
)
from tests.integrations.server.test_completions import ask
from tests.waiting import PATIENCE, wait_until

KEYS = Keys(proxy=("another-key-0123456789", PROXY_KEY), upstream=UPSTREAM_KEY)


@pytest.mark.parametrize("key", ["wrong-key-0123456789", PROXY_KEY[:-1], f"{PROXY_KEY}x", "ключ-ключ-ключ"])
def test_a_wrong_key_is_turned_away_before_anything_is_asked(upstream: Upstream, key: str) -> None:
    with proxy(upstream, keys=KEYS) as url:
        headers = {"authorization": f"Bearer {key}".encode()}
        answer = post(f"{url}/v1/chat/completions", json={}, headers=headers)  # type: ignore[arg-type]
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert upstream.asked == []


def test_the_client_hears_of_a_wrong_key_as_of_any_other(upstream: Upstream) -> None:
    with (
        proxy(upstream, keys=KEYS) as url,
        OpenAI(base_url=f"{url}/v1", api_key="wrong-key-0123456789") as client,
        pytest.raises(openai.AuthenticationError, match="no valid key"),
    ):
        ask(client)


def test_each_of_several_keys_opens_and_only_what_holds_text_or_figures_is_locked(upstream: Upstream) -> None:
    with proxy(upstream, keys=KEYS) as url:
        for key in KEYS.proxy:
            opened = get(f"{url}/metrics", headers={"authorization": f"bearer {key}"})
            assert opened.status_code == 200
        statuses = {
            path: get(f"{url}{path}").status_code
            for path in ("/", "/page.js", "/healthz", "/metrics", "/v1/models", "/v1/anything")
        }
    assert statuses == {
        "/": 200,
        "/page.js": 200,
        "/healthz": 200,
        "/metrics": 401,
        "/v1/models": 401,
        "/v1/anything": 401,
    }


def test_keys_come_from_the_environment_and_are_never_printed() -> None:
    environ = {
        "GUARDRAIL_PROXY_KEYS": f" {PROXY_KEY} ,another-key-0123456789,",
        "GUARDRAIL_UPSTREAM_KEY": "up",
    }
    keys = Keys.from_environment(environ)
    assert keys == Keys((PROXY_KEY, "another-key-0123456789"), "up")
    assert repr(keys) == "Keys()"
    assert Keys.from_environment({}) == Keys()


@pytest.mark.parametrize(
    ("value", "told"), [("short", "16 characters"), (" , ", "holds no key"), ("", "no key")]
)
def test_a_key_that_protects_nothing_is_refused(value: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        Keys.from_environment({"GUARDRAIL_PROXY_KEYS": value})
    assert "short" not in str(caught.value)


@pytest.mark.parametrize(
    ("shown", "admitted"),
    [
        (None, False),
        ("Bearer", False),
        ("Bearer x", False),
        (f"Bearer {PROXY_KEY[:-1]}?", False),
        (f"Basic {PROXY_KEY}", False),
        *[(f"Bearer {key}", True) for key in KEYS.proxy],
    ],
)
def test_what_is_shown_is_compared_with_every_key_in_constant_time(
    monkeypatch: pytest.MonkeyPatch, shown: str | None, admitted: bool
) -> None:
    compared: list[bytes] = []
    in_constant_time = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return in_constant_time(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert KEYS.admit(shown) is admitted
    assert compared == [key.encode() for key in KEYS.proxy]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "127.0.0.1.example.org"])
def test_an_address_that_others_can_reach_needs_keys(host: str) -> None:
    with pytest.raises(ConfigError, match="GUARDRAIL_PROXY_KEYS"):
        require_safe_address(host, Keys())
    require_safe_address(host, KEYS)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machines_own_addresses_need_none(host: str) -> None:
    require_safe_address(host, Keys())


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"origin": "https://elsewhere.example"}, "origin"),
        ({"origin": "null"}, "origin"),
        ({"host": "elsewhere.example"}, "host"),
        ({"host": "[::1"}, "host"),
        ({"origin": "http://[::1"}, "origin"),
        ({"host": "elsewhere.example", "origin": "http://elsewhere.example"}, "host"),
    ],
)
def test_other_peoples_web_pages_get_no_answer(
    url: str, upstream: Upstream, headers: dict[str, str], code: str
) -> None:
    answer = post(f"{url}/v1/chat/completions", json={}, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, code)
    assert upstream.asked == []


def test_our_own_page_gets_answers(url: str) -> None:
    answer = post(f"{url}/v1/detoxify", json={"input": "Fine."}, headers={"origin": url})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v1/files",
        "/v1/responses",
        "/v1/chat",
        "/chat/completions",
        "/v1/chat/completions/",
        "/docs",
        "/openapi.json",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_other_paths_do_not_exist(url: str, upstream: Upstream, method: str, path: str) -> None:
    answer = httpx.request(method, f"{url}{path}", timeout=PATIENCE)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "unknown_url"
    assert upstream.asked == []


def test_a_wrong_method_is_an_error_of_the_same_shape(url: str) -> None:
    answer = get(f"{url}/v1/chat/completions")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert answer.json()["error"]["message"] == "Method Not Allowed"


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
    assert (busy.status_code, busy.headers["retry-after"]) == (503, "1")
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
        wait_until(lambda: post(f"{url}/v1/detoxify", json={"input": "Fine."}).status_code == 503)
        for path in ("/healthz", "/metrics", "/readyz"):
            for method in ("GET", "HEAD"):
                answer = httpx.request(method, f"{url}{path}", timeout=PATIENCE)
                assert answer.status_code == 200 or path == "/readyz", answer.text
                assert "retry-after" not in answer.headers
        figures = get(f"{url}/metrics").text
    assert 'guardrail_limited_total{limit="overloaded"}' in figures


@pytest.mark.parametrize(
    "path",
    ["/", "/page.js", "/icon.svg", "/healthz", "/readyz", "/metrics", "/v1/models", "/v1/models/small-1"],
)
def test_head_is_answered_like_get_without_a_body(url: str, upstream: Upstream, path: str) -> None:
    upstream.reply = lambda asked: JSONResponse({"data": [{"id": "small-1"}]})
    wait_until(lambda: get(f"{url}/readyz").status_code == 200)
    shown, head = get(f"{url}{path}"), httpx.head(f"{url}{path}", timeout=PATIENCE)
    assert (head.status_code, head.content) == (shown.status_code, b"")
    assert head.headers["content-type"] == shown.headers["content-type"]
    assert path == "/metrics" or head.headers["content-length"] == shown.headers["content-length"]
    assert shown.status_code == 200
    other = httpx.delete(f"{url}{path}", timeout=PATIENCE)
    assert other.status_code == 405
    assert {*other.headers["allow"].split(", ")} == {"GET", "HEAD"}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/detoxify"])
def test_head_of_what_is_asked_with_a_body_is_a_wrong_method(url: str, path: str) -> None:
    answer = httpx.head(f"{url}{path}", timeout=PATIENCE)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("streamed", [True, False])
def test_a_request_has_a_time_in_all(upstream: Upstream, streamed: bool) -> None:
    with silence() as upstream.reply, proxy(upstream, max_seconds=0.05) as url:
        answer = post(f"{url}/v1/chat/completions", json={"stream": streamed})
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
