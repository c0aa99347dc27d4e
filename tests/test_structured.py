"""Values with text in them: what is rewritten, what is only read, and what comes back."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import json
import re
import sys
import types
from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from datetime import date, timezone
from decimal import Decimal
from ipaddress import IPv4Address, IPv6Network
from pathlib import Path, PureWindowsPath
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

import httpx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from openai.types import Completion
from openai.types.chat import ChatCompletion
from openai.types.responses import Response
from pydantic import BaseModel, ConfigDict, HttpUrl, PostgresDsn, PrivateAttr, SecretBytes, SecretStr

from guardrail import Action, Guard, Outcome, Policy, detox_guard
from guardrail.errors import BlockedError, ManifestError, UsageError
from tests.fakes import BagEmbedder, WordDetector

TOXIC = "The driver of that bus is an idiot."
NEUTRAL = "The driver of that bus is a person."
CLEAN = "The weather is fine."
LONG = "The weather on the coast is fine today."
REFUSAL = Policy().refusal


def guard(policy: Policy | None = None, **parts: Any) -> Guard:
    fakes: dict[str, Any] = {
        "detector": WordDetector(),
        "rewriter": lambda segments, n: [[NEUTRAL] for _ in segments],
        "embedder": BagEmbedder(),
        "lexicon": WordDetector(),
    }
    return Guard(policy=policy, **fakes | parts)


BLOCK = Policy(ladder=("block",))


@dataclasses.dataclass(frozen=True)
class Answer:
    text: str
    source: str = "https://example.org"
    score: float = 0.5


@dataclasses.dataclass(frozen=True, slots=True)
class SlottedAnswer:
    text: str
    source: str = "https://example.org"


class Pair(NamedTuple):
    text: str
    rank: int


class Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")
    text: str
    rank: int = 1


def model(**fields: Any) -> Model:
    """With fields that the class does not name."""
    return Model.model_validate(fields)


class Colour(str, enum.Enum):
    RED = "red"
    RUDE = "idiot"


class Reply(str):
    pass


# What is prose without being declared


def test_a_list_of_str_is_prose() -> None:
    assert guard().moderate([CLEAN, TOXIC, [TOXIC]]) == [CLEAN, NEUTRAL, [NEUTRAL]]


def test_a_tuple_and_a_set_of_str_are_prose() -> None:
    assert guard().moderate((TOXIC, 0.5, None)) == (NEUTRAL, 0.5, None)
    assert guard().moderate({TOXIC, CLEAN}) == {NEUTRAL, CLEAN}
    assert guard().moderate(frozenset({TOXIC})) == frozenset({NEUTRAL})


def test_a_str_subclass_in_a_list_comes_back_as_one() -> None:
    (reply,) = guard().moderate([Reply(TOXIC)])
    assert reply == NEUTRAL
    assert type(reply) is Reply


@pytest.mark.parametrize(
    "value",
    [{"answer": TOXIC}, Answer(TOXIC), Pair(TOXIC, 1), Model(text=TOXIC), OrderedDict(answer=TOXIC)],
    ids=lambda value: type(value).__name__,
)
def test_an_undeclared_string_of_a_structure_is_never_rewritten_but_stops_the_value(value: Any) -> None:
    with pytest.raises(BlockedError, match="paths=") as caught:
        guard().moderate(value)
    assert caught.value.outcome.action is Action.BLOCKED


# Declared paths


@pytest.mark.parametrize(
    ("value", "path", "expected"),
    [
        ({"answer": TOXIC}, "answer", {"answer": NEUTRAL}),
        ({"items": [{"text": TOXIC}]}, "items[].text", {"items": [{"text": NEUTRAL}]}),
        ([{"text": TOXIC}], "[].text", [{"text": NEUTRAL}]),
        ({"tags": [[TOXIC]]}, "tags[][]", {"tags": [[NEUTRAL]]}),
        ({"a": {"b": (TOXIC,)}}, "a.b[]", {"a": {"b": (NEUTRAL,)}}),
        (Answer(TOXIC), "text", Answer(NEUTRAL)),
        (SlottedAnswer(TOXIC), "text", SlottedAnswer(NEUTRAL)),
        (Pair(TOXIC, 3), "text", Pair(NEUTRAL, 3)),
        (Model(text=TOXIC, rank=2), "text", Model(text=NEUTRAL, rank=2)),
        (model(text=CLEAN, note=TOXIC), "note", model(text=CLEAN, note=NEUTRAL)),
    ],
    ids=str,
)  # fmt: skip
def test_a_declared_path_is_rewritten_in_place(value: Any, path: str, expected: Any) -> None:
    result = guard().moderate(value, paths=[path])
    assert result == expected
    assert type(result) is type(value)


def test_what_a_path_reaches_may_be_missing_or_empty() -> None:
    assert guard().moderate({"items": []}, paths=["items[].text"]) == {"items": []}
    assert guard().moderate({"answer": None}, paths=["answer"]) == {"answer": None}
    mixed = {"items": [{"text": TOXIC}, {"image": "x"}]}
    assert guard().moderate(mixed, paths=["items[].text"])["items"][0] == {"text": NEUTRAL}


@pytest.mark.parametrize(
    ("path", "match"),
    [
        ("answers", "does not exist in a dict"),
        ("answer.text", "does not exist"),
        ("items", "leads to a list"),
        ("count", "leads to a int"),
        ("", "malformed"),
        ("a..b", "malformed"),
        ("items[0]", "malformed"),
        (".answer", "malformed"),
    ],
)
def test_a_path_that_does_not_fit_is_a_clear_error(path: str, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        guard().moderate({"answer": CLEAN, "items": [CLEAN], "count": 1}, paths=[path])


def test_one_str_in_place_of_a_list_of_paths_is_a_clear_error() -> None:
    with pytest.raises(UsageError, match="list of str"):
        guard().moderate({"answer": CLEAN}, paths="answer")


def test_a_json_string_at_a_declared_path_is_prose() -> None:
    value = {"arguments": json.dumps({"note": TOXIC})}
    assert guard().moderate(value, paths=["arguments"])["arguments"] != value["arguments"]


# What is read and never changed


@pytest.mark.parametrize(
    "value",
    [
        {"idiot": 1},
        {"a": {("x", "idiot"): 1}},
        {"colour": Colour.RUDE},
        [Colour.RUDE],
        [json.dumps({"note": TOXIC})],
        ['{"note": "\\u0069diot"}'],
        ['{"note": "idiot", "note": "fine"}'],
        [json.dumps({"inner": json.dumps(["idiot"])})],
        {"id": "idiot"},
        model(text=CLEAN, idiot=1),
    ],
    ids=str,
)
def test_keys_enums_ids_and_json_are_read_and_never_changed(value: Any) -> None:
    with pytest.raises(BlockedError):
        guard().moderate(value)


def test_an_attribute_that_is_no_field_is_read_too() -> None:
    answer = Answer(CLEAN)
    answer.__dict__["cached"] = TOXIC
    with pytest.raises(BlockedError):
        guard().moderate(answer, paths=["text"])


def test_every_string_is_read_in_shared_model_calls() -> None:
    detector = WordDetector()
    guard(detector=detector).moderate({"at one": "first", "at two": ["second", {"at three": "third"}]})
    (call,) = detector.calls
    assert sorted(call) == ["at one", "at three", "at two", "first", "second", "third"]


def test_a_key_of_one_word_is_read_if_the_word_list_knows_it() -> None:
    detector = WordDetector()
    guard(detector=detector).moderate({"args": "first"})
    assert detector.calls == [("first",)]
    with pytest.raises(BlockedError):
        guard(detector=detector).moderate({"idiot": "first"})


def test_terms_known_to_be_clean_are_not_read_again() -> None:
    detector = WordDetector()
    careful = guard(detector=detector)
    for text in ("first", "second"):
        careful.moderate({"role": "assistant", "content": text})
    assert detector.calls[1:] == [("second",)]


def test_a_flagged_term_is_read_every_time() -> None:
    careful = guard()
    for _ in range(2):
        with pytest.raises(BlockedError):
            careful.moderate({"kind": "idiot"})


# What comes back


@pytest.mark.parametrize(
    "value",
    [
        None,
        3,
        True,
        CLEAN,
        [CLEAN, 1, None],
        {"a": [Decimal(1), date(2026, 1, 1), UUID(int=1), 1.5], "b": (CLEAN,)},
        Answer(CLEAN),
        model(text=CLEAN, note=[CLEAN]),
        {"colour": Colour.RED},
        AIMessage(CLEAN, id="1", tool_calls=[{"name": "f", "args": {"q": "x"}, "id": "2"}]),
        [],
        {},
    ],
    ids=repr,
)
def test_a_clean_value_is_the_very_same_object(value: Any) -> None:
    assert guard().moderate(value) is value
    assert asyncio.run(guard().amoderate(value)) is value


def test_untouched_parts_are_the_very_same_objects() -> None:
    value = {"answer": TOXIC, "sources": [CLEAN], "meta": Answer(CLEAN)}
    result = guard().moderate(value, paths=["answer"])
    assert result["sources"] is value["sources"]
    assert result["meta"] is value["meta"]
    assert value["answer"] == TOXIC  # what the caller holds is not changed


def test_the_order_and_class_of_a_dict_stay() -> None:
    result = guard().moderate(OrderedDict(b=TOXIC, a=CLEAN), paths=["b"])
    assert type(result) is OrderedDict
    assert list(result) == ["b", "a"]


def test_a_pydantic_model_keeps_which_fields_were_set() -> None:
    assert guard().moderate(Model(text=TOXIC), paths=["text"]).model_fields_set == {"text"}


class Open(BaseModel):
    """Has private attributes beside extra ones."""

    model_config = ConfigDict(extra="allow")
    _raw: dict[str, str] = PrivateAttr(default_factory=lambda: {"role": "assistant", "content": TOXIC})


@pytest.mark.parametrize("extra", [{}, {"role": "assistant", "content": TOXIC}])
def test_a_private_attribute_is_moderated_in_its_place(extra: dict[str, str]) -> None:
    given = Open(**extra)
    moderated = guard().moderate(given)
    assert moderated._raw == {"role": "assistant", "content": NEUTRAL}
    assert moderated.__pydantic_private__ == {"_raw": moderated._raw}
    assert moderated.model_dump() == extra | ({"content": NEUTRAL} if extra else {})
    assert given._raw["content"] == TOXIC


def test_a_deque_comes_back_as_one() -> None:
    given = deque([CLEAN, TOXIC], maxlen=2)
    moderated = guard().moderate(given)
    assert (moderated, moderated.maxlen) == (deque([CLEAN, NEUTRAL]), 2)
    assert given[1] == TOXIC


@pytest.mark.parametrize("value", [b"bytes", bytearray(b"x"), {"a": object()}, len, Answer, [iter("a")]])
def test_what_cannot_be_read_is_a_type_error_that_names_it(value: Any) -> None:
    inner = next(iter(value.values())) if isinstance(value, dict) else value
    inner = inner[0] if isinstance(inner, list) else inner
    with pytest.raises(TypeError, match=type(inner).__name__):
        guard().moderate(value)


class Everything(BaseModel):
    """Fields of kinds that models really have."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    text: str
    value: Any


