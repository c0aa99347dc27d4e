"""POST /v1/detoxify as a stream, and with explanations."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from guardrail import Policy
from guardrail.errors import AuditError
from guardrail.text.segment import Segmenter
from tests.fakes import WordRewriter
from tests.integrations.server.running import CLEAN, MENDED, PROXY_KEY, TOXIC, fake_guard, get, post, proxy
from tests.waiting import PATIENCE, wait_until

TEXTS = [
    CLEAN,
    f"{CLEAN} {TOXIC} 😀 {CLEAN}",
    f"\n\n- {TOXIC}\n- {CLEAN}\n",
    "",
    " \n",
    f"{TOXIC} {TOXIC}",
    "Oh. No. You idiot! Why?",
]


def events(url: str, **question: Any) -> list[Any]:
    """The payloads of the answer's events; the last one must be ``[DONE]``."""
    answer = post(f"{url}/v1/detoxify", json={"stream": True} | question)
    assert answer.status_code == 200, answer.text
    payloads = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert payloads.pop() == "[DONE]"
    return [json.loads(payload) for payload in payloads]


def without_times(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("milliseconds", "failures")}


@pytest.mark.parametrize("pace", [None, 1000])
@pytest.mark.parametrize("text", TEXTS)
def test_a_streamed_text_has_the_outcome_of_a_whole_one(url: str, text: str, pace: float | None) -> None:
    started, *rest = events(url, input=text, pace=pace)
    sentences = [row for row in rest if row["object"] == "detoxify.sentence"]
    assert started["object"] == "detoxify.started"
    spans = [(row["start"], row["end"]) for row in started["sentences"]]
    assert [(row["start"], row["end"]) for row in sentences] == spans
    outcome = without_times(rest[-1])
    assert outcome.pop("object") == "detoxify.outcome"
    assert outcome.pop("degraded_reasons") == []
    assert outcome == without_times(fake_guard().check(text).to_dict())
    assert [row["after"] for row in sentences if row["flagged"]] == [row["after"] for row in outcome["edits"]]


def test_a_sentence_says_what_became_of_it_and_why_in_plain_words(url: str) -> None:
    _, clean, toxic, _ = events(url, input=f"{CLEAN} {TOXIC}", explain=True)
    assert (clean["action"], clean["flagged"], clean["reasons"], clean["attempts"]) == (
        "passed",
        False,
        [],
        [],
    )
    assert (toxic["action"], toxic["after"], toxic["scores"]) == ("rewritten", MENDED, {"toxicity": 0.9})
    refused, taken = toxic["attempts"][0], toxic["attempts"][-1]
    assert refused["reasons"][0] == {"name": "toxic", "words": "it still reads as toxic"}
    assert (refused["taken"], taken["taken"], taken["text"]) == (False, True, MENDED)


def test_candidates_are_told_to_nobody_who_did_not_ask(url: str) -> None:
    rows = events(url, input=TOXIC)
    assert "attempts" not in json.dumps(rows)
    (row,) = post(f"{url}/v1/detoxify", json={"input": TOXIC}).json()["outcomes"]
    assert "sentences" not in row


def test_a_whole_answer_explains_itself_as_a_stream_does(url: str) -> None:
    text = f"{CLEAN} {TOXIC}"
    answer = post(f"{url}/v1/detoxify", json={"input": [text, CLEAN], "explain": True}).json()
    told = [row for row in events(url, input=text, explain=True) if row.pop("object") == "detoxify.sentence"]
    assert answer["outcomes"][0]["sentences"] == told
    assert len(answer["outcomes"][1]["sentences"]) == 1


def test_each_sentence_is_told_before_the_next_one_is_rewritten() -> None:
    calls: list[int] = []
    rewriter = WordRewriter()

    def rewrite(segments: Any, n: int) -> Any:
        calls.append(len(segments))
        return rewriter.rewrite(segments, n)

    with proxy(guard=fake_guard(rewriter=rewrite)) as url:
        rows = events(url, input=" ".join([TOXIC] * 3))
    assert calls == [1, 1, 1]
    assert [row["object"] for row in rows[1:-1]] == ["detoxify.sentence"] * 3


def test_a_paced_text_is_handed_in_word_by_word(url: str) -> None:
    text = f"{CLEAN} {TOXIC}\n"
    rows = events(url, input=text, pace=1000)
    ends = [row["end"] for row in rows if row["object"] == "detoxify.read"]
    assert ends == sorted(ends)
    assert ends[-1] == len(text)
    assert len(ends) == len(text.split()) + 1
    kinds = [row["object"] for row in rows]
    assert kinds.index("detoxify.sentence") < len(kinds) - 1 - kinds[::-1].index("detoxify.read")


