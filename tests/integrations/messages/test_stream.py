"""Messages are moderated without a server: whole, and streamed in events that fit together."""

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

from guardrail import Policy
from guardrail.integrations.completions.stream import AnsweredError
from guardrail.integrations.messages.message import MessageContext, moderate_message
from guardrail.integrations.messages.stream import MessageStream
from guardrail.integrations.strict_json import MalformedError
from tests.integrations.messages.recorded import (
    RECORDED,
    REQUEST,
    Event,
    citation,
    message,
    search_result,
    stream,
    text,
    thinking,
    tool_use,
)
from tests.integrations.mutated import changed, mutated
from tests.integrations.server.running import CLEAN, MENDED, TOXIC
from tests.integrations.streamed import StreamRun, moderator

BLOCKING = Policy(ladder=("block",))
IDIOT = re.compile(r"\bidiot\b")
REFUSAL = BLOCKING.refusal


class Run(StreamRun):
    """One such stream that was read to its end."""

    def __init__(
        self, events: Iterable[Any], policy: Policy | None = None, request: Event | None = None
    ) -> None:
        asked = MessageContext.read(REQUEST | (request or {}))
        super().__init__(
            events, lambda write: MessageStream(moderator=moderator(policy), write=write, asked=asked)
        )

    @property
    def message(self) -> Event:
        """What a client puts together."""
        return accumulated(self.written)


def accumulated(events: Sequence[Event]) -> Event:
    """The message that its events say, as the documentation has it."""
    found: Event = {}
    inputs: dict[int, str] = {}
    for event in copy.deepcopy(list(events)):
        kind = event["type"]
        if kind == "message_start":
            found = event["message"]
        elif kind == "content_block_start":
            assert event["index"] == len(found["content"])
            found["content"].append(event["content_block"])
        elif kind == "content_block_delta":
            block, delta = found["content"][event["index"]], event["delta"]
            if delta["type"] == "input_json_delta":
                inputs[event["index"]] = inputs.get(event["index"], "") + delta["partial_json"]
                continue
            if delta["type"] == "citations_delta":
                block.setdefault("citations", []).append(delta["citation"])
                continue
            (name,) = set(delta) - {"type"}
            block[name] += delta[name]
        elif kind == "content_block_stop" and event["index"] in inputs:
            found["content"][event["index"]]["input"] = json.loads(inputs[event["index"]])
        elif kind == "message_delta":
            found |= event["delta"]
            found["usage"] |= event["usage"]
    return found


def whole(answer: Event, policy: Policy | None = None, request: Event | None = None) -> Event:
    asked = MessageContext.read(REQUEST | (request or {}))
    return asyncio.run(moderate_message(copy.deepcopy(answer), moderator=moderator(policy), asked=asked))


def toxic_text(answer: Event) -> str:
    """What is toxic in the blocks; the client's own stop sequence is its own."""
    return "idiot" if "idiot" in str(answer["content"]) else ""


@pytest.mark.parametrize("name", RECORDED)
def test_clean_streams_pass_as_they_came(name: str) -> None:
    tolerant = Policy(threshold=0.95)
    assert Run(stream(RECORDED[name]), tolerant).written == stream(RECORDED[name])
    assert whole(RECORDED[name], tolerant) == RECORDED[name]


@pytest.mark.parametrize("name", RECORDED)
def test_toxic_text_is_rewritten_and_the_rest_stays(name: str) -> None:
    run = Run(stream(RECORDED[name]))
    assert run.error is None
    assert run.message == whole(RECORDED[name])
    assert not toxic_text(run.message)
    assert run.message["usage"] == RECORDED[name]["usage"]
    assert run.message["stop_sequence"] == RECORDED[name]["stop_sequence"]
    assert [block["type"] for block in run.message["content"]] == [
        block["type"] for block in RECORDED[name]["content"]
    ]


