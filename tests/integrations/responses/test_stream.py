"""Responses are moderated without a server: whole, and streamed in events that fit together."""

from __future__ import annotations

import asyncio
import copy
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from random import Random
from types import NoneType
from typing import Any

import pytest
from openai import omit
from openai._models import construct_type
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent

from guardrail import Policy
from guardrail.integrations.completions.stream import AnsweredError
from guardrail.integrations.responses.response import ResponseContext, moderate_response
from guardrail.integrations.responses.stream import ResponseStream
from guardrail.integrations.strict_json import MalformedError
from tests.integrations.mutated import changed, mutated
from tests.integrations.responses.recorded import (
    CODE,
    RECORDED,
    REQUEST,
    SEARCH,
    USAGE,
    Event,
    call,
    citation,
    message,
    reasoning,
    response,
    stream,
    text_part,
)
from tests.integrations.server.running import CLEAN, MENDED, TOXIC, fake_guard
from tests.integrations.streamed import StreamRun, moderator

BLOCKING = Policy(ladder=("block",))
IDIOT = re.compile(r"\bidiot\b")
TEXTS = {"output_text": "text", "refusal": "refusal", "summary_text": "text", "reasoning_text": "text"}


class Run(StreamRun):
    """One such stream that was read to its end."""

    def __init__(
        self, events: Iterable[Any], policy: Policy | None = None, request: Event | None = None
    ) -> None:
        asked = ResponseContext.read(REQUEST | (request or {}))
        super().__init__(
            events, lambda write: ResponseStream(moderator=moderator(policy), write=write, asked=asked)
        )

    @property
    def response(self) -> Event:
        """What the last event holds."""
        found: Event = self.written[-1]["response"]
        return found

    def of(self, kind: str) -> list[Event]:
        """The events of a kind."""
        return [event for event in self.written if event["type"] == kind]


def whole(answer: Event, policy: Policy | None = None, request: Event | None = None) -> Event:
    asked = ResponseContext.read(REQUEST | (request or {}))
    return asyncio.run(moderate_response(copy.deepcopy(answer), moderator=moderator(policy), asked=asked))


def accumulated(events: Sequence[Event]) -> Response:
    """What the client's own accumulator makes of the events."""
    state: Any = ResponseStreamState(input_tools=omit, text_format=omit)
    for event in events:
        state.handle_event(construct_type(type_=ResponseStreamEvent, value=event))
    found: Response = state._completed_response
    return found


def texts(answer: Event) -> list[str]:
    """Every text of a response that people read."""
    parts = [
        part for item in answer["output"] for name in ("summary", "content") for part in item.get(name) or ()
    ]
    return [part[TEXTS[part["type"]]] for part in parts]


