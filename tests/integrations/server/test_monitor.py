"""The server in monitor mode: answers pass as they come, and are judged and counted behind; reports."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from guardrail import Guard, Policy, Verdict
from guardrail.integrations.openai_server.sse import EventReader
from tests.fakes import WordDetector
from tests.integrations.messages import recorded as messages
from tests.integrations.responses import recorded as responses
from tests.integrations.server.running import (
    CLEAN,
    TOXIC,
    Upstream,
    chat_answer,
    delta,
    encoded,
    events,
    fake_guard,
    get,
    post,
    proxy,
)
from tests.waiting import PATIENCE, wait_until

MONITOR = Policy(enforce=False)
CHAT = {"model": "small-1", "messages": [{"role": "user", "content": "Hello"}]}
CALL = {"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": "idiot"}'}}


class HangingDetector(WordDetector):
    """Answers once it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def detect(self, texts: Sequence[str]) -> list[Verdict]:
        assert self.go.wait(PATIENCE)
        return super().detect(texts)


def chat_stream() -> list[Any]:
    """Toxic words, a toxic call of a tool, and a field that the proxy does not know."""
    odd = delta(TOXIC) | {"x_unknown": "idiot"}
    return [odd, delta(None, tool_calls=[CALL]), delta(None, reason="tool_calls"), "[DONE]"]


STREAMS: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "/v1/chat/completions": (CHAT, chat_stream()),
    "/v1/responses": (
        responses.REQUEST,
        list(responses.stream(responses.response(responses.message(responses.text_part(TOXIC))))),
    ),
    "/v1/messages": (messages.REQUEST, list(messages.stream(messages.message(messages.text(TOXIC))))),
}
WHOLE: dict[str, tuple[dict[str, Any], Any]] = {
    "/v1/chat/completions": (
        CHAT,
        chat_answer(
            [{"index": 0, "message": {"role": "assistant", "content": TOXIC, "tool_calls": [CALL]}, "x": 1}]
        ),
    ),
    "/v1/responses": (
        responses.REQUEST,
        responses.response(responses.message(responses.text_part(TOXIC))),
    ),
    "/v1/messages": (messages.REQUEST, messages.message(messages.text(TOXIC))),
}


def counted(url: str, sample: str) -> bool:
    """True once /metrics has the sample."""
    return sample in get(f"{url}/metrics").text


def flagged(action: str, mode: str = "monitored", policy: str = "default") -> str:
    return f'guardrail_edits_total{{action="{action}",mode="{mode}",policy="{policy}"}}'


@pytest.mark.parametrize("path", STREAMS)
def test_a_streamed_answer_passes_byte_for_byte_while_the_detector_hangs(
    upstream: Upstream, path: str
) -> None:
    asked, shown = STREAMS[path]
    upstream.reply = lambda asked: events(shown)
    detector = HangingDetector()
    guard = fake_guard(Policy(enforce=False, block="whole"), detector=detector)
    try:
        with proxy(upstream, guard=guard) as url:
            answer = post(f"{url}{path}", json=asked | {"stream": True})
            assert answer.content == b"".join(map(encoded, shown))
            assert not counted(url, flagged("rewritten"))
            detector.go.set()
            wait_until(lambda: counted(url, flagged("rewritten")))
    finally:
        detector.go.set()


@pytest.mark.parametrize("path", WHOLE)
def test_a_whole_answer_passes_byte_for_byte_while_the_detector_hangs(upstream: Upstream, path: str) -> None:
    asked, said = WHOLE[path]
    upstream.reply = lambda asked: JSONResponse(said)
    detector = HangingDetector()
    try:
        with proxy(upstream, guard=fake_guard(MONITOR, detector=detector)) as url:
            assert post(f"{url}{path}", json=asked).content == JSONResponse(said).body
            detector.go.set()
            wait_until(lambda: counted(url, flagged("rewritten")))
            assert "idiot" not in get(f"{url}/metrics").text
    finally:
        detector.go.set()