HARMLESS = [
    HttpUrl("https://example.org/fp_44709d6fcb?page=2"),
    PostgresDsn("postgresql://user@a.example.org,b.example.org/db"),
    httpx.URL("https://example.org/"),
    Path("/srv/reports/2026.pdf"),
    PureWindowsPath("C:/reports"),
    IPv4Address("10.0.0.1"),
    IPv6Network("2001:db8::/32"),
    SecretStr("idiot"),
    SecretBytes(b"idiot"),
    b"",
    b"\x89PNG\r\n\x1a\n\xff",
    b"plain",
    bytearray(b"\xff"),
    b"\xff\xd8\xff\xe0\x00\x10JFIF\x00 idiot",
    "\u0438\u0434\u0438\u043e\u0442".encode("cp1251"),
    memoryview(b"\xff"),
    np.float32(0.5),
    np.int64(3),
    np.bool_(True),
    np.str_("fine"),
    np.datetime64("2026-01-01"),
    np.zeros((2, 3), dtype=np.float16),
    np.array(["fine", "good"]),
    np.array([{"a": "fine"}, None], dtype=object),
    torch.ones(2),
    torch.float32,
    re.compile(r"\d+ items"),
    re.compile(rb"\d+"),
    ZoneInfo("Europe/Berlin"),
    timezone.utc,
    ...,
    deque([1, "fine"]),
    range(3),
    slice(1, 2),
    Answer,
    list[int],
    len,
    re.compile,
]


