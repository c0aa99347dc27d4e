"""Deleting words leaves a text that reads as if they had never been there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.outcome import Span
from guardrail.rewriters.deletion import delete_spans


def without(text: str, word: str) -> str:
    start = text.index(word)
    return delete_spans(text, [Span(start, start + len(word))])


@pytest.mark.parametrize(
    ("text", "word", "expected"),
    [
        ("this is a damn good day .", "damn", "this is a good day ."),
        ("Damn, that was close.", "Damn", ", that was close."),
        ("what the hell", "hell", "what the"),
        ("go away, idiot!", "idiot", "go away,!"),
        ("damn it", "damn", "it"),
        ("- damn it\n- all fine", "damn", "- it\n- all fine"),
        ("first line\ndamn it", "damn", "first line\nit"),
        ("so f**king late", "f**king", "so late"),
    ],
)
def test_a_word_goes_with_its_blanks(text: str, word: str, expected: str) -> None:
    assert without(text, word) == expected


def test_several_words_go_together() -> None:
    assert delete_spans("you damn stupid fool .", [Span(4, 8), Span(9, 15)]) == "you fool ."


@given(st.text(), st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30))))
def test_nothing_is_added_and_line_breaks_stay(text: str, places: list[tuple[int, int]]) -> None:
    spans = [Span(min(pair), max(pair)) for pair in places]
    remaining = iter(text)
    shorter = delete_spans(text, spans)
    assert all(character in remaining for character in shorter)
    assert shorter.count("\n") == text.count("\n")


def test_without_spans_nothing_changes() -> None:
    assert delete_spans(" as it was  ", []) == " as it was  "
