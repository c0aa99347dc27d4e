"""Bytes from the network: events and JSON are read the same however they arrive, or not at all."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.integrations.completions.sanitize import (
    identifiers_in,
    only_numbers,
    strings_in_json,
    without_text,
)
from guardrail.integrations.openai_server.sse import EventReader, event
from guardrail.integrations.strict_json import MalformedError, parse

PAYLOADS = st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), min_size=1))
BREAKS = st.sampled_from([b"\n", b"\r\n", b"\r"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def read(chunks: list[bytes], *, limit: int = 1 << 20) -> list[str]:
    reader = EventReader(limit=limit)
    return [payload for chunk in chunks for payload in reader.feed(chunk)] + list(reader.close())


def cut(content: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(content), *(place % (len(content) + 1) for place in places)})
    return [content[start:end] for start, end in pairwise(edges)]


@given(PAYLOADS, BREAKS, st.lists(st.integers(0, 10_000), max_size=20), st.booleans())
def test_events_are_the_same_however_the_bytes_are_cut(
    payloads: list[str], line_break: bytes, places: list[int], begins_with_a_mark: bool
) -> None:
    lines = [b"data: " + payload.encode() + 2 * line_break for payload in payloads]
    content = b"\xef\xbb\xbf" * begins_with_a_mark + b": note" + 2 * line_break + b"".join(lines)
    assert read(cut(content, places)) == payloads


@given(st.text(), st.lists(st.integers(0, 10_000), max_size=20))
def test_what_is_written_can_be_read(text: str, places: list[int]) -> None:
    (payload,) = read(cut(event({"text": text}), places))
    assert parse(payload) == {"text": text}


def test_several_lines_of_data_are_one_payload_and_an_open_event_counts_at_the_end() -> None:
    assert read([b"data:one\ndata: two\n\ndata: three"]) == ["one\ntwo", "three"]


@pytest.mark.parametrize("content", [b"data: " + b"x" * 3000, b"data: xxxx\n" * 600])
@pytest.mark.parametrize("size", [1, 7, 500])
def test_an_event_beyond_the_limit_is_refused_before_it_is_whole(content: bytes, size: int) -> None:
    chunks = [content[start : start + size] for start in range(0, len(content), size)]
    with pytest.raises(MalformedError, match="too long"):
        read(chunks, limit=2000)


@pytest.mark.parametrize("content", ["", "3", "[]", '{"a": NaN}', '{"a": -Infinity}', "{'a': 1}", "{} b"])
def test_anything_but_one_strict_object_is_refused(content: str) -> None:
    with pytest.raises(MalformedError) as caught:
        parse(content)
    assert caught.value.__cause__ is None


@given(JSON)
def test_every_string_of_a_json_text_is_found(value: object) -> None:
    found = strings_in_json(json.dumps(value))

    def strings_in(part: object) -> list[str]:
        if isinstance(part, str):
            return [part]
        if isinstance(part, list):
            return [leaf for item in part for leaf in strings_in(item)]
        if isinstance(part, dict):
            return [leaf for key, item in part.items() for leaf in [key, *strings_in(item)]]
        return []

    # A string that is JSON itself is taken apart further.
    assert [text for text in strings_in(value) if not text.lstrip().startswith(("{", "["))] == [
        text for text in found if not text.lstrip().startswith(("{", "["))
    ]


def test_repeated_keys_and_json_in_json_are_found() -> None:
    assert strings_in_json('{"a": "x", "a": "y"}') == ["a", "x", "a", "y"]
    assert strings_in_json(json.dumps({"a": json.dumps(["\u0069diot"])})) == ["a", "idiot"]
    assert strings_in_json("[" * 100_000) == ["[" * 100_000]


@given(JSON)
def test_nothing_inert_has_a_space_in_it(value: object) -> None:
    def check(part: object) -> None:
        if isinstance(part, str):
            assert not any(character.isspace() for character in part)
        for item in part if isinstance(part, list) else part.values() if isinstance(part, dict) else ():
            check(item)

    check(without_text(value, clean=identifiers_in(value)))


def test_numbers_of_a_usage_report_stay_and_texts_do_not() -> None:
    report = {"total_tokens": 3, "details": {"cached": 1, "note": "a text"}, "a text": 1, "list": [1]}
    clean = {"total_tokens", "details", "cached", "note", "list"}
    assert only_numbers(report, clean=clean) == {
        "total_tokens": 3,
        "details": {"cached": 1, "note": None},
        "list": None,
    }