def test_nothing_is_told_of_what_stands_behind_a_block(url: str) -> None:
    policy = {"ladder": ["block"]}
    started, blocked, outcome = events(url, input=f"{TOXIC} {CLEAN}", policy=policy)
    assert len(started["sentences"]) == 2
    assert (blocked["action"], outcome["text"]) == ("blocked", Policy().refusal)
    *_, last = events(url, input=f"{TOXIC} " + f"{CLEAN} " * 40, policy=policy, pace=500)
    assert last["action"] == "blocked"


def test_a_policy_that_withholds_whole_texts_is_streamed_without_a_word_of_them() -> None:
    with proxy(guard=fake_guard(Policy(ladder=("block",), block="whole"))) as url:
        *_, outcome = events(url, input=f"{CLEAN} {TOXIC}")
    assert outcome["text"] == Policy().refusal


@pytest.mark.parametrize(
    ("question", "param"),
    [
        ({"input": [TOXIC], "stream": True}, "input"),
        ({"input": TOXIC, "pace": 5}, "pace"),
        ({"input": TOXIC, "stream": True, "pace": 0}, "pace"),
        ({"input": TOXIC, "stream": True, "pace": 1001}, "pace"),
        ({"input": TOXIC, "stream": "yes"}, "stream"),
        ({"input": TOXIC, "explain": 1}, "explain"),
        ({"input": 3, "stream": True}, "input.str"),
    ],
)
def test_a_question_that_no_stream_answers_is_refused(url: str, question: Any, param: str) -> None:
    answer = post(f"{url}/v1/detoxify", json=question)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_a_detector_that_fails_is_told_in_plain_words() -> None:
    def fails(texts: Any) -> Any:
        raise RuntimeError(texts[0])

    with proxy(guard=fake_guard(Policy(ladder=("block",)), detector=fails, lexicon=fails)) as url:
        *_, blocked, outcome = events(url, input=TOXIC)
    assert blocked["reasons"] == [{"name": "detector_error", "words": "the detector failed"}]
    assert outcome["degraded_reasons"] == blocked["reasons"]


class BrokenAudit:
    """An audit whose disk is full."""

    def record(self, interventions: Any, /) -> None:
        raise AuditError("the audit does not work: disk full")


def test_a_text_that_cannot_be_recorded_ends_the_stream_with_an_error() -> None:
    with proxy(guard=fake_guard(audit=BrokenAudit())) as url:
        answer = post(f"{url}/v1/detoxify", json={"input": TOXIC, "stream": True, "explain": True})
    *_, last = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert json.loads(last)["error"]["code"] == "guard_unavailable"
    assert "idiot" not in answer.text


def test_a_client_that_leaves_is_not_worked_for_any_longer() -> None:
    text = f"{CLEAN} " * 200
    with proxy() as url:
        question = {"input": text, "stream": True, "pace": 1}
        with (
            httpx.Client(timeout=PATIENCE) as client,
            client.stream("POST", f"{url}/v1/detoxify", json=question) as answer,
        ):
            next(answer.iter_bytes())
        open_requests = "guardrail_requests_open 1.0"  # the one that asks
        wait_until(lambda: open_requests in get(f"{url}/metrics").text)


def test_the_sentences_announced_are_those_of_the_segmenter(url: str) -> None:
    text = f"# Title\n\n> {CLEAN}\n\n```\ncode idiot\n```\n{TOXIC}"
    started, *rest = events(url, input=text)
    policy = Policy()
    segmenter = Segmenter(segment_min=policy.segment_min, segment_max=policy.segment_max)
    bodies = [s.body for s in (*segmenter.feed(text), *segmenter.close()) if s.body]
    assert [text[row["start"] : row["end"]] for row in started["sentences"]] == bodies
    assert len([row for row in rest if row["object"] == "detoxify.sentence"]) == len(bodies)
    assert PROXY_KEY not in str(rest)


def test_the_metrics_say_how_model_calls_are_shared(url: str) -> None:
    events(url, input=TOXIC)
    lines = get(f"{url}/metrics").text.splitlines()
    (calls,) = [line for line in lines if line.startswith('guardrail_model_calls_total{place="detector"}')]
    assert float(calls.rpartition(" ")[2]) >= 1
    assert 'guardrail_queue_texts{place="detector"} 0.0' in lines
