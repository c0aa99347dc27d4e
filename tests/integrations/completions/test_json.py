"""JSON from the network is read strictly, and its text found or left out."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.integrations.completions.sanitize import (
    identifiers_in,
    only_numbers,
    strings_in_json,
    without_text,
)
from guardrail.integrations.strict_json import MalformedError, parse

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


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
