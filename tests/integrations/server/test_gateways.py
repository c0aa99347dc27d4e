"""The guard protocols of gateways, against requests as their documentation shows them."""

from __future__ import annotations

from typing import Any

import pytest

from guardrail import Policy
from guardrail.integrations.openai_server import Keys
from tests.integrations.server.running import CLEAN, MENDED, PROXY_KEY, TOXIC, fake_guard, post, proxy

LITELLM, PORTKEY = "/beta/litellm_basic_guardrail_api", "/v1/portkey"
REFUSAL = Policy().refusal
BLOCKING = Policy(ladder=("block",))


def asked(url: str, path: str, body: Any, status: int = 200) -> Any:
    answer = post(f"{url}{path}", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def litellm(*texts: str, **rest: Any) -> dict[str, Any]:
    """As LiteLLM's proxy sends it."""
    head = {"input_type": "response", "litellm_call_id": "call-1", "litellm_trace_id": "trace-1"}
    data = {"user_api_key_hash": "88dc28d0", "user_api_key_team_id": "team-1"}
    more = {"additional_provider_specific_params": {"threshold": 0.8}, "model": "small-1", "images": None}
    return {"texts": list(texts), "request_data": data, **head, **more, **rest}


def test_litellm_hears_of_nothing_a_rewrite_or_a_block(url: str) -> None:
    assert asked(url, LITELLM, litellm(CLEAN)) == {"action": "NONE"}
    assert asked(url, LITELLM, litellm()) == {"action": "NONE"}
    changed = asked(url, LITELLM, litellm(CLEAN, TOXIC))
    assert changed == {"action": "GUARDRAIL_INTERVENED", "texts": [CLEAN, MENDED]}
    with proxy(guard=fake_guard(BLOCKING)) as blocking:
        blocked = asked(blocking, LITELLM, litellm(CLEAN, TOXIC))
    assert blocked == {"action": "BLOCKED", "blocked_reason": REFUSAL}


def test_litellms_tool_calls_are_judged_and_never_rewritten(url: str) -> None:
    def call(text: str) -> Any:
        return {
            "id": "c1",
            "type": "function",
            "function": {"name": "say", "arguments": f'{{"text": "{text}"}}'},
        }

    assert asked(url, LITELLM, litellm(tool_calls=[call(CLEAN)])) == {"action": "NONE"}
    assert asked(url, LITELLM, litellm(tool_calls=[call(TOXIC)]))["action"] == "BLOCKED"


def prompts(*contents: str) -> dict[str, Any]:
    roles = ("system", "user", "assistant")
    return {"body": {"messages": [{"role": r, "content": c} for r, c in zip(roles, contents, strict=False)]}}


def choices(*contents: str) -> dict[str, Any]:
    return {"body": {"choices": [{"message": {"role": "assistant", "content": c}} for c in contents]}}


def test_agentgateways_prompts_pass_are_masked_or_rejected(url: str) -> None:
    assert asked(url, "/request", prompts(TOXIC, CLEAN)) == {"action": {"reason": "guardrail: passed"}}
    masked = asked(url, "/request", prompts(CLEAN, TOXIC, CLEAN))["action"]
    assert masked["body"] == prompts(CLEAN, MENDED, CLEAN)["body"]
    with proxy(guard=fake_guard(BLOCKING)) as blocking:
        rejected = asked(blocking, "/request", prompts(CLEAN, TOXIC))["action"]
    assert rejected == {"body": REFUSAL, "status_code": 403, "reason": "guardrail: blocked"}


def test_agentgateways_answers_pass_or_are_masked_choice_by_choice(url: str) -> None:
    assert "body" not in asked(url, "/response", choices(CLEAN, CLEAN))["action"]
    masked = asked(url, "/response", choices(CLEAN, TOXIC))["action"]
    assert masked == {"body": choices(CLEAN, MENDED)["body"], "reason": "guardrail: rewritten"}
    with proxy(guard=fake_guard(BLOCKING)) as blocking:
        refused = asked(blocking, "/response", choices(TOXIC))["action"]
    assert refused["body"] == choices(REFUSAL)["body"]


def portkey(event: str, *, request: Any = None, response: Any = None) -> dict[str, Any]:
    """As Portkey's gateway sends it."""
    return {
        "request": {"json": request or {}, "text": "", "isStreamingRequest": False, "isTransformed": False},
        "response": {"json": response, "text": "", "statusCode": None, "isTransformed": False},
        "provider": "openai",
        "requestType": "chatComplete",
        "metadata": {"_user": "u-123"},
        "eventType": event,
    }


def test_portkeys_requests_keep_all_but_the_text_that_is_rewritten(url: str) -> None:
    parts = [
        {"type": "text", "text": TOXIC},
        {"type": "image_url", "image_url": {"url": "https://a.example/b"}},
    ]
    body = {"model": "m", "temperature": 0.5, "messages": [{"role": "user", "content": parts, "name": "ann"}]}
    answer = asked(url, PORTKEY, portkey("beforeRequestHook", request=body))
    assert answer["verdict"] is True
    changed = answer["transformedData"]["request"]["json"]
    assert changed["messages"][0]["content"] == [{"type": "text", "text": MENDED}, parts[1]]
    assert {**changed, "messages": None} == {**body, "messages": None}
    clean = asked(url, PORTKEY, portkey("beforeRequestHook", request={"model": "m", "prompt": CLEAN}))
    assert clean == {"verdict": True, "data": {"explanation": "guardrail: passed"}}


def test_portkeys_answers_are_rewritten_or_refused(url: str) -> None:
    body = {"id": "x", "choices": [{"index": 0, "message": {"role": "assistant", "content": TOXIC}}]}
    answer = asked(url, PORTKEY, portkey("afterRequestHook", response=body))
    changed = answer["transformedData"]["response"]["json"]
    assert (changed["id"], changed["choices"][0]["message"]["content"]) == ("x", MENDED)
    with proxy(guard=fake_guard(BLOCKING)) as blocking:
        blocked = asked(blocking, PORTKEY, portkey("afterRequestHook", response=body))
    assert blocked == {"verdict": False, "data": {"explanation": "guardrail: blocked"}}
    assert asked(url, PORTKEY, portkey("afterRequestHook"))["verdict"] is True


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (LITELLM, {"texts": "one"}, "texts"),
        (LITELLM, {"texts": [1]}, "texts"),
        (LITELLM, {"tool_calls": "x"}, "tool_calls"),
        ("/request", {}, "body"),
        ("/request", {"body": {"messages": ["x"]}}, "body.messages"),
        ("/response", {"body": {}}, "body.choices"),
        (PORTKEY, {"eventType": "laterHook"}, "eventType"),
        (PORTKEY, {"eventType": "beforeRequestHook"}, "request"),
        (PORTKEY, {"eventType": "beforeRequestHook", "request": {"json": [1]}}, "request.json"),
    ],
)
def test_a_question_of_another_shape_is_refused_and_names_the_field(
    url: str, path: str, body: Any, param: str
) -> None:
    assert asked(url, path, body, 400)["error"]["param"] == param


@pytest.mark.parametrize("path", [LITELLM, PORTKEY, "/request", "/response"])
def test_gateways_need_a_key_like_any_client(path: str) -> None:
    with proxy(keys=Keys((PROXY_KEY,))) as url:
        assert asked(url, path, {}, 401)["error"]["code"] == "invalid_api_key"
