"""Segments join back, do not depend on chunks, and end where a reader would say that a sentence ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.text.boundaries import LOOKAHEAD, lead_end
from guardrail.text.segment import Segment, Segmenter
from tests.linear import takes_linear_time

PIECES = [
    *(
        "a",
        "word ",
        "A longer sentence stands here",
        ". ",
        "! ",
        "?",
        "...",
        "… ",
        "。",
        "؟ ",
        '"',
        "”",
        "Dr. ",
        "U.S. ",
    ),
    *(
        "e.g. ",
        "No. 5",
        "3.14",
        " ",
        "   ",
        "\n",
        "\r\n",
        "\r",
        "\n\n",
        "\u2028",
        "- ",
        "> ",
        "# ",
        "1. ",
        "*",
        "|",
    ),
    *(
        "`",
        "``",
        "```",
        "```\n",
        "\n```",
        "\n```py\n",
        "~~~\n",
        "\n  ~~~~  \n",
        "👨‍👩‍👧",
        "🇩🇪",
        "e\u0301",
        "\ud83d",
        "\ude00",
        "\x00",
        "\u200d",
    ),
]
texts = st.one_of(st.lists(st.sampled_from(PIECES), max_size=80).map("".join), st.text(max_size=200))
bounds = st.sampled_from([(1, 4), (3, 12), (8, 40), (5, 100), (24, 400)])


def cut(text: str, segment_min: int = 24, segment_max: int = 400) -> list[Segment]:
    return cut_chunks([text], segment_min, segment_max)


def cut_chunks(chunks: Iterable[str], segment_min: int = 24, segment_max: int = 400) -> list[Segment]:
    segmenter = Segmenter(segment_min=segment_min, segment_max=segment_max)
    segments = [segment for chunk in chunks for segment in segmenter.feed(chunk)]
    return segments + segmenter.close()


def bodies(text: str, segment_min: int = 1) -> list[str]:
    return [segment.body for segment in cut(text, segment_min)]


@st.composite
def chunked(draw: st.DrawFn) -> list[str]:
    text = draw(texts)
    places = draw(st.lists(st.integers(0, len(text)), max_size=12).map(sorted))
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


@pytest.mark.slow
@given(texts, bounds)
def test_segments_join_back_to_the_text(text: str, bound: tuple[int, int]) -> None:
    segments = cut(text, *bound)
    assert "".join(segment.text for segment in segments) == text
    assert all(text[segment.start : segment.end] == segment.text for segment in segments)


@settings(max_examples=300)
@given(chunked(), bounds)
def test_segments_do_not_depend_on_the_chunks(chunks: list[str], bound: tuple[int, int]) -> None:
    whole = cut("".join(chunks), *bound)
    assert cut_chunks(chunks, *bound) == whole
    assert cut_chunks("".join(chunks), *bound) == whole


@given(texts, texts, bounds)
def test_what_was_emitted_stays_when_more_text_comes(text: str, more: str, bound: tuple[int, int]) -> None:
    early = Segmenter(segment_min=bound[0], segment_max=bound[1]).feed(text)
    assert cut(text + more, *bound)[: len(early)] == early


@pytest.mark.slow
@settings(max_examples=300)
@given(chunked(), bounds, st.data())
def test_segments_join_back_wherever_the_text_paused(
    chunks: list[str], bound: tuple[int, int], data: st.DataObject
) -> None:
    segmenter = Segmenter(segment_min=bound[0], segment_max=bound[1])
    segments: list[Segment] = []
    for number, chunk in enumerate(chunks):
        segments += segmenter.feed(chunk)
        if data.draw(st.booleans()):
            segments += segmenter.close()
            assert "".join(segment.text for segment in segments) == "".join(chunks[: number + 1])
    segments += segmenter.close()
    text = "".join(chunks)
    assert "".join(segment.text for segment in segments) == text
    assert all(text[segment.start : segment.end] == segment.text for segment in segments)
    assert all(0 < len(segment.text) <= bound[1] for segment in segments)


@given(texts, bounds)
def test_no_segment_is_empty_or_longer_than_the_bound(text: str, bound: tuple[int, int]) -> None:
    assert all(0 < len(segment.text) <= bound[1] for segment in cut(text, *bound))


@given(texts, bounds)
def test_all_but_white_space_and_line_markers_is_in_a_core(text: str, bound: tuple[int, int]) -> None:
    for segment in cut(text, *bound):
        before, after = segment.text[: segment.core.start], segment.text[segment.core.end :]
        assert not after.strip()
        assert segment.body == segment.body.strip()
        assert not before.strip() or segment.kind == "prose"
        assert not before.strip() or lead_end(before, 0, len(before), at_line_start=True) == len(before)


@given(texts, bounds)
def test_what_is_held_back_is_bounded(text: str, bound: tuple[int, int]) -> None:
    segmenter = Segmenter(segment_min=bound[0], segment_max=bound[1])
    released = 0
    for fed, character in enumerate(text, start=1):
        released += sum(len(segment.text) for segment in segmenter.feed(character))
        assert fed - released <= bound[1] + LOOKAHEAD


def test_sentences_lines_and_questions_end_segments() -> None:
    assert bodies("One is here. Two is here! Is three? Yes… Four\nfive") == [
        "One is here.", "Two is here!", "Is three?", "Yes…", "Four", "five"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "sentence",
    [
        "It costs 3.14 or 1,000.50 today",
        "Take fruit, e.g. apples, i.e. not meat",
        "Ask Dr. Smith or Mrs. Jones",
        "The U.S. army and J. R. Tolkien",
        "Well... maybe... not",
        "Upgrade to v1.2 at example.com/a.b?q=1 now",
        "See No. 5 and fig. 3 there",
        'He said "stop." and left',
        "Run `a. b` now",
        "Open `one\nline` here",
    ],
)
def test_marks_inside_a_sentence_do_not_end_it(sentence: str) -> None:
    assert bodies(sentence + ". Next.") == [sentence + ".", "Next."]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("你好世界。再见！「好的。」他说", ["你好世界。", "再见！", "「好的。」", "他说"]),
        ("كيف حالك؟ أنا بخير۔ شكرا", ["كيف حالك؟", "أنا بخير۔", "شكرا"]),
        ("यह है। वह है॥ ठीक", ["यह है।", "वह है॥", "ठीक"]),
        ('"Go away!" she said? (No.) Yes', ['"Go away!" she said?', "(No.)", "Yes"]),
        ("Great!😀 **Stop.** Ok?!?! Fine", ["Great!😀", "**Stop.**", "Ok?!?!", "Fine"]),
        ("No. I will not", ["No.", "I will not"]),
        ("so am I. You too", ["so am I.", "You too"]),
    ],
)
def test_other_scripts_and_closing_marks_are_known(text: str, expected: list[str]) -> None:
    assert bodies(text) == expected


def test_short_cores_take_in_what_follows_over_line_breaks_too() -> None:
    assert bodies("You.\nare.\n- an.\nidiot and no more.\nNext line here.", 12) == [
        "You.\nare.\n- an.",
        "idiot and no more.",
        "Next line here.",
    ]


def test_white_space_and_markers_do_not_make_a_core_long() -> None:
    assert bodies("- - -          \nHi        \nyou", 12) == ["Hi        \nyou"]


@pytest.mark.parametrize(
    "marker", ["# ", "### ", "> ", ">", "> > ", "- ", "* ", "+ ", "1. ", "23) ", "| ", "  - "]
)
def test_markers_at_a_line_start_are_no_part_of_the_core(marker: str) -> None:
    assert bodies(f"First line\n{marker}You fool") == ["First line", "You fool"]


@pytest.mark.parametrize("body", ["#tag here", "-5 degrees", "*idiot*", "3.5 litres", "1.x is old", "-- so"])
def test_what_only_looks_like_a_marker_stays_in_the_core(body: str) -> None:
    assert bodies(body) == [body]


def test_markers_inside_a_line_are_text() -> None:
    assert bodies("One is here. - two # three") == ["One is here.", "- two # three"]


def test_a_fenced_block_is_one_code_segment_between_prose() -> None:
    segments = cut("Look at this:\n\n```python\nprint('a. b')\n\nx = 1\n```\nDone. Ok", segment_min=1)
    assert [(segment.kind, segment.body) for segment in segments] == [
        ("prose", "Look at this:"),
        ("code", "```python\nprint('a. b')\n\nx = 1\n```"),
        ("prose", "Done."),
        ("prose", "Ok"),
    ]


def test_short_prose_does_not_join_code() -> None:
    segments = cut("Hi\n~~~\nx\n~~~\nyou")
    assert [(segment.kind, segment.body) for segment in segments] == [
        ("prose", "Hi"), ("code", "~~~\nx\n~~~"), ("prose", "you")
    ]  # fmt: skip


@pytest.mark.parametrize(
    "line", ["```inline``` you fool", "`` ` ``", "~~ no ~~", "````" * 10, "``` " + "a" * 99]
)
def test_lines_that_only_begin_like_a_fence_are_prose(line: str) -> None:
    assert {segment.kind for segment in cut(line + "\nNext line")} == {"prose"}


def test_only_a_fence_of_the_same_mark_and_length_closes_a_block() -> None:
    (block, after) = cut("````\n```\n~~~~\n```` x\n`````\nprose again", segment_min=1)
    assert (block.kind, after.kind, after.body) == ("code", "prose", "prose again")


def test_long_code_is_cut_at_line_ends() -> None:
    segments = cut("```\n" + "some code here\n" * 20 + "```\n", 5, 50)
    assert all(segment.kind == "code" for segment in segments if segment.body)
    assert all(segment.text.startswith("\n") for segment in segments[1:])


def test_a_fence_that_never_closes_neither_holds_nor_hides_text() -> None:
    segments = cut("```\n" + "You fool. " * 200)
    assert len(segments) >= 5
    assert "".join(segment.body for segment in segments).count("fool") == 200


def test_a_backtick_that_never_closes_holds_at_most_its_paragraph() -> None:
    assert bodies("Use `this. Or that. Yes\n\nYou fool. Go now.") == [
        "Use `this. Or that. Yes", "You fool.", "Go now."
    ]  # fmt: skip


def test_long_text_is_cut_at_the_last_white_space_in_the_bound() -> None:
    assert [segment.text for segment in cut("aaaa bbbb cccc dddd", 1, 12)] == ["aaaa bbbb", " cccc dddd"]


@pytest.mark.parametrize("cluster", ["e\u0301", "👨‍👩‍👧", "👍🏽", "🇩🇪", "한", "\ud83d\ude00", "क्षि"])
def test_a_hard_cut_spares_combined_characters(cluster: str) -> None:
    for offset in range(len(cluster)):
        segments = cut("x" * (40 - offset) + cluster + "y" * 30, 1, 40)
        assert sum(cluster in segment.text for segment in segments) == 1


@pytest.mark.parametrize("blank", ["", " ", "\n", "\r\n\t  \u3000", "\n" * 5000, " " * 5000])
def test_blank_text_has_empty_cores_only(blank: str) -> None:
    segments = cut(blank)
    assert not any(segment.body for segment in segments)
    assert "".join(segment.text for segment in segments) == blank


def test_a_segment_does_not_show_its_text() -> None:
    assert "fool" not in repr(cut("You fool"))


LARGE = [
    "x",
    "\n",
    "\n \n",
    "`",
    ". ",
    "- \n",
    "Dr. ",
    "```\n",
    "\u0301",
    "🇩",
    "Hello there, my dear old friend. ",
]


def cut_and_count(text: str, chunks: Iterable[str]) -> None:
    assert sum(len(segment.text) for segment in cut_chunks(chunks)) == len(text)


@pytest.mark.slow
@pytest.mark.parametrize("piece", LARGE)
def test_a_megabyte_is_cut_in_linear_time(piece: str) -> None:
    def cutting(size: int) -> Callable[[], None]:
        text = (piece * size)[:size]
        return partial(cut_and_count, text, [text])

    assert takes_linear_time(cutting, size=125_000)


@pytest.mark.parametrize("piece", ["x", "\n", "`", ". "])
def test_feeding_single_characters_takes_linear_time(piece: str) -> None:
    def feeding(size: int) -> Callable[[], None]:
        text = (piece * size)[:size]
        return partial(cut_and_count, text, text)

    assert takes_linear_time(feeding, size=12_500)