def require_consistent(events: Sequence[Event]) -> None:
    """Events are numbered, and what ends or closes a text says what its pieces said."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    spelled: dict[Any, str] = {}
    items: dict[int, Event] = {}
    for event in events:
        kind = event["type"].removeprefix("response.")
        name = "summary" if "summary" in kind else "content"
        place = (event.get("output_index"), name, event.get(f"{name}_index"))
        begins, _, step = kind.rpartition(".")
        if begins in ("output_text", "refusal", "reasoning_text", "reasoning_summary_text"):
            if step == "delta":
                spelled[place] = spelled.get(place, "") + event["delta"]
            else:
                assert event.get("text", event.get("refusal")) == spelled.get(place, "")
        elif begins.endswith("_part") and step == "done":
            assert event["part"][TEXTS[event["part"]["type"]]] == spelled.get(place, "")
        elif kind == "output_item.done":
            items[event["output_index"]] = event["item"]
            for part_name in ("summary", "content"):
                for position, part in enumerate(event["item"].get(part_name) or ()):
                    said = spelled.get((event["output_index"], part_name, position), "")
                    assert part[TEXTS[part["type"]]] == said
    assert [item for _, item in sorted(items.items())] == events[-1]["response"]["output"]


@pytest.mark.parametrize("name", RECORDED)
def test_clean_streams_pass_as_they_came(name: str) -> None:
    tolerant = Policy(threshold=0.95)
    events = stream(RECORDED[name])
    assert Run(events, tolerant).written == events
    assert whole(RECORDED[name], tolerant) == RECORDED[name]


@pytest.mark.parametrize("name", RECORDED)
def test_toxic_text_is_rewritten_and_all_events_say_the_same(name: str) -> None:
    run = Run(stream(RECORDED[name]))
    assert run.error is None
    assert "idiot" not in str([run.response | {"instructions": None, "metadata": None}, run.written[2:-1]])
    require_consistent(run.written)
    assert run.response == whole(RECORDED[name])
    assert run.response["usage"] == USAGE
    assert {key: run.response[key] for key in ("instructions", "metadata", "previous_response_id")} == {
        key: REQUEST[key] for key in ("instructions", "metadata", "previous_response_id")
    }
    if name != "incomplete":
        assert texts(accumulated(run.written).to_dict()) == texts(run.response)


def recut(events: Sequence[Event], at: int) -> list[Event]:
    """The same texts in deltas that are cut in two at one place, counted over all of them."""
    found: list[Event] = []
    seen = 0
    for event in events:
        delta = event.get("delta")
        if isinstance(delta, str) and seen < at < seen + len(delta):
            found += [event | {"delta": delta[: at - seen]}, event | {"delta": delta[at - seen :]}]
        else:
            found.append(event)
        seen += len(delta) if isinstance(delta, str) else 0
    return found


def joined(events: Sequence[Event]) -> list[Event]:
    """The same texts with one delta each."""
    found: list[Event] = []
    for event in events:
        if found and "delta" in event and event["type"] == found[-1]["type"]:
            found[-1] = found[-1] | {"delta": found[-1]["delta"] + event["delta"]}
        else:
            found.append(event)
    return found


def spoken(run: Run) -> str:
    """What the pieces of all texts spell."""
    calls = ("arguments", "code")
    deltas = [event for event in run.written if event["type"].endswith(".delta")]
    return "".join(event["delta"] for event in deltas if not any(call in event["type"] for call in calls))


@pytest.mark.parametrize("policy", [None, BLOCKING], ids=["rewritten", "blocked"])
@pytest.mark.parametrize("name", RECORDED)
def test_every_cut_gives_the_text_of_the_whole(name: str, policy: Policy | None) -> None:
    expected = texts(whole(RECORDED[name], policy))
    events = joined(stream(RECORDED[name]))
    length = sum(len(event.get("delta", "")) for event in events)
    for at in range(length):
        run = Run(recut(events, at), policy)
        assert texts(run.response) == expected, at
        assert "".join(expected) == spoken(run), at


@pytest.mark.parametrize("name", RECORDED)
def test_a_blocked_segment_becomes_a_refusal_and_nothing_follows(name: str) -> None:
    run = Run(stream(RECORDED[name]), BLOCKING)
    assert run.error is None
    require_consistent(run.written)
    flagged = any("idiot" in text for text in texts(RECORDED[name]))
    parts = [part for item in run.response["output"] for part in item.get("content") or ()]
    refusal = fake_guard().policy.refusal
    assert ({"type": "refusal", "refusal": refusal} in parts[-1:]) == flagged
    if flagged:
        assert run.response["status"] == "completed"
        assert accumulated(run.written).output[-1].to_dict()["content"][-1]["type"] == "refusal"
    assert texts(run.response) == texts(whole(RECORDED[name], BLOCKING))


def test_what_was_said_before_the_blocked_segment_stays() -> None:
    run = Run(stream(RECORDED["text"]), BLOCKING)
    (item,) = run.response["output"]
    assert item["status"] == "incomplete"
    assert item["content"][0]["text"] == f"{CLEAN} "
    assert run.response["usage"] == USAGE
    assert "rain" not in str(run.written)


def test_a_policy_that_blocks_whole_texts_leaves_the_refusal_alone() -> None:
    policy = Policy(ladder=("block",), block="whole")
    (item,) = whole(RECORDED["text"], policy)["output"]
    assert item["content"] == [{"type": "refusal", "refusal": policy.refusal}]


@pytest.mark.parametrize(
    "items",
    [[call('{"text": "You idiot."}')], [call('{"text": "You "}'), call('{"text": "id\\u0069ot"}', 2)]],
)
def test_a_toxic_call_is_never_shown(items: list[Event]) -> None:
    answer = response(message(text_part(CLEAN)), *items)
    run = Run(stream(answer))
    require_consistent(run.written)
    assert "idiot" not in str(run.written[2:-1])
    assert run.response["output"][-1]["content"][0]["type"] == "refusal"
    assert texts(run.response) == texts(whole(answer))
    assert run.response["output"][0] == answer["output"][0]


def test_what_a_tool_of_the_provider_found_is_emptied_if_it_is_toxic() -> None:
    found = CODE | {"outputs": [{"type": "logs", "logs": TOXIC}]}
    answer = response(found, message(text_part(CLEAN)))
    run = Run(stream(answer))
    assert run.response["output"] == [CODE | {"outputs": []}, message(text_part(CLEAN))]
    assert run.response == whole(answer)
    assert "idiot" not in str(run.written[2:-1])


def test_annotations_move_with_their_words_or_are_dropped() -> None:
    run = Run(stream(RECORDED["web search"]))
    part = run.response["output"][1]["content"][0]
    marked = [part["text"][each["start_index"] : each["end_index"]] for each in part["annotations"]]
    assert marked == ["valley", "rain"]
    events = run.of("response.output_text.annotation.added")
    assert [event["annotation"] for event in events] == part["annotations"]
    assert [event["annotation_index"] for event in events] == [0, 1]


def test_a_toxic_title_takes_its_annotation_along() -> None:
    part = text_part(CLEAN, [citation(CLEAN, "valley", "You idiot"), citation(CLEAN, "today")])
    run = Run(stream(response(message(part))))
    assert [each["title"] for each in run.response["output"][0]["content"][0]["annotations"]] == ["Weather"]
    assert run.response == whole(response(message(part)))


def test_log_probabilities_and_padding_never_pass() -> None:
    events = stream(RECORDED["text"])
    for event in events:
        if event["type"] == "response.output_text.delta":
            event |= {
                "logprobs": [{"token": "idiot", "logprob": -0.1, "top_logprobs": []}],
                "obfuscation": "x9",
            }
    part = RECORDED["text"]["output"][0]["content"][0] | {"logprobs": [{"token": "idiot"}]}
    answer = response(message(part))
    run = Run([*events[:-1], events[-1] | {"response": answer}], Policy(threshold=0.95))
    assert "logprob'" not in str(run.written)
    assert "obfuscation" not in str(run.written)
    assert whole(answer, Policy(threshold=0.95))["output"][0]["content"][0]["logprobs"] == []


@pytest.mark.parametrize(("text", "shown"), [('{"mood": "fine"}', True), ('{"mood": "id\\u0069ot"}', False)])
def test_json_that_was_asked_for_passes_whole_or_not_at_all(text: str, shown: bool) -> None:
    answer = response(message(text_part(text)))
    request = {"text": {"format": {"type": "json_schema", "name": "mood", "schema": {}}}}
    run = Run(stream(answer), None, request)
    require_consistent(run.written)
    assert run.response == whole(answer, None, request)
    if shown:
        assert run.written == stream(answer)
    else:
        assert [part["type"] for part in run.response["output"][0]["content"]] == ["refusal"]
        assert "mood" not in str(run.written[2:-1])


@pytest.mark.parametrize("dropped", ["delta", ".added", "output_item", "content_part", "response.output"])
def test_events_that_a_careless_server_leaves_out_are_made_up_for(dropped: str) -> None:
    answer = response(message(text_part(f"{CLEAN} {TOXIC}")), call('{"text": "Hello"}'))
    events = [event for event in stream(answer) if dropped not in event["type"]]
    run = Run([event | {"sequence_number": number} for number, event in enumerate(events)])
    assert run.error is None
    assert texts(run.response) == [f"{CLEAN} {MENDED}"]
    assert run.response["output"][1] == answer["output"][1]
    require_consistent(run.written)
    accumulated(run.written)


def test_items_that_come_at_the_same_time_are_kept_apart() -> None:
    answer = response(message(text_part(f"{CLEAN} {TOXIC}")), message(text_part(TOXIC), number=2))
    first = [event for event in stream(answer) if event.get("output_index") == 0]
    second = [event for event in stream(answer) if event.get("output_index") == 1]
    mixed = [event for pair in zip(first, second, strict=False) for event in pair]
    mixed += first[len(second) :] + second[len(first) :]
    ends = stream(answer)
    run = Run([*ends[:2], *mixed, ends[-1]])
    require_consistent(run.written)
    assert "idiot" not in str(run.written[2:-1])
    accumulated(run.written)


def test_a_response_that_failed_passes_without_a_toxic_message() -> None:
    failed = response(message(text_part(TOXIC)), status="failed")
    for text, shown in ((CLEAN, CLEAN), (TOXIC, "the upstream's message is withheld")):
        run = Run(stream(failed | {"error": {"code": "server_error", "message": text}}))
        assert run.written[-1]["type"] == "response.failed"
        assert run.response["error"] == {"code": "server_error", "message": shown}
        assert texts(run.response) == [MENDED]


@pytest.mark.parametrize(
    ("last", "error"),
    [
        (ConnectionError("gone"), ConnectionError),
        ({"type": "error", "code": "full", "message": "Full.", "param": None}, AnsweredError),
        ({"error": {"message": "Full."}}, AnsweredError),
        ("text", MalformedError),
        ({"type": "response.output_text.delta", "output_index": -1, "delta": "x"}, MalformedError),
    ],
)
def test_what_ends_a_stream_early_is_raised_behind_its_clean_text(last: Any, error: type[Exception]) -> None:
    events = [event for event in stream(RECORDED["text"]) if "delta" in event or event["sequence_number"] < 4]
    run = Run([*events, last])
    assert isinstance(run.error, error)
    spelled = "".join(event["delta"] for event in run.of("response.output_text.delta"))
    assert spelled == f"{CLEAN} {MENDED} It may rain later, they say."


def test_a_stream_that_stops_in_the_middle_has_no_end() -> None:
    run = Run(stream(RECORDED["text"])[:-4])
    assert run.error is None
    assert not {"response.completed", "response.output_text.done"} & {event["type"] for event in run.written}


def test_fragments_of_unknown_kinds_and_toxic_events_do_not_pass() -> None:
    events = stream(RECORDED["text"])
    odd = [
        {"type": "response.audio.transcript.delta", "delta": "idi"},
        {"type": "response.news", "text": TOXIC},
        {"type": "response.heartbeat"},
    ]
    run = Run([*events[:3], *odd, *events[3:]], Policy())
    assert [event["type"] for event in run.written if event["type"] not in {e["type"] for e in events}] == [
        "response.heartbeat"
    ]


def test_ids_that_are_toxic_are_replaced_everywhere_alike() -> None:
    text = str(RECORDED["text"]).replace(
        "msg_67ccd2bf17f0819081ff3bb2cf6508e60bb6a6b452d37951", "msg_you_are_an_idiot"
    )
    answer = eval(text, {})  # noqa: S307  # a literal of this module
    run = Run(stream(answer))
    assert "idiot" not in str(run.written[2:-1])
    require_consistent(run.written)
    assert {event["item_id"] for event in run.written if "item_id" in event} == {
        run.response["output"][0]["id"]
    }


def test_a_toxic_search_is_not_made_known() -> None:
    toxic = SEARCH | {"action": {"type": "search", "query": "who is the idiot"}}
    run = Run(stream(response(toxic, message(text_part(CLEAN)))))
    assert "idiot" not in str(run.written[2:-1])
    assert [item["type"] for item in run.response["output"]] == ["message"]


def test_reasoning_that_is_blocked_ends_the_answer_with_a_message() -> None:
    run = Run(stream(response(reasoning([TOXIC]), message(text_part(CLEAN)))), BLOCKING)
    assert [item["type"] for item in run.response["output"]] == ["reasoning", "message"]
    assert CLEAN not in str(run.written)


@pytest.mark.parametrize("policy", [None, BLOCKING], ids=["rewritten", "blocked"])
@pytest.mark.parametrize("name", RECORDED)
def test_no_broken_stream_shows_toxic_text_or_fails_unforeseen(name: str, policy: Policy | None) -> None:
    for seed in range(10):
        run = Run(mutated(stream(RECORDED[name]), seed), policy)
        assert isinstance(run.error, (MalformedError, AnsweredError, NoneType)), seed
        others = [without_echo(event) for event in run.written if not isinstance(event.get("delta"), str)]
        assert not IDIOT.search(json.dumps(others) + spoken(run)), seed
        with suppress(MalformedError):
            answer = whole(changed(RECORDED[name], Random(seed)), policy)
            assert not IDIOT.search(json.dumps(without_echo({"response": answer}))), seed


def without_echo(event: Event) -> Event:
    """An event without what repeats the client's own words."""
    echo = dict.fromkeys(("instructions", "metadata", "stop_sequence"))
    return {key: value | echo if isinstance(value, dict) else value for key, value in event.items()}


def test_no_server_and_no_client_is_loaded() -> None:
    script = (
        "import sys, guardrail.integrations.responses.stream; "
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"fastapi", "starlette", "uvicorn", "httpx", "openai"} & set(done.stdout.split())
