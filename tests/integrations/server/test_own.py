"""What the guard answers itself: outcomes, moderations, embeddings, models, health, metrics, files."""

from __future__ import annotations

import base64
import re
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from fastapi import APIRouter
from openai import OpenAI
from starlette.responses import JSONResponse

from guardrail import Guard, Policy, Verdict
from guardrail.config import ServerSettings
from guardrail.errors import ConfigError, ManifestError
from guardrail.integrations.openai_server import Keys, create_app
from tests.integrations.server.running import (
    CLEAN,
    MENDED,
    TOXIC,
    Upstream,
    fake_guard,
    get,
    post,
    proxy,
    serving,
)
from tests.integrations.server.test_completions import ask
from tests.waiting import wait_until

TEXTS = [CLEAN, TOXIC, "", f"{CLEAN} {TOXIC} {CLEAN} 😀 {TOXIC}", "idiot", "\n\n- a list\n- of an idiot\n"]


def readiness(url: str) -> httpx.Response:
    """What the server says of its models once it has tried to load them."""
    wait_until(lambda: get(f"{url}/readyz").json()["status"] != "loading")
    return get(f"{url}/readyz")


def detoxified(url: str, **question: Any) -> Any:
    answer = post(f"{url}/v1/detoxify", json=question)
    assert answer.status_code == 200, answer.text
    return answer.json()


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("milliseconds", "failures")}


def test_detoxify_gives_what_the_guard_gives(url: str) -> None:
    rows = detoxified(url, input=TEXTS)["outcomes"]
    assert [without_times(row) for row in rows] == [
        without_times(outcome.to_dict()) for outcome in fake_guard().check_many(TEXTS)
    ]
    (row,) = detoxified(url, input=TOXIC)["outcomes"]
    assert row["text"] == MENDED
    assert "failures" not in row, "they name modules and lines of the server's own code"


def test_detoxify_takes_another_threshold_and_ladder(url: str) -> None:
    question = {"input": f"{CLEAN} {TOXIC}"}
    masked = detoxified(url, **question, policy={"ladder": ["mask", "block"]})
    blocked = detoxified(url, **question, policy={"ladder": ["block"]})
    tolerant = detoxified(url, **question, policy={"threshold": 0.95})
    actions = [answer["outcomes"][0]["action"] for answer in (masked, blocked, tolerant)]
    assert actions == ["masked", "blocked", "passed"]
    assert masked["policy"] == Policy(ladder=("mask", "block")).digest()


def test_detoxify_lists_every_sentence_with_its_scores(url: str) -> None:
    text = f"{CLEAN} {TOXIC} 😀 {CLEAN}"
    (row,) = detoxified(url, input=text, sentences=True)["outcomes"]
    sentences = row["sentences"]
    assert [text[s["start"] : s["end"]].strip() for s in sentences] == [CLEAN, TOXIC, f"😀 {CLEAN}"]
    assert [s["flagged"] for s in sentences] == [False, True, False]
    assert sentences[1]["scores"] == {"toxicity": 0.9}
    assert sentences[1]["start"] == row["edits"][0]["start"]


@pytest.mark.parametrize(
    ("question", "param"),
    [
        ({}, "input"),
        ({"input": 3}, "input.str"),
        ({"input": [1]}, "input.str"),
        ({"input": "x", "polcy": {}}, "polcy"),
        ({"input": "x", "policy": {"threshold": 2}}, "policy.threshold"),
        ({"input": "x", "policy": {"threshold": "high"}}, "policy.threshold"),
        ({"input": "x", "policy": {"ladder": ["block", "mask"]}}, "policy"),
        ({"input": "x", "policy": {"ladder": ["shout"]}}, "policy.ladder.0"),
        ({"input": ["x"] * 257}, "input.str"),
    ],
)
def test_a_question_that_does_not_fit_names_the_field(url: str, question: Any, param: str) -> None:
    answer = post(f"{url}/v1/detoxify", json=question)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


def test_our_moderation_answers_the_real_client(client: OpenAI, upstream: Upstream) -> None:
    answer = client.moderations.create(model="guardrail-moderation", input=[CLEAN, TOXIC])
    assert [result.flagged for result in answer.results] == [False, True]
    scores: Any = answer.results[1].category_scores
    assert scores.toxicity == 0.9
    categories: Any = answer.results[1].categories
    assert categories.toxicity is True
    assert answer.model == "guardrail-moderation"
    assert upstream.asked == []


