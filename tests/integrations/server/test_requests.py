"""Ids of requests, the access log, pages of other origins, and reports in answers."""

from __future__ import annotations

import json
import logging
import re
from typing import Any

import httpx
import pytest
from openai import OpenAI
from starlette.responses import JSONResponse

from guardrail import Policy
from guardrail.config import ServerSettings
from guardrail.errors import ConfigError
from guardrail.integrations.openai_server import Keys
from guardrail.integrations.openai_server.server import JsonFormatter
from tests.integrations.server.running import (
    CLEAN,
    MENDED,
    PROXY_KEY,
    TOXIC,
    Upstream,
    completion,
    delta,
    fake_guard,
    get,
    post,
    proxy,
    usage_chunk,
)
from tests.waiting import PATIENCE, wait_until

ORIGIN = "https://app.example.org"
CHAT = "/v1/chat/completions"


def test_a_request_keeps_the_id_that_it_came_with_upstream_and_in_the_answer(
    url: str, upstream: Upstream
) -> None:
    answer = post(f"{url}{CHAT}", json={"model": "m"}, headers={"x-request-id": "Root=1-67/a.b:c@d"})
    assert answer.headers["x-request-id"] == "Root=1-67/a.b:c@d"
    assert upstream.asked[-1].header("x-request-id") == "Root=1-67/a.b:c@d"


@pytest.mark.parametrize("shown", [None, "", "two words", "-x", "x" * 129, "ü", "a,b"])
def test_a_request_without_an_id_gets_one(url: str, upstream: Upstream, shown: str | None) -> None:
    headers = {} if shown is None else {"x-request-id": shown.encode()}
    answers = [post(f"{url}{CHAT}", json={}, headers=headers) for _ in range(2)]  # type: ignore[arg-type]
    made = [answer.headers["x-request-id"] for answer in answers]
    assert all(re.fullmatch("[0-9a-f]{32}", name) for name in made)
    assert made[0] != made[1]
    assert [asked.header("x-request-id") for asked in upstream.asked] == made


def test_an_upstreams_own_id_comes_back_under_another_name(url: str, upstream: Upstream) -> None:
    upstream.reply = lambda asked: JSONResponse({"choices": []}, headers={"x-request-id": "req-77"})
    answer = post(f"{url}{CHAT}", json={"model": "m"}, headers={"x-request-id": "mine"})
    assert (answer.headers["x-request-id"], answer.headers["x-upstream-request-id"]) == ("mine", "req-77")


@pytest.mark.parametrize("path", ["/nowhere", "/metrics", "/v1/models"])
def test_refusals_have_an_id_too(path: str) -> None:
    with proxy(keys=Keys((PROXY_KEY,))) as url:
        assert get(f"{url}{path}", headers={"x-request-id": "mine"}).headers["x-request-id"] == "mine"


def lines(caplog: pytest.LogCaptureFixture, count: int) -> list[dict[str, Any]]:
    """The fields of the access log's lines, once so many are there."""

    def found() -> list[logging.LogRecord]:
        return [record for record in caplog.records if record.name == "guardrail.access"]

    wait_until(lambda: len(found()) >= count)
    return [vars(record)["guardrail_fields"] for record in found()]


def test_each_request_is_a_line_of_the_log_without_its_text(
    upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.reply = lambda asked: completion([TOXIC])
    with caplog.at_level(logging.INFO, "guardrail.access"), proxy(upstream) as url:
        sizes = [
            len(post(f"{url}{CHAT}", json={"model": "m"}, headers={"x-request-id": "first"}).content),
            len(get(f"{url}/v1/models/canaryword").content),
            len(get(f"{url}/canaryword?q=canaryword").content),
        ]
        httpx.request("CANARYWORD", f"{url}/", timeout=PATIENCE)
        get(f"{url}/healthz")
        found = lines(caplog, 4)
    asked = [(line["method"], line["path"], line["status"]) for line in found]
    assert asked == [
        ("POST", CHAT, 200),
        ("GET", "/v1/models/{name:path}", 404),
        ("GET", "other", 404),
        ("other", "/", 405),
    ]
    assert [line["bytes"] for line in found[:3]] == sizes
    assert found[0]["request_id"] == "first"
    assert all(line["milliseconds"] >= 0 for line in found)
    records = [record for record in caplog.records if record.name.startswith("guardrail")]
    shown = "".join(record.getMessage() for record in records)
    assert "canaryword" not in shown.lower()
    assert TOXIC not in shown


def test_a_line_of_the_json_log_has_the_access_logs_fields_and_the_requests_id(
    caplog: pytest.LogCaptureFixture,
) -> None:
    written: list[dict[str, Any]] = []
    handler = logging.Handler()
    handler.emit = lambda record: written.append(json.loads(JsonFormatter().format(record)))  # type: ignore[method-assign]
    logger = logging.getLogger("guardrail")
    logger.addHandler(handler)
    try:
        with caplog.at_level(logging.INFO, "guardrail"), proxy() as url:
            post(f"{url}/v1/detoxify", json={"input": TOXIC}, headers={"x-request-id": "mine"})
            lines(caplog, 1)
    finally:
        logger.removeHandler(handler)
    outcome, access = written
    assert (outcome["logger"], outcome["request_id"]) == ("guardrail", "mine")
    assert {
        "method": "POST",
        "path": "/v1/detoxify",
        "status": 200,
        "request_id": "mine",
    }.items() <= access.items()


def test_the_access_log_can_be_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "guardrail.access"), proxy(access_log=False) as url:
        answer = get(f"{url}/readyz")
    assert "x-request-id" in answer.headers
    assert [record for record in caplog.records if record.name == "guardrail.access"] == []


