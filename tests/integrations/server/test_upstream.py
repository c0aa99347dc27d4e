"""The upstream's side: its errors reach clients as they expect them, its headers and redirects do not."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import openai
import pytest
from openai import OpenAI
from starlette.responses import JSONResponse, RedirectResponse, Response

from guardrail.config import ServerSettings
from guardrail.config.settings import Url
from guardrail.errors import ConfigError
from guardrail.integrations.openai_server import Keys, create_app
from tests.integrations.server.running import (
    CLEAN,
    PROXY_KEY,
    TOXIC,
    UPSTREAM_KEY,
    Upstream,
    completion,
    delta,
    encoded,
    fake_guard,
    post,
    proxy,
    silence,
    streaming,
)
from tests.integrations.server.test_completions import ask
from tests.integrations.server.test_streams import stream
from tests.waiting import PATIENCE

HOP_BY_HOP = ("connection", "keep-alive", "te", "trailer", "upgrade", "proxy-authorization", "x-named")


def refusing(status: int, error: Any, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda asked: JSONResponse({"error": error}, status_code=status, headers=named)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (403, openai.PermissionDeniedError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (529, openai.InternalServerError),
    ],
)
def test_errors_reach_the_client_as_its_own_exceptions(
    client: OpenAI, upstream: Upstream, status: int, kind: type[openai.APIStatusError], streamed: bool
) -> None:
    error = {"message": "Not now.", "type": "some_error", "code": "some_code", "param": "messages"}
    upstream.reply = refusing(status, error, retry_after="7", x_request_id="req-1", x_ratelimit_limit="9")
    with pytest.raises(kind) as caught:
        stream(client) if streamed else ask(client)
    assert caught.value.status_code == status
    assert caught.value.body == error
    assert caught.value.response.headers["retry-after"] == "7"
    assert caught.value.response.headers["x-ratelimit-limit"] == "9"
    assert caught.value.response.headers["x-upstream-request-id"] == "req-1"


def test_a_toxic_message_of_an_error_is_withheld(client: OpenAI, upstream: Upstream) -> None:
    upstream.reply = refusing(
        400, {"message": TOXIC, "type": TOXIC, "code": TOXIC, "param": TOXIC, "more": TOXIC}
    )
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client)
    assert "idiot" not in str(caught.value)
    assert "withheld" in str(caught.value)


@pytest.mark.parametrize("content", [b"<html>idiot</html>", b"", b'"idiot"', b'{"detail": "idiot"}'])
def test_an_error_of_another_shape_becomes_one_of_the_right_shape(
    client: OpenAI, upstream: Upstream, content: bytes
) -> None:
    upstream.reply = lambda asked: Response(content, status_code=503)
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client)
    assert caught.value.status_code == 503
    assert "idiot" not in str(caught.value)
    assert caught.value.type == "upstream_error"


@pytest.mark.parametrize(
    "reply",
    [
        Response("idiot", media_type="application/json"),
        Response('{"choices": NaN}', media_type="application/json"),
        Response("[" * 100_000, media_type="application/json"),
        JSONResponse({"choices": "idiot"}),
        JSONResponse({"choices": [{"message": {"content": {"idiot": 1}}}]}),
        JSONResponse({"choices": [{"message": "idiot"}]}),
        JSONResponse({"choices": [{"index": 1}, {"index": 1}]}),
        Response("{}", status_code=202),
        Response(status_code=204),
    ],
)
def test_an_answer_that_cannot_be_read_is_a_502_and_never_passes(
    client: OpenAI, upstream: Upstream, reply: Response
) -> None:
    upstream.reply = lambda asked: reply
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client)
    assert (caught.value.status_code, caught.value.code) == (502, "upstream_malformed")
    assert "idiot" not in str(caught.value)


def test_an_answer_in_one_piece_to_a_question_for_a_stream_is_a_502(
    client: OpenAI, upstream: Upstream
) -> None:
    upstream.reply = lambda asked: completion([TOXIC])
    with pytest.raises(openai.InternalServerError) as caught:
        stream(client)
    assert caught.value.code == "upstream_malformed"


def test_a_redirect_is_not_followed(client: OpenAI, upstream: Upstream) -> None:
    upstream.reply = lambda asked: RedirectResponse("/elsewhere")
    with pytest.raises(openai.InternalServerError) as caught:
        ask(client)
    assert caught.value.status_code == 502
    assert [asked.path for asked in upstream.asked] == ["/v1/chat/completions"]


def test_an_upstream_that_is_not_there_is_a_502(upstream: Upstream) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = Upstream(url=f"http://127.0.0.1:{free.getsockname()[1]}")
        with (
            proxy(gone) as url,
            OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client,
            pytest.raises(openai.InternalServerError) as caught,
        ):
            ask(client)
    assert caught.value.code == "upstream_disconnected"


@pytest.mark.parametrize("streamed", [False, True])
def test_a_silent_upstream_is_a_timeout(upstream: Upstream, streamed: bool) -> None:
    with (
        silence() as upstream.reply,
        proxy(upstream, timeout=0.05) as url,
        OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client,
        pytest.raises(openai.InternalServerError) as caught,
    ):
        stream(client) if streamed else ask(client)
    assert (caught.value.status_code, caught.value.code) == (504, "upstream_timeout")


def test_a_stream_that_falls_silent_ends_with_an_error(upstream: Upstream) -> None:
    async def falling_silent() -> AsyncIterator[bytes]:
        yield encoded(delta(f"{CLEAN} And"))
        await anyio.sleep_forever()

    upstream.reply = lambda asked: streaming(falling_silent())
    with (
        proxy(upstream, timeout=0.05) as url,
        OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client,
        pytest.raises(openai.APIError) as caught,
    ):
        stream(client)
    assert caught.value.code == "upstream_timeout"


def test_an_answer_beyond_the_limit_is_not_read_to_its_end(upstream: Upstream) -> None:
    upstream.reply = lambda asked: completion(["x" * 5000])
    with (
        proxy(upstream, max_answer=2000) as url,
        OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client,
        pytest.raises(openai.InternalServerError) as caught,
    ):
        ask(client)
    assert caught.value.code == "upstream_malformed"


def test_headers_of_the_connection_stay_on_their_side(url: str, upstream: Upstream) -> None:
    upstream.reply = lambda asked: JSONResponse(
        {"choices": []},
        headers={
            "connection": "x-request-id",
            "x-request-id": "named-by-connection",
            "x-debug": TOXIC,
            "set-cookie": "session=1",
            "server": "upstream",
            "retry-after": "Wed, 21 Oct 2026 07:28:00 GMT",
        },
    )
    sent = {
        "connection": "keep-alive, x-named",
        "keep-alive": "timeout=5",
        "te": "trailers",
        "trailer": "x-sum",
        "upgrade": "h2c",
        "proxy-authorization": "Basic x",
        "x-named": "1",
        "cookie": "mine=1",
        "accept-encoding": "gzip",
        "openai-organization": "org",
        "authorization": "Bearer mine",
    }
    answer = post(f"{url}/v1/chat/completions", json={"model": "m"}, headers=sent)
    assert answer.status_code == 200
    (asked,) = upstream.asked
    names = {name for name, _ in asked.headers}
    assert names.isdisjoint({*HOP_BY_HOP, "cookie"} - {"connection"})
    assert (asked.header("connection"), asked.header("accept-encoding")) == ("keep-alive", "identity")
    assert (asked.header("openai-organization"), asked.header("authorization")) == ("org", "Bearer mine")
    assert asked.header("host") == httpx.URL(upstream.url).netloc.decode()
    assert "named-by-connection" not in answer.headers.values()
    assert answer.headers["retry-after"].startswith("Wed")
    assert "x-debug" not in answer.headers
    assert "set-cookie" not in answer.headers


def test_a_cookie_of_the_upstream_does_not_come_back_with_the_next_request(
    client: OpenAI, upstream: Upstream
) -> None:
    upstream.reply = lambda asked: JSONResponse({"choices": []}, headers={"set-cookie": "session=1"})
    ask(client)
    ask(client)
    assert upstream.asked[1].header("cookie") is None


def test_with_proxy_keys_the_upstream_gets_its_own_key(upstream: Upstream) -> None:
    keys = Keys(proxy=(PROXY_KEY,), upstream=UPSTREAM_KEY)
    with proxy(upstream, keys=keys) as url, OpenAI(base_url=f"{url}/v1", api_key=PROXY_KEY) as client:
        ask(client, extra_headers={"api-key": "mine", "x-api-key": "mine"})
        upstream.reply = refusing(401, {"message": f"Incorrect API key provided: {UPSTREAM_KEY[-8:]}"})
        with pytest.raises(openai.InternalServerError) as caught:
            client.with_options(max_retries=0).models.list()
    assert upstream.asked[0].header("authorization") == f"Bearer {UPSTREAM_KEY}"
    assert upstream.asked[0].header("api-key") is None
    assert upstream.asked[0].header("x-api-key") is None
    assert caught.value.code == "upstream_unauthorized"
    assert UPSTREAM_KEY[-8:] not in str(caught.value)


def test_with_proxy_keys_and_no_key_of_the_upstream_none_is_sent(upstream: Upstream) -> None:
    keys = Keys(proxy=(PROXY_KEY,))
    with proxy(upstream, keys=keys) as url, OpenAI(base_url=f"{url}/v1", api_key=PROXY_KEY) as client:
        ask(client)
    assert upstream.asked[0].header("authorization") is None


@pytest.mark.parametrize(
    "address",
    [
        "ftp://host/v1",
        "http:///v1",
        "http://user:secret@host/v1",
        "http://host/v1?key=secret",
        "http://host#x",
    ],
)
def test_an_upstream_must_be_a_plain_address(address: str) -> None:
    with pytest.raises(ConfigError, match="server upstream") as caught:
        create_app(fake_guard(), settings=ServerSettings(upstream=Url(address)), keys=Keys())
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_the_address_may_end_with_v1_or_not(upstream: Upstream, suffix: str) -> None:
    settings = ServerSettings(upstream=Url(f"{upstream.url}{suffix}"))
    from tests.integrations.server.running import serving

    with (
        serving(create_app(fake_guard(), settings=settings, keys=Keys())) as url,
        OpenAI(base_url=f"{url}/v1", api_key="k") as client,
    ):
        ask(client)
    assert upstream.asked[0].path == "/v1/chat/completions"


def test_a_client_that_leaves_while_a_whole_answer_is_awaited_ends_the_call_upstream(
    url: str, upstream: Upstream
) -> None:
    begun, left = threading.Event(), threading.Event()

    async def slow(asked: Any) -> Response:
        begun.set()

        async def body() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b" "
                    await anyio.sleep(0.001)
            finally:
                left.set()

        return streaming(body())

    upstream.reply = slow
    host, port = httpx.URL(url).host, httpx.URL(url).port
    body = json.dumps({"model": "m", "messages": []}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((host, port or 0)) as connection:
        connection.sendall(head.encode() + body)
        assert begun.wait(PATIENCE)
    assert left.wait(PATIENCE)