@pytest.mark.parametrize("value", HARMLESS, ids=lambda value: type(value).__name__)
def test_a_field_without_toxic_text_passes_untouched_whatever_it_is(value: Any) -> None:
    held = Everything(text=CLEAN, value=value)
    assert guard().moderate(held) is held
    changed = guard().moderate(Everything(text=TOXIC, value=[value]), paths=["text"])
    assert changed.text == NEUTRAL
    assert changed.value[0] is value


def test_a_module_that_another_thread_is_importing_stops_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch", "pydantic"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    value = {"text": CLEAN, "score": np.float32(0.5)}
    assert guard().moderate(value) is value


@pytest.mark.parametrize(
    "value",
    [
        HttpUrl("https://example.org/you-idiot"),
        HttpUrl("https://example.org/%69diot"),
        httpx.URL("https://example.org/?q=idiot"),
        Path("reports/idiot.pdf"),
        b"an idiot",
        memoryview(b"idiot"),
        "Was f\u00fcr ein idiot".encode("latin-1"),
        "such an idiot, Jos\u00e9\u2019s".encode("cp1252"),
        "idiot".encode("utf-16"),
        "idiot".encode("utf-16-le"),
        "idiot".encode("utf-16-be"),
        "idiot".encode("utf-32"),
        "idiot".encode("utf-8-sig"),
        b'{"note": "\\u0069diot"}',
        deque(["fine", "idiot"]),
        np.array(["fine", "idiot"]),
        np.array([["idiot"]], dtype=object),
        np.bytes_(b"idiot"),
        np.str_("idiot"),
        re.compile("idiot"),
        re.compile(b"idiot"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_text_that_a_field_shows_is_read_and_never_changed(value: Any) -> None:
    with pytest.raises(BlockedError):
        guard().moderate(Everything(text=CLEAN, value=value))


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (Everything(text=CLEAN, value=object()), "at value;"),
        ([Everything(text=CLEAN, value=[CLEAN, {object()}])], r"at \[0\].value\[1\]\[0\];"),
        ({"a": CLEAN, "my idiot": {"b": object()}}, r"at \[value 2\]\[value 1\];"),
        (model(text=CLEAN, idiot=object()), r"at \[value 3\];"),
        (Pair(CLEAN, object()), "at rank;"),  # type: ignore[arg-type]  # wrong on purpose
        (SlottedAnswer(CLEAN, iter(())), "at source;"),  # type: ignore[arg-type]  # wrong on purpose
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_read_is_named_by_its_place_and_no_key_is_shown(value: Any, path: str) -> None:
    with pytest.raises(TypeError, match=path) as caught:
        guard().moderate(value)
    assert "idiot" not in str(caught.value)
    assert "leave out" in str(caught.value)


def test_bytes_that_are_the_whole_answer_are_refused_with_the_way_out() -> None:
    with pytest.raises(TypeError, match="return one of these"):
        guard().moderate(b"an idiot")


def test_a_cycle_and_a_deep_nest_are_clear_errors() -> None:
    cycle: list[Any] = [CLEAN]
    cycle.append({"again": cycle})
    with pytest.raises(UsageError, match="contains itself"):
        guard().moderate(cycle)
    deep: Any = CLEAN
    for _ in range(100):
        deep = [deep]
    with pytest.raises(UsageError, match="nested"):
        guard().moderate(deep)


def test_the_same_object_twice_is_no_cycle() -> None:
    shared = [TOXIC]
    assert guard().moderate([shared, shared]) == [[NEUTRAL], [NEUTRAL]]


# Messages


def message(content: Any = CLEAN, **fields: Any) -> AIMessage:
    return AIMessage(content, id="m1", **fields)


CALL = {"name": "search", "args": {"query": "buses"}, "id": "c1", "type": "tool_call"}
RUDE_CALL = CALL | {"args": {"query": TOXIC}}


def test_the_content_of_a_message_is_prose_and_all_else_stays() -> None:
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    before = message(TOXIC, tool_calls=[CALL], usage_metadata=usage, response_metadata={"model_name": "m"})
    after = guard().moderate(before)
    assert after == before.model_copy(update={"content": NEUTRAL})
    assert type(after) is AIMessage
    assert after.tool_calls is before.tool_calls


@pytest.mark.parametrize("kind", [HumanMessage, ToolMessage])
def test_messages_of_every_role_are_moderated(kind: Any) -> None:
    fields = {"tool_call_id": "c1"} if kind is ToolMessage else {}
    assert guard().moderate(kind(TOXIC, **fields)).content == NEUTRAL


def test_text_blocks_are_prose_and_other_blocks_stay() -> None:
    image = {"type": "image", "url": "https://example.org/a.png"}
    before = message([{"type": "text", "text": TOXIC, "id": "b"}, image, TOXIC])
    after = guard().moderate(before)
    assert after.content == [{"type": "text", "text": NEUTRAL, "id": "b"}, image, NEUTRAL]
    assert after.content[1] is before.content[1]


@pytest.mark.parametrize("arguments", ["tool_calls", "additional_kwargs"])
def test_flagged_arguments_drop_the_calls_and_the_refusal_follows_the_text(arguments: str) -> None:
    raw = {"function_call": {"name": "search", "arguments": json.dumps({"query": TOXIC})}}
    fields: dict[str, Any] = {"tool_calls": [RUDE_CALL]}
    if arguments == "additional_kwargs":
        fields = {"tool_calls": [CALL], "additional_kwargs": raw}
    after = guard().moderate(message(CLEAN, **fields))
    assert after.content == f"{CLEAN}\n\n{REFUSAL}"
    assert (after.tool_calls, after.additional_kwargs, after.id) == ([], {}, "m1")


def test_flagged_arguments_without_text_leave_the_refusal_alone() -> None:
    assert guard().moderate(message("", tool_calls=[RUDE_CALL])).content == REFUSAL


def test_listed_arguments_are_rewritten() -> None:
    after = guard().moderate(message(tool_calls=[RUDE_CALL]), paths=["tool_calls[].args.query"])
    assert after.tool_calls == [CALL | {"args": {"query": NEUTRAL}}]


def test_a_blocked_text_takes_its_calls_along() -> None:
    text = f"{CLEAN} {TOXIC} {CLEAN}"
    after = guard(BLOCK).moderate(message(text, tool_calls=[CALL]))
    assert after.content == guard(BLOCK).check(text).text
    assert after.tool_calls == []


def test_nothing_follows_a_blocked_block() -> None:
    blocks = [
        {"type": "text", "text": CLEAN},
        {"type": "text", "text": TOXIC},
        {"type": "text", "text": "More."},
    ]
    after = guard(BLOCK).moderate(message(blocks))
    assert after.content == [blocks[0], {"type": "text", "text": REFUSAL}]


def test_a_flagged_call_among_blocks_leaves_the_prose_and_the_refusal() -> None:
    text = {"type": "text", "text": TOXIC}
    call = {"type": "tool_use", "id": "c1", "name": "search", "input": {"query": TOXIC}}
    after = guard().moderate(message([text, call]))
    assert after.content == [{"type": "text", "text": NEUTRAL}, {"type": "text", "text": REFUSAL}]


def test_block_whole_leaves_nothing_but_the_refusal() -> None:
    whole = Policy(ladder=("block",), block="whole")
    assert guard(whole).moderate(message(f"{CLEAN} {TOXIC}")).content == REFUSAL
    assert guard(whole).moderate(message([{"type": "text", "text": TOXIC}, CLEAN])).content == [
        {"type": "text", "text": REFUSAL}
    ]


def test_block_raise_raises_for_calls_too() -> None:
    with pytest.raises(BlockedError):
        guard(Policy(block="raise")).moderate(message(tool_calls=[RUDE_CALL]))


def test_a_flagged_id_is_taken_out_of_the_message() -> None:
    after = guard().moderate(AIMessage(CLEAN, id="idiot"))
    assert after.id is None
    assert REFUSAL in after.content


def test_json_content_is_read_and_never_changed() -> None:
    clean = message(json.dumps({"answer": CLEAN}))
    assert guard().moderate(clean) is clean
    assert guard().moderate(message(json.dumps({"answer": TOXIC}))).content == REFUSAL


def test_log_probabilities_never_go_out() -> None:
    tokens = {"content": [{"token": "bus", "top_logprobs": [{"token": "idiot"}]}]}
    after = guard().moderate(message(response_metadata={"logprobs": tokens, "model_name": "m"}))
    assert after.response_metadata == {"logprobs": None, "model_name": "m"}
    assert after.content == CLEAN


def test_a_plain_dict_with_role_and_content_is_a_message() -> None:
    value = {"messages": [{"role": "assistant", "content": TOXIC, "name": "bot"}]}
    assert guard().moderate(value) == {"messages": [{"role": "assistant", "content": NEUTRAL, "name": "bot"}]}


# OpenAI responses


def completion(content: str | None, *, arguments: str | None = None) -> dict[str, Any]:
    calls = [{"id": "c1", "type": "function", "function": {"name": "search", "arguments": arguments}}]
    answer = {"role": "assistant", "content": content, "tool_calls": calls if arguments else None}
    tokens = {"content": [{"token": "idiot", "logprob": -0.1, "top_logprobs": []}], "refusal": None}
    choice = {"index": 0, "finish_reason": "stop", "message": answer, "logprobs": tokens}
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    return {
        "id": "r1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [choice],
        "usage": usage,
    }


@pytest.mark.parametrize("kind", [ChatCompletion.model_validate, dict])
def test_a_chat_completion_keeps_its_shape(kind: Any) -> None:
    before = kind(completion(TOXIC))
    after = guard().moderate(before)
    assert type(after) is type(before)
    expected = ChatCompletion.model_validate(completion(NEUTRAL))
    expected.choices[0].logprobs = None
    assert ChatCompletion.model_validate(after if isinstance(after, dict) else after.model_dump()) == expected


def test_flagged_arguments_end_a_choice_with_content_filter() -> None:
    before = ChatCompletion.model_validate(completion(None, arguments=json.dumps({"query": TOXIC})))
    (choice,) = guard().moderate(before).choices
    assert choice.finish_reason == "content_filter"
    assert choice.message.content == REFUSAL
    assert not choice.message.tool_calls


def test_a_text_completion_is_prose_and_ends_with_content_filter_when_blocked() -> None:
    choice = {"index": 0, "finish_reason": "stop", "text": TOXIC, "logprobs": None}
    before = Completion.model_validate(
        {"id": "r", "object": "text_completion", "created": 1, "model": "m", "choices": [choice]}
    )
    assert guard().moderate(before).choices[0].text == NEUTRAL
    (blocked,) = guard(BLOCK).moderate(before).choices
    assert (blocked.text, blocked.finish_reason) == (REFUSAL, "content_filter")


def response(text: str) -> Response:
    part = {"type": "output_text", "text": text, "annotations": []}
    item = {"id": "o", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    return Response.model_validate(
        {
            "id": "r",
            "object": "response",
            "created_at": 1,
            "model": "m",
            "output": [item],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }
    )


def test_the_text_of_a_response_is_prose() -> None:
    assert guard().moderate(response(TOXIC)).output_text == NEUTRAL
    blocked = guard(BLOCK).moderate(response(f"{LONG} {TOXIC} {LONG}"))
    assert blocked.output_text == f"{LONG} {REFUSAL}"


# Outcomes


def test_the_hook_hears_of_each_prose_string_and_of_each_flagged_other_one() -> None:
    heard: list[Outcome] = []
    guard(on_outcome=heard.append).moderate(message([TOXIC, CLEAN], tool_calls=[RUDE_CALL]))
    assert [outcome.action for outcome in heard] == [Action.REWRITTEN, Action.PASSED, Action.BLOCKED]


def test_blank_strings_of_a_structure_are_no_outcome() -> None:
    heard: list[Outcome] = []
    blank = message("", name=" ")
    assert guard(on_outcome=heard.append).moderate([blank, "\n"]) == [blank, "\n"]
    assert heard == []


def test_a_failing_detector_blocks_what_it_could_not_read() -> None:
    def broken(texts: Sequence[str]) -> Any:
        raise RuntimeError

    assert guard(detector=broken).moderate(message()).content == REFUSAL
    with pytest.raises(BlockedError):
        guard(detector=broken).moderate({"a": CLEAN})


# Wrapped functions


def test_a_wrapped_function_returns_moderated_structures() -> None:
    @detox_guard(guard=guard(), paths=["items[].text"])
    def search(query: str) -> dict[str, Any]:
        return {"items": [{"text": query, "id": 1}]}

    assert search(TOXIC) == {"items": [{"text": NEUTRAL, "id": 1}]}


def test_a_wrapped_coroutine_function_returns_moderated_messages() -> None:
    @detox_guard(guard=guard())
    async def agent(prompt: str) -> AIMessage:
        return message(prompt)

    assert asyncio.run(agent(TOXIC)).content == NEUTRAL


def test_paths_are_checked_when_a_function_is_wrapped() -> None:
    with pytest.raises(UsageError, match="malformed"):
        guard().wrap(lambda: CLEAN, paths=["a..b"])

    def chunks() -> Iterator[str]:
        yield CLEAN

    with pytest.raises(UsageError, match="yields"):
        guard().wrap(chunks, paths=["text"])


@pytest.mark.parametrize("value", [None, 3, {"score": 0.5}])
def test_a_result_without_text_passes(value: Any) -> None:
    assert guard().wrap(lambda: value)() is value


def test_errors_show_no_text() -> None:
    def altered(texts: Sequence[str]) -> Any:
        raise ManifestError("model.onnx was altered")

    canary = "canaryword7419"
    for parts, value in (
        ({"detector": altered}, [canary]),
        ({}, {canary: "idiot"}),
        ({}, [canary, object()]),
    ):
        careful: Guard = guard(**parts)
        with pytest.raises((ManifestError, BlockedError, TypeError)) as caught:
            careful.wrap(lambda value=value: value)()
        trace = caught.value.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename != __file__:
                assert canary not in str(trace.tb_frame.f_locals)
            trace = trace.tb_next
        assert canary not in str(caught.value)


# Properties

words = st.sampled_from(["The", "bus", "idiot", "is", "late.", "Fine.", "moron", "\n"])
prose = st.lists(words, max_size=12).map(" ".join)
leaves = st.one_of(prose, st.none(), st.integers(), st.floats(allow_nan=False))
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner), max_leaves=12
)


def texts_of(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [text for part in value for text in texts_of(part)] if isinstance(value, (list, tuple)) else []


def shape_of(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value), [shape_of(part) for part in value]
    return str if isinstance(value, str) else value


@given(values)
def test_every_prose_string_becomes_what_check_gives_and_the_shape_stays(value: Any) -> None:
    careful = guard()
    result = careful.moderate(value)
    assert texts_of(result) == [careful.check(text).text for text in texts_of(value)]
    assert shape_of(result) == shape_of(value)
    assert asyncio.run(careful.amoderate(value)) == result


@given(st.dictionaries(prose, values, max_size=3))
def test_a_dict_passes_as_it_is_or_not_at_all(value: dict[str, Any]) -> None:
    texts = [*value, *(text for part in value.values() for text in texts_of(part))]
    careful = guard()
    if any(careful.check(text).changed for text in texts):
        with pytest.raises(BlockedError):
            careful.moderate(value)
    else:
        assert careful.moderate(value) is value


@given(st.lists(prose, min_size=1, max_size=3), prose)
def test_a_message_never_shows_what_the_detector_flags(texts: list[str], argument: str) -> None:
    blocks = [{"type": "text", "text": text} for text in texts]
    call = CALL | {"args": {"query": argument}}
    for policy in (Policy(), Policy(ladder=("mask", "block")), BLOCK):
        after = guard(policy).moderate(message(blocks, tool_calls=[call]))
        shown = [str(after.text), json.dumps(after.tool_calls)]
        assert not any(WordDetector().judge(text).flagged for text in shown)