def test_what_the_proxy_cannot_read_passes_in_monitor_mode(upstream: Upstream) -> None:
    odd: dict[str, Any] = {"choices": [{"message": {"content": 7}}]}
    upstream.reply = lambda asked: JSONResponse(odd)
    with proxy(upstream, guard=fake_guard(MONITOR)) as url:
        assert post(f"{url}/v1/chat/completions", json=CHAT).json() == odd
        upstream.reply = lambda asked: events(["not json", "[DONE]"])
        answer = post(f"{url}/v1/chat/completions", json=CHAT | {"stream": True})
        assert answer.text == "data: not json\n\ndata: [DONE]\n\n"


@pytest.mark.parametrize("path", WHOLE)
def test_a_report_in_monitor_mode_says_what_would_be_done(upstream: Upstream, path: str) -> None:
    asked, said = WHOLE[path]
    upstream.reply = lambda asked: JSONResponse(said)
    with proxy(upstream, guard=fake_guard(MONITOR), report=True) as url:
        answer = post(f"{url}{path}", json=asked).json()
    report = answer.pop("guardrail")
    assert answer == said
    assert report["action"] == "passed"
    assert report["would"] in ("rewritten", "blocked")
    assert report["counts"]["rewritten"] == 1
    assert "idiot" not in json.dumps(report)


def test_the_guards_own_paths_change_nothing_in_monitor_mode() -> None:
    with proxy(guard=fake_guard(MONITOR)) as url:
        (outcome,) = post(f"{url}/v1/detoxify", json={"input": TOXIC}).json()["outcomes"]
        assert (outcome["text"], outcome["action"], outcome["would"]) == (TOXIC, "passed", "rewritten")
        streamed = post(f"{url}/v1/detoxify", json={"input": TOXIC, "stream": True}).text
        assert '"would": "rewritten"' in streamed or '"would":"rewritten"' in streamed
        body = {"texts": [TOXIC], "input_type": "response"}
        answer = post(f"{url}/beta/litellm_basic_guardrail_api", json=body).json()
        assert answer == {"action": "NONE"}
        hook = {"body": {"choices": [{"message": {"role": "assistant", "content": TOXIC}}]}}
        assert "body" not in post(f"{url}/response", json=hook).json()["action"]


def test_the_rewriter_is_not_loaded_for_a_server_that_monitors() -> None:
    def fails(texts: Sequence[str], n: int) -> list[list[str]]:
        raise AssertionError

    guard: Guard = fake_guard(MONITOR, rewriter=fails)
    with proxy(guard=guard) as url:
        wait_until(lambda: get(f"{url}/readyz").status_code == 200)
        post(f"{url}/v1/detoxify", json={"input": TOXIC})


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
@pytest.mark.parametrize("is_on", [True, False])
def test_the_other_apis_have_the_report_too(upstream: Upstream, path: str, is_on: bool) -> None:
    asked, said = WHOLE[path]
    _, shown = STREAMS[path]

    def reply(asked: Any) -> Response:
        return events(shown) if asked.body.get("stream") else JSONResponse(said)

    upstream.reply = reply
    with proxy(upstream, report=is_on) as url:
        whole = post(f"{url}{path}", json=asked).json()
        streamed = post(f"{url}{path}", json=asked | {"stream": True})
    reader = EventReader(limit=1 << 20)
    payloads = [json.loads(payload) for payload in (*reader.feed(streamed.content), *reader.close())]
    last = payloads[-1].get("response", payloads[-1])
    if not is_on:
        assert "guardrail" not in whole
        assert "guardrail" not in streamed.text
        return
    for report in (whole["guardrail"], last["guardrail"]):
        assert (report["action"], report["counts"]) == ("rewritten", {"rewritten": 1})
        assert "would" not in report
        assert "idiot" not in json.dumps(report)
    assert streamed.text.count('"guardrail"') == 1


def test_the_real_clients_take_answers_with_a_report(upstream: Upstream) -> None:
    anthropic = pytest.importorskip("anthropic")
    asked, _ = WHOLE["/v1/messages"]
    upstream.reply = lambda asked: events(STREAMS["/v1/messages"][1])
    with (
        proxy(upstream, report=True) as url,
        anthropic.Anthropic(base_url=url, api_key="k", max_retries=0) as client,
        client.messages.stream(**asked) as stream,
    ):
        final = stream.get_final_message()
    assert "idiot" not in final.content[0].text
    assert CLEAN not in final.content[0].text