@pytest.mark.parametrize("model", [None, "", " ", ...])
def test_a_moderation_without_a_models_name_stays_here(
    client: OpenAI, upstream: Upstream, model: Any
) -> None:
    body = {} if model is ... else {"extra_body": {"model": model}}
    answer = client.moderations.create(input=[CLEAN, TOXIC], **body)
    assert [result.flagged for result in answer.results] == [False, True]
    assert (answer.model, upstream.asked) == ("guardrail-moderation", [])
    with proxy() as url, OpenAI(base_url=f"{url}/v1", api_key="k") as alone:
        assert alone.moderations.create(input=TOXIC).results[0].flagged


def test_parts_of_text_are_one_text_to_our_moderation_and_pictures_are_refused(client: OpenAI) -> None:
    parts: Any = [{"type": "text", "text": "You are such an"}, {"type": "text", "text": "idiot."}]
    assert [result.flagged for result in client.moderations.create(input=parts).results] == [True]
    picture: Any = [{"type": "image_url", "image_url": {"url": "https://example.org/x.png"}}]
    with pytest.raises(openai.BadRequestError):
        client.moderations.create(input=picture)


def test_openais_categories_have_the_scores_of_their_counterparts(upstream: Upstream) -> None:
    def detect(texts: Any) -> list[Verdict]:
        return [Verdict({"insult": 0.7, "threat": 0.2, "identity_attack": 0.1}, True) for _ in texts]

    guard = Guard(detector=detect, policy=Policy(thresholds={"threat": 0.15}))
    with proxy(upstream, guard=guard) as url, OpenAI(base_url=f"{url}/v1", api_key="k") as client:
        (result,) = client.moderations.create(model="guardrail-moderation", input=CLEAN).results
    assert result.category_scores.harassment == 0.7
    assert result.category_scores.hate == 0.1
    assert (result.categories.harassment, result.categories.harassment_threatening) == (True, True)
    assert result.categories.hate is False
    assert getattr(result.category_scores, "self_harm", None) is None, "nobody judged it"


def test_other_moderations_go_upstream(client: OpenAI, upstream: Upstream) -> None:
    result = {"flagged": True, "categories": {"hate/threatening": True}, "category_scores": {"hate": 0.5}}
    upstream.reply = lambda asked: JSONResponse(
        {"id": "modr-1", "model": "m", "results": [result | {"note": TOXIC}]}
    )
    answer = client.moderations.create(model="omni-moderation-latest", input=TOXIC)
    assert answer.results[0].categories.hate_threatening is True
    assert "idiot" not in answer.to_json()
    assert upstream.asked[0].path == "/v1/moderations"


@pytest.mark.parametrize("form", ["float", "base64", None])
def test_our_embeddings_answer_the_real_client(client: OpenAI, upstream: Upstream, form: Any) -> None:
    options = {"encoding_format": form} if form else {}
    answer = client.embeddings.create(model="guardrail-embedding", input=[CLEAN, TOXIC], **options)
    rows = [item.embedding for item in answer.data]
    if form == "base64":
        rows = [np.frombuffer(base64.b64decode(str(row)), dtype="<f4").tolist() for row in rows]
    assert np.allclose(rows, fake_guard().embed([CLEAN, TOXIC]))
    assert [item.index for item in answer.data] == [0, 1]
    assert upstream.asked == []


@pytest.mark.parametrize("question", [{"dimensions": 3}, {"input": [[1, 2]]}, {"encoding_format": "int8"}])
def test_embeddings_that_we_cannot_give_are_refused(client: OpenAI, question: Any) -> None:
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(
            **{"model": "guardrail-embedding", "input": "x", "encoding_format": "float"} | question
        )


@pytest.mark.parametrize("packed", [True, False])
def test_other_embeddings_go_upstream(client: OpenAI, upstream: Upstream, packed: bool) -> None:
    row: Any = np.array([0.5, -0.25], dtype="<f4")
    value = base64.b64encode(row.tobytes()).decode() if packed else row.tolist()
    item = {"object": "embedding", "index": 0, "embedding": value, "note": TOXIC}
    upstream.reply = lambda asked: JSONResponse({"object": "list", "model": "m", "data": [item]})
    answer = client.embeddings.create(model="m", input="x", encoding_format="base64" if packed else "float")
    assert answer.data[0].embedding == value
    assert "idiot" not in repr(answer)


def test_models_of_both_sides_are_listed(client: OpenAI, upstream: Upstream) -> None:
    theirs = [
        {"id": "small-1", "object": "model", "owned_by": "us"},
        {"id": f"bad {TOXIC}"},
        {"description": TOXIC},
    ]
    upstream.reply = lambda asked: JSONResponse({"object": "list", "data": theirs})
    listed = client.models.list().data
    assert [model.id for model in listed] == ["small-1", "guardrail-embedding", "guardrail-moderation"]
    assert client.models.retrieve("small-1").owned_by == "us"
    assert client.models.retrieve("guardrail-embedding").owned_by == "guardrail"
    with pytest.raises(openai.NotFoundError, match="no such model"):
        client.models.retrieve("small-2")
    assert {asked.path for asked in upstream.asked} == {"/v1/models"}


