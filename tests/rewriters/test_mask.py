"""Words under spans are masked, and everything else is left alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.outcome import Span
from guardrail.text.masking import mask_spans, mask_whole
from tests.linear import takes_linear_time

TEXT = st.text(max_size=120) | st.text(st.sampled_from("ab*'-@$ .\n\t_`\u200b\u0301😀笨\ud800"), max_size=60)


def cut(text: str, word: str) -> Span:
    start = text.index(word)
    return Span(start, start + len(word))


@st.composite
def texts_with_spans(draw: st.DrawFn) -> tuple[str, list[Span]]:
    text = draw(TEXT)
    bounds = st.integers(-3, len(text) + 3)
    pairs = draw(st.lists(st.tuples(bounds, bounds), max_size=5))
    return text, [Span(min(pair), max(pair)) for pair in pairs]


@pytest.mark.parametrize(
    ("text", "masked", "replaced"),
    [
        ("You idiot!", "Y** i****!", "[x]!"),
        ("**idiot** and _moron_", "**i****** a** _m****_", "**[x]** [x] _[x]_"),
        ("`ass`", "`a**`", "`[x]`"),
        ("i d i o t", "* * * * *", "[x]"),
        ("i.d.i.o.t", "*.*.*.*.*", "[x]"),
        ("f**k @sshole a$$", "f*** @****** a**", "[x]"),
        ("dumb-ass sh!t", "d******* s***", "[x]"),
        ("id\u200biot cafe\u0301", "i***** c****", "[x]"),
        ("- stupid, ugly\n- idiot's\n", "- s*****, u***\n- i******\n", "- [x], [x]\n- [x]\n"),
        ("# You idiot\r\n> moron", "# Y** i****\r\n> m****", "# [x]\r\n> [x]"),
        ("👩‍👩‍👧 笨蛋 ばか", "***** ** **", "[x]"),
        ("идиот غبي", "и**** غ**", "[x]"),
        ("(.)(.) !!!", "****** ***", "[x]"),
        ("", "", ""),
        (" \n ", " \n ", " \n "),
    ],
)
def test_whole_texts_are_masked_word_by_word(text: str, masked: str, replaced: str) -> None:
    assert mask_whole(text, template=None) == masked
    assert mask_whole(text, template="[x]") == replaced


def test_a_span_is_widened_to_the_words_it_touches() -> None:
    text = "those idiots are f**king here"
    spans = [Span(8, 10), cut(text, "*k")]
    assert mask_spans(text, spans, template=None) == "those i***** are f****** here"
    assert mask_spans(text, spans, template="[removed]") == "those [removed] are [removed] here"


def test_neighbours_collapse_into_one_template_only_where_both_are_masked() -> None:
    text = "you stupid ugly idiot are late"
    spans = [cut(text, "stupid"), cut(text, "ugly"), cut(text, "idiot")]
    assert mask_spans(text, spans, template="***") == "you *** are late"
    assert mask_spans(text, [spans[0], spans[2]], template="***") == "you *** ugly *** are late"


def test_a_template_is_a_literal() -> None:
    assert mask_whole("idiot", template=r"\1{text}%s") == r"\1{text}%s"


def test_a_span_without_a_word_hides_its_visible_characters() -> None:
    assert mask_spans("fine :-( really", [Span(4, 9)], template=None) == "fine *** really"


@settings(deadline=None)  # a shared machine may stall
@given(texts_with_spans())
def test_length_and_white_space_are_kept(case: tuple[str, list[Span]]) -> None:
    text, spans = case
    masked = mask_spans(text, spans, template=None)
    assert len(masked) == len(text)
    assert [c if c.isspace() else "x" for c in masked] == [c if c.isspace() else "x" for c in text]


@settings(deadline=None)  # a shared machine may stall
@given(texts_with_spans())
def test_characters_only_ever_become_stars(case: tuple[str, list[Span]]) -> None:
    text, spans = case
    masked = mask_spans(text, spans, template=None)
    assert all(after in (before, "*") for before, after in zip(text, masked, strict=True))


@settings(deadline=None)  # a shared machine may stall
@given(st.text(max_size=40), st.text(max_size=40))
def test_everything_outside_touched_words_is_untouched(before: str, after: str) -> None:
    text = f"{before} idiot {after}"
    span = Span(len(before) + 1, len(before) + 6)
    assert mask_spans(text, [span], template=None) == f"{before} i**** {after}"
    assert mask_spans(text, [span], template="[x]") == f"{before} [x] {after}"


@settings(deadline=None)  # a shared machine may stall
@given(texts_with_spans())
def test_nothing_but_first_letters_stays_readable_under_a_span(case: tuple[str, list[Span]]) -> None:
    text, spans = case
    masked = mask_spans(text, spans, template=None)
    for span in spans:
        inside = masked[max(span.start, 0) : max(span.end, 0)]
        assert not any(a.isalnum() and b.isalnum() for a, b in itertools.pairwise(inside))


@settings(deadline=None)  # a shared machine may stall
@given(TEXT)
def test_no_spans_change_nothing(text: str) -> None:
    assert mask_spans(text, [], template=None) == text
    assert mask_spans(text, [Span(3, 3)], template="[x]") == text


@settings(deadline=None)  # a shared machine may stall
@given(texts_with_spans())
def test_the_order_of_spans_does_not_matter(case: tuple[str, list[Span]]) -> None:
    text, spans = case
    assert mask_spans(text, spans, template="[x]") == mask_spans(text, spans[::-1], template="[x]")


@pytest.mark.parametrize("unit", ["a*", "a ", "*", "a****", "😀", "$", "a-b ", "\u0301"])
def test_time_grows_linearly_with_adversarial_text(unit: str) -> None:
    def masking(size: int, *, whole: bool) -> Callable[[], str]:
        text = unit * (size // len(unit))
        spans = [Span(0, len(text))] if whole else [Span(i, i + 1) for i in range(0, len(text), 3)]
        return partial(mask_spans, text, spans, template=None)

    for whole in (True, False):
        assert takes_linear_time(partial(masking, whole=whole), size=10_000)