def recut(events: Sequence[Event], at: int) -> list[Event]:
    """The same texts in deltas that are cut in two at one place, counted over all of them."""
    found: list[Event] = []
    seen = 0
    for event in events:
        name, piece = piece_of(event)
        if seen < at < seen + len(piece):
            halves = piece[: at - seen], piece[at - seen :]
            found += [event | {"delta": event["delta"] | {name: half}} for half in halves]
        else:
            found.append(event)
        seen += len(piece)
    return found


def piece_of(event: Event) -> tuple[str, str]:
    """The name and the text of a delta that can be cut."""
    names = [name for name in ("text", "thinking", "partial_json") if name in event.get("delta", {})]
    return (names[0], event["delta"][names[0]]) if names else ("", "")


def joined(events: Sequence[Event]) -> list[Event]:
    """The same texts with one delta each."""
    found: list[Event] = []
    for event in events:
        name, piece = piece_of(event)
        if found and name and name in found[-1].get("delta", {}):
            delta = found[-1]["delta"]
            found[-1] = found[-1] | {"delta": delta | {name: delta[name] + piece}}
        else:
            found.append(event)
    return found


@pytest.mark.parametrize("policy", [None, BLOCKING], ids=["rewritten", "blocked"])
@pytest.mark.parametrize("name", RECORDED)
def test_every_cut_gives_the_message_of_the_whole(name: str, policy: Policy | None) -> None:
    expected = whole(RECORDED[name], policy)
    events = joined(stream(RECORDED[name]))
    for at in range(sum(len(piece_of(event)[1]) for event in events)):
        assert Run(recut(events, at), policy).message["content"] == expected["content"], at


@pytest.mark.parametrize("name", RECORDED)
def test_a_blocked_segment_becomes_a_refusal_and_nothing_follows(name: str) -> None:
    run = Run(stream(RECORDED[name]), BLOCKING)
    assert run.error is None
    assert run.message == whole(RECORDED[name], BLOCKING)
    if toxic_text(RECORDED[name]):
        assert (run.message["stop_reason"], run.message["stop_details"]["type"]) == ("refusal", "refusal")
        assert run.message["content"][-1]["text"].endswith(REFUSAL)
        assert run.message["usage"] == RECORDED[name]["usage"]
    else:
        assert run.message == RECORDED[name]