def test_without_an_upstream_our_own_paths_answer_and_the_others_say_what_is_missing() -> None:
    with proxy() as url, OpenAI(base_url=f"{url}/v1", api_key="k") as client:
        assert len(client.models.list().data) == 2
        assert detoxified(url, input=TOXIC)["outcomes"][0]["text"] == MENDED
        with pytest.raises(openai.NotFoundError, match="--upstream"):
            ask(client)
        with pytest.raises(openai.NotFoundError, match="--upstream"):
            client.moderations.create(model="omni-moderation-latest", input="x")


def test_it_is_alive_at_once_and_ready_once_the_models_are_loaded(url: str) -> None:
    assert get(f"{url}/healthz").json() == {"status": "ok"}
    parts = dict.fromkeys(("detector", "lexicon", "rewriter", "verifier"), "ready")
    assert readiness(url).json() == {"status": "ready", "degraded": [], "parts": parts}


def test_a_guard_that_cannot_work_is_never_ready_and_passes_nothing(upstream: Upstream) -> None:
    def broken(texts: Any) -> Any:
        raise ManifestError("model.onnx was altered")

    with proxy(upstream, guard=fake_guard(detector=broken)) as url:
        ready = readiness(url)
        answer = post(f"{url}/v1/chat/completions", json={"model": "m"})
    assert (ready.status_code, ready.json()["status"]) == (503, "failed")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "guard_unavailable")


def test_a_detector_that_fails_is_not_ready_and_a_rewriter_that_is_missing_is() -> None:
    def fails(texts: Any, *rest: int) -> Any:
        raise RuntimeError

    cases: list[tuple[dict[str, Any], int]] = [({"detector": fails}, 503), ({"rewriter": fails}, 200)]
    for parts, status in cases:
        with proxy(guard=fake_guard(**parts)) as url:
            assert readiness(url).status_code == status


def test_metrics_count_requests_outcomes_and_failures(upstream: Upstream) -> None:
    with proxy(upstream) as url, OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
        detoxified(url, input=[TOXIC, CLEAN])
        ask(client)
        get(f"{url}/wp-login.php")
        text = get(f"{url}/metrics").text
    samples = dict(re.findall(r"^(\S+) (\S+)$", text, re.MULTILINE))
    mode = 'mode="enforced",policy="default"'
    assert samples[f'guardrail_outcomes_total{{action="rewritten",{mode}}}'] == "1.0"
    assert samples[f'guardrail_outcomes_total{{action="passed",{mode}}}'] == "2.0"
    assert samples['guardrail_requests_total{path="/v1/chat/completions",status="200"}'] == "1.0"
    assert samples['guardrail_requests_total{path="other",status="404"}'] == "1.0"
    assert samples["guardrail_requests_open"] == "1.0"
    assert float(samples['guardrail_model_seconds_total{kind="detect"}']) >= 0
    assert 'guardrail_failed_checks_total{check="toxic",policy="default"}' in samples
    assert "bus" not in text


def test_two_servers_in_one_process_count_apart(url: str) -> None:
    with proxy() as other:
        text = get(f"{other}/metrics").text
    assert "/v1/" not in text


def test_the_page_may_load_nothing_from_elsewhere(url: str) -> None:
    for path in ("/", "/page.js", "/page.css", "/icon.svg", "/v1/models", "/nowhere"):
        headers = get(f"{url}{path}").headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
    page = get(url).text
    assert "style=" not in page
    assert not re.findall(r"\bon\w+=", page)
    assert not re.findall(r"(?:src|href)=\"(?!/|#)", page)
    script = get(f"{url}/page.js").text
    assert not re.findall(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", script
    )


def test_routers_can_be_added() -> None:
    router = APIRouter()

    @router.get("/extra")
    async def extra() -> dict[str, str]:
        return {"is": "here"}

    @router.get("/bug")
    async def bug() -> None:
        raise RuntimeError(f"the text was {TOXIC}")

    with serving(create_app(fake_guard(), keys=Keys(), routers=[router])) as url:
        assert get(f"{url}/extra").json() == {"is": "here"}
        failed = get(f"{url}/bug")
    assert failed.status_code == 500
    assert "idiot" not in failed.text


def test_a_field_with_a_meaning_of_its_own_cannot_be_allowed() -> None:
    with pytest.raises(ConfigError, match="logprobs, tool_calls"):
        create_app(
            fake_guard(), settings=ServerSettings(allowed_fields=("tool_calls", "logprobs")), keys=Keys()
        )