def preflight(url: str, origin: str) -> httpx.Response:
    asked = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type,x-stainless-lang",
    }
    return httpx.options(f"{url}/v1/detoxify", headers=asked, timeout=PATIENCE)


def test_a_listed_origin_may_ask_and_read_and_others_may_not() -> None:
    with proxy(keys=Keys((PROXY_KEY,)), cors=(ORIGIN, "http://localhost:3000")) as url:
        allowed = preflight(url, ORIGIN)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == ORIGIN
        assert "x-stainless-lang" in allowed.headers["access-control-allow-headers"]
        assert "access-control-allow-credentials" not in allowed.headers
        headers = {"origin": ORIGIN, "authorization": f"Bearer {PROXY_KEY}"}
        answer = post(f"{url}/v1/detoxify", json={"input": TOXIC}, headers=headers)
        assert answer.json()["outcomes"][0]["text"] == MENDED
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "x-request-id" in answer.headers["access-control-expose-headers"]
        locked = post(f"{url}/v1/detoxify", json={"input": TOXIC}, headers={"origin": ORIGIN})
        assert (locked.status_code, locked.headers["access-control-allow-origin"]) == (401, ORIGIN)
        for other in (
            "https://elsewhere.example",
            "null",
            f"{ORIGIN}.evil.example",
            "https://APP.example.org",
        ):
            assert "access-control-allow-origin" not in preflight(url, other).headers
            refused = post(f"{url}/v1/detoxify", json={}, headers=headers | {"origin": other})
            assert refused.status_code == 403
            assert "access-control-allow-origin" not in refused.headers


def test_a_listed_origin_reaches_nothing_but_the_api() -> None:
    with proxy(cors=(ORIGIN,)) as url:
        assert get(f"{url}/metrics", headers={"origin": ORIGIN}).status_code == 403
        assert get(f"{url}/", headers={"origin": ORIGIN}).status_code == 403
        assert get(f"{url}/v1/models", headers={"origin": ORIGIN}).status_code == 200


def test_without_a_list_a_preflight_is_refused_like_any_request(url: str) -> None:
    answer = preflight(url, ORIGIN)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    [
        "*",
        "null",
        "https://app.example.org/",
        "https://*.example.org",
        "app.example.org",
        "https://A.example",
    ],
)
def test_what_is_not_an_origin_is_refused(origin: str) -> None:
    with pytest.raises(ConfigError, match="must list origins such as"):
        ServerSettings(cors=(origin,))


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://[::1]:80", "tauri://localhost", ORIGIN])
def test_origins_of_every_scheme_are_taken(origin: str) -> None:
    assert ServerSettings(cors=(origin,)).cors == (origin,)


def report(answer: Any) -> Any:
    return (answer.model_extra or {}).get("guardrail")


def test_an_answer_says_what_was_changed_if_that_is_asked_for(upstream: Upstream) -> None:
    question: Any = {"model": "m", "messages": [{"role": "user", "content": "Who?"}]}
    with proxy(upstream, report=True) as url, OpenAI(base_url=f"{url}/v1", api_key="k") as client:
        upstream.reply = lambda asked: completion([f"{CLEAN} {TOXIC}", TOXIC])
        changed = report(client.chat.completions.create(**question))
        assert changed["action"] == "rewritten"
        assert changed["counts"] == {"rewritten": 2}
        assert changed["labels"] == ["toxicity"]
        assert changed["failed_checks"][0] == "toxic"
        upstream.says(
            delta("Fine. The driver"), delta(" is an idiot."), delta(reason="stop"), usage_chunk(), "[DONE]"
        )
        *chunks, last = client.chat.completions.create(**question, stream=True)
        assert [report(chunk) for chunk in chunks] == [None] * len(chunks)
        assert last.choices == []
        assert last.usage is not None
        assert report(last)["counts"] == {"rewritten": 1}
        upstream.reply = lambda asked: completion([CLEAN])
        clean = report(client.chat.completions.create(**question))
        assert clean == {"action": "passed", "counts": {}, "labels": [], "failed_checks": [], "degraded": []}
        assert "idiot" not in json.dumps([changed, report(last)])


def test_a_blocked_answer_is_reported_too(upstream: Upstream) -> None:
    guard = fake_guard(Policy(ladder=("block",)))
    upstream.reply = lambda asked: completion([TOXIC])
    with proxy(upstream, guard=guard, report=True) as url:
        answer = post(f"{url}{CHAT}", json={"model": "m"}).json()
    assert answer["guardrail"]["counts"] == {"blocked": 1}


def test_no_answer_says_so_unless_asked(client: OpenAI, upstream: Upstream) -> None:
    upstream.reply = lambda asked: completion([TOXIC])
    messages: Any = [{"role": "user", "content": "Who?"}]
    assert report(client.chat.completions.create(model="m", messages=messages)) is None
