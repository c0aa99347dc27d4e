"""Ids, names, codes and keys that an upstream chooses: toxic ones never arrive, all others do unchanged."""

from __future__ import annotations

import base64
import random
import string
from typing import Any

import numpy as np
import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletion
from starlette.responses import JSONResponse, Response

from guardrail import Guard, Policy
from guardrail.detectors.onnx import OnnxDetector
from guardrail.integrations.completions.sanitize import CATEGORIES, identifiers_in
from guardrail.structured.identifiers import readings
from tests.fakes import WordDetector
from tests.integrations.server.running import (
    CLEAN,
    Upstream,
    chat_answer,
    delta,
    events,
    fake_guard,
    post,
    proxy,
)
from tests.integrations.server.test_completions import ask
from tests.integrations.server.test_streams import DONE, content, reasons, stream

TOXIC_NAMES = ("call_idiot_moron", "callIdiotNow", "idiot", "x1-IDIOT-2", "a/idiot@b.c")
USAGE = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}


def call(identity: str | None, *, streamed: bool = False) -> dict[str, Any]:
    head: dict[str, Any] = {"index": 0} if streamed else {}
    return head | {"id": identity, "type": "function", "function": {"name": "look_up", "arguments": "{}"}}


def reply(name: str) -> dict[str, Any]:
    """An answer in which every identifier is this one."""
    envelope = dict.fromkeys(("id", "model", "system_fingerprint", "service_tier"), name)
    message = {"role": "assistant", "content": CLEAN, "tool_calls": [call(name)]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    return chat_answer([choice], **envelope) | {"usage": {**USAGE, name: 1}}


def whole(client: OpenAI, upstream: Upstream, name: str) -> ChatCompletion:
    upstream.reply = lambda asked: JSONResponse(reply(name))
    return ask(client)


@pytest.mark.parametrize("name", TOXIC_NAMES)
def test_no_toxic_identifier_of_a_whole_answer_arrives(client: OpenAI, upstream: Upstream, name: str) -> None:
    answer = whole(client, upstream, name)
    assert "idiot" not in answer.to_json().lower()
    assert answer.model == "small-1"
    assert answer.id.startswith("chatcmpl-")
    assert (answer.system_fingerprint, answer.service_tier) == (None, None)
    assert answer.usage is not None
    assert answer.usage.to_dict() == USAGE
    (choice,) = answer.choices
    assert (choice.message.content, choice.finish_reason) == (CLEAN, "tool_calls")


@pytest.mark.parametrize("name", TOXIC_NAMES)
def test_no_toxic_identifier_of_a_stream_arrives(client: OpenAI, upstream: Upstream, name: str) -> None:
    envelope = dict.fromkeys(("id", "model", "system_fingerprint", "service_tier"), name)
    said = [delta(f"{CLEAN} "), delta(tool_calls=[call(name, streamed=True)]), delta(reason="tool_calls")]
    report = {"choices": [], "usage": {**USAGE, name: 1}}
    upstream.reply = lambda asked: events([*(chunk | envelope for chunk in (*said, report)), DONE])
    chunks = stream(client)
    assert not any("idiot" in chunk.to_json().lower() for chunk in chunks)
    assert content(chunks) == f"{CLEAN} "
    assert reasons(chunks) == {0: "tool_calls"}
    assert {chunk.model for chunk in chunks} == {"small-1"}
    assert len({chunk.id for chunk in chunks}) == 1


@pytest.mark.parametrize("identity", ["call_idiot", None, "", "x" * 300, "no id"])
def test_a_call_gets_an_id_of_ours_in_place_of_one_that_cannot_be_shown(
    client: OpenAI, upstream: Upstream, identity: str | None
) -> None:
    message = {"content": None, "tool_calls": [call(identity), call(identity)]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    upstream.reply = lambda asked: JSONResponse(chat_answer([choice]))
    (answered,) = ask(client).choices
    assert answered.message.tool_calls is not None
    ids = [found.id for found in answered.message.tool_calls]
    assert all(found.startswith("call_") and "idiot" not in found for found in ids)
    assert len(set(ids)) == 2
    assert answered.finish_reason == "tool_calls"


def random_ids() -> list[str]:
    """Ids as OpenAI, vLLM, Anthropic and others give them."""
    chance = random.Random(5)
    letters, digits = string.ascii_letters + string.digits, "0123456789abcdef"

    def drawn(alphabet: str, length: int) -> str:
        return "".join(chance.choices(alphabet, k=length))

    return [
        f"chatcmpl-{drawn(letters, 29)}",
        f"chatcmpl-{drawn(digits, 32)}",
        f"call_{drawn(letters, 24)}",
        f"toolu_01{drawn(letters, 22)}",
        f"fp_{drawn(digits, 10)}",
        "-".join(drawn(digits, length) for length in (8, 4, 4, 4, 12)),
        "gpt-4o-mini-2024-07-18",
        "meta-llama/Llama-3.1-8B-Instruct",
        "0",
    ]


@pytest.mark.parametrize("name", random_ids())
def test_ordinary_identifiers_arrive_unchanged(client: OpenAI, upstream: Upstream, name: str) -> None:
    answer = whole(client, upstream, name)
    (found,) = answer.choices[0].message.tool_calls or []
    assert [answer.id, answer.model, answer.system_fingerprint, found.id] == [name] * 4
    upstream.says(delta(CLEAN) | {"id": name, "model": name}, delta(reason="stop"), DONE)
    assert {(chunk.id, chunk.model) for chunk in stream(client)} == {(name, name)}


def test_the_shipped_detector_flags_words_in_ids_and_no_ordinary_id() -> None:
    detector = OnnxDetector.shipped(threads=1)
    ordinary = [reading for name in random_ids() for reading in readings(name)]
    assert not any(verdict.flagged for verdict in detector.detect(ordinary))
    for name in ("call_idiot_moron", "callIdiotMoron", "call_1d10t", "kill-yourself"):
        assert any(verdict.flagged for verdict in detector.detect(readings(name))), name


def test_an_id_is_judged_once_in_a_stream_and_names_once_in_all(upstream: Upstream) -> None:
    detector = WordDetector()
    chunks = [delta(f"{CLEAN} ") | {"id": "one-id", "model": "one-model"} for _ in range(5)]
    upstream.says(*chunks, delta(reason="stop"), DONE)
    guard = fake_guard(Policy(batch=1), detector=detector)
    with proxy(upstream, guard=guard) as url, OpenAI(base_url=f"{url}/v1", api_key="k") as client:
        stream(client)
        stream(client)
    judged = [text for texts in detector.calls for text in texts]
    assert (judged.count("one-id"), judged.count("one-model")) == (1, 1)


def test_the_hook_hears_of_identifiers_only_where_one_is_toxic(upstream: Upstream) -> None:
    heard: list[str] = []
    guard = Guard(
        on_outcome=lambda outcome: heard.append(str(outcome.action)),
        **fake_guard()._parts,
    )
    with proxy(upstream, guard=guard) as url, OpenAI(base_url=f"{url}/v1", api_key="k") as client:
        whole(client, upstream, "small-2")
        assert set(heard) == {"passed"}
        whole(client, upstream, "idiot-2")
    assert "blocked" in heard


@pytest.mark.parametrize("streamed", [True, False])
def test_codes_and_headers_of_an_error_are_judged_too(
    client: OpenAI, upstream: Upstream, streamed: bool
) -> None:
    error = {"message": "Not now.", "type": "idiot_error", "code": "idiot", "param": "be.an.idiot"}
    headers = {"x-request-id": "idiot-1", "x-ratelimit-idiot": "5", "x-ratelimit-limit": "9"}
    headers["retry-after"] = "Wed, 21 Oct 2026 07:28:00 GMT (idiot)"
    upstream.reply = lambda asked: JSONResponse({"error": error}, status_code=400, headers=headers)
    with pytest.raises(openai.BadRequestError) as caught:
        stream(client) if streamed else ask(client)
    told = {"message": "Not now.", "type": "upstream_error", "code": None, "param": None}
    assert caught.value.body == told
    answered = caught.value.response.headers
    assert "idiot" not in str(answered)
    assert answered["x-ratelimit-limit"] == "9"
    assert answered["retry-after"] == "Wed, 21 Oct 2026 07:28:00 GMT"


def test_lists_and_scores_keep_clean_names_alone(client: OpenAI, upstream: Upstream) -> None:
    theirs = [{"id": "small-1", "owned_by": "idiot"}, {"id": "idiot-1"}, {"idiot": 1, "id": "small-2"}]
    upstream.reply = lambda asked: JSONResponse({"data": theirs})
    listed = client.models.list().data
    assert [model.id for model in listed[:2]] == ["small-1", "small-2"]
    assert "idiot" not in repr(listed)
    result = {"flagged": False, "category_scores": {**dict.fromkeys(CATEGORIES, 0.5), "idiot": 1}}
    upstream.reply = lambda asked: JSONResponse({"id": "moron-1", "model": "m", "results": [result]})
    answer = client.moderations.create(model="theirs", input="x").to_dict()
    assert answer["results"] == [{"flagged": False, "category_scores": dict.fromkeys(CATEGORIES, 0.5)}]
    assert answer["id"] is None


@pytest.mark.parametrize("listed", [3, {"id": "small-1"}, None])
def test_a_list_of_models_that_is_none_is_empty(client: OpenAI, upstream: Upstream, listed: object) -> None:
    upstream.reply = lambda asked: JSONResponse({"data": listed})
    assert [model.owned_by for model in client.models.list().data] == ["guardrail", "guardrail"]


def test_letters_that_pose_as_packed_numbers_do_not_pass(url: str, upstream: Upstream) -> None:
    row = np.random.default_rng(0).normal(size=384).astype("<f4")
    packed = base64.b64encode(row.tobytes()).decode()

    def answered(value: str) -> Any:
        upstream.reply = lambda asked: JSONResponse({"data": [{"embedding": value}]})
        return post(f"{url}/v1/embeddings", json={"model": "m"}).json()["data"][0]["embedding"]

    assert answered(packed) == packed
    assert answered("idiot" * 64) is None
    assert answered("A" * 512) is None


def test_a_detector_that_fails_lets_no_identifier_pass(upstream: Upstream) -> None:
    def fails(texts: Any) -> Any:
        raise RuntimeError

    upstream.reply = lambda asked: Response(
        '{"id": "some-id", "choices": []}', media_type="application/json", headers={"x-request-id": "req-1"}
    )
    with proxy(upstream, guard=fake_guard(detector=fails)) as url:
        answer = post(f"{url}/v1/chat/completions", json={"model": "m"})
    assert (answer.status_code, answer.json()["model"]) == (200, "m")
    assert "some-id" not in answer.text
    assert "req-1" not in answer.headers.values()


def test_identifiers_are_found_at_any_depth() -> None:
    assert sorted(identifiers_in({"a": ["b", {"c": "no id"}], "two words": {"d": 1}})) == ["a", "b", "c", "d"]
