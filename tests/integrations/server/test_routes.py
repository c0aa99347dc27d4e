"""Which paths there are, and what becomes of others."""

from __future__ import annotations

import httpx
import pytest
from starlette.responses import JSONResponse

from tests.integrations.server.running import (
    Upstream,
    get,
)
from tests.waiting import PATIENCE, wait_until


@pytest.mark.parametrize(
    "path",
    [
        "/v1/files",
        "/v1/conversations",
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