def test_what_was_said_before_the_blocked_segment_stays() -> None:
    run = Run(stream(RECORDED["text"]), BLOCKING)
    assert run.message["content"] == [text(f"{CLEAN} {REFUSAL}")]
    assert [event["type"] for event in run.written[-3:]] == [
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


def test_a_policy_that_blocks_whole_texts_leaves_the_refusal_alone() -> None:
    assert whole(RECORDED["text"], Policy(ladder=("block",), block="whole"))["content"] == [text(REFUSAL)]


@pytest.mark.parametrize(
    "blocks",
    [[tool_use({"text": "You idiot."})], [tool_use({"text": "You"}), tool_use({"text": "idiot"}, 2)]],
)
def test_a_toxic_call_is_never_shown(blocks: list[Event]) -> None:
    answer = message(text(CLEAN), *blocks, reason="tool_use")
    run = Run(stream(answer))
    assert not toxic_text({"content": run.written})
    assert run.message == whole(answer)
    assert run.message["content"][-1] == text(REFUSAL)
    assert run.message["stop_reason"] == "refusal"


def test_thinking_that_is_blocked_ends_the_message() -> None:
    run = Run(stream(message(thinking(TOXIC), text(CLEAN))), BLOCKING)
    assert [block["type"] for block in run.message["content"]] == ["thinking", "text"]
    assert run.message["content"][1] == text(REFUSAL)


def test_thinking_keeps_its_signature() -> None:
    run = Run(stream(RECORDED["thinking"]))
    assert run.message["content"][0] == thinking(f"{MENDED} {CLEAN}")


def test_what_a_tool_of_the_provider_found_is_emptied_if_it_is_toxic() -> None:
    answer = message(search_result("You idiot"), text(CLEAN))
    run = Run(stream(answer))
    assert run.message == whole(answer)
    assert run.message["content"][0]["content"] == {
        "type": "web_search_tool_result_error",
        "error_code": "unavailable",
    }
    assert run.message["content"][1] == text(CLEAN)


def test_citations_of_rewritten_text_stay_and_toxic_ones_do_not() -> None:
    answer = message(text(TOXIC, [citation(), citation("You idiot.")]))
    run = Run(stream(answer))
    assert run.message["content"] == [text(MENDED, [citation()])]
    assert run.message == whole(answer)


@pytest.mark.parametrize(("words", "shown"), [('{"mood": "fine"}', True), ('{"mood": "id\\u0069ot"}', False)])
@pytest.mark.parametrize("key", ["output_config", "output_format"])
def test_json_that_was_asked_for_passes_whole_or_not_at_all(key: str, words: str, shown: bool) -> None:
    wanted = {"type": "json_schema", "schema": {}}
    request = {key: {"format": wanted} if key == "output_config" else wanted}
    answer = message(text(words))
    run = Run(stream(answer), None, request)
    assert run.message == whole(answer, None, request)
    assert run.message["content"] == ([text(words)] if shown else [text(REFUSAL)])
    assert shown == (run.written == stream(answer))


@pytest.mark.parametrize(
    ("last", "error"),
    [
        (ConnectionError("gone"), ConnectionError),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, AnsweredError),
        ("text", MalformedError),
        ({"type": "content_block_delta", "index": 7, "delta": {}}, MalformedError),
    ],
)
def test_what_ends_a_stream_early_is_raised_behind_its_clean_text(last: Any, error: type[Exception]) -> None:
    run = Run([*stream(RECORDED["text"])[:-3], last])
    assert isinstance(run.error, error)
    assert run.message["content"] == [text(f"{CLEAN} {MENDED} It may rain later, they say.")]
    assert run.message["stop_reason"] is None


def test_a_block_that_was_not_closed_is_shown_before_the_end() -> None:
    events = [event for event in stream(RECORDED["tool use"]) if event["type"] != "content_block_stop"]
    assert Run(events).message == whole(RECORDED["tool use"])


def test_pings_and_harmless_events_pass_and_toxic_ones_do_not() -> None:
    events = stream(RECORDED["text"])
    odd = [{"type": "ping"}, {"type": "news", "text": TOXIC}, {"type": "pause", "reason": "rate"}]
    run = Run([*events[:5], *odd, *events[5:]])
    kinds = [event["type"] for event in run.written]
    assert (kinds.count("ping"), "news" in kinds, "pause" in kinds) == (2, False, True)


@pytest.mark.parametrize("policy", [None, BLOCKING], ids=["rewritten", "blocked"])
@pytest.mark.parametrize("name", RECORDED)
def test_no_broken_stream_shows_toxic_text_or_fails_unforeseen(name: str, policy: Policy | None) -> None:
    for seed in range(10):
        run = Run(mutated(stream(RECORDED[name]), seed), policy)
        assert isinstance(run.error, (MalformedError, AnsweredError, NoneType)), seed
        assert not IDIOT.search(json.dumps([without_echo(event) for event in run.written])), seed
        with suppress(MalformedError):
            answer = whole(changed(RECORDED[name], Random(seed)), policy)
            assert not IDIOT.search(json.dumps(without_echo({"message": answer}))), seed


def without_echo(event: Event) -> Event:
    """An event without what repeats the client's own words."""
    echo = dict.fromkeys(("instructions", "metadata", "stop_sequence"))
    return {key: value | echo if isinstance(value, dict) else value for key, value in event.items()}


def test_no_server_and_no_client_is_loaded() -> None:
    script = (
        "import sys, guardrail.integrations.messages.stream; "
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"fastapi", "starlette", "uvicorn", "httpx", "anthropic"} & set(done.stdout.split())
