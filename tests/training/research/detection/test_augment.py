"""Restyling and obfuscation keep every character's mark, and leave the words findable."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from research.detection.augment import TRICKS, Marked, concatenate, frame, obfuscate, restyle

texts = st.text(max_size=80)
seeds = st.integers(min_value=0, max_value=10_000)
SENTENCE = "You're a damn fool, aren't you? Go home."
SPANS = ((9, 18),)


def marked_words(text: Marked) -> str:
    return "".join(c for c, mark in zip(text.text, text.marks, strict=True) if mark == 1)


@given(texts, seeds)
def test_there_is_one_mark_per_character_whatever_is_done(text: str, seed: int) -> None:
    rng = random.Random(seed)
    for change in (restyle, frame, obfuscate):
        changed = change(Marked.of(text, ()), rng)
        assert len(changed.text) == len(changed.marks)
        assert set(changed.marks) <= {0}


@given(texts)
def test_a_text_nobody_marked_stays_unknown(text: str) -> None:
    assert set(restyle(Marked.of(text, None), random.Random(1)).marks) <= {2}


def test_the_same_seed_gives_the_same_text() -> None:
    source = Marked.of(SENTENCE, SPANS)
    assert restyle(source, random.Random(5)) == restyle(source, random.Random(5))
    assert obfuscate(source, random.Random(5)) == obfuscate(source, random.Random(5))


def test_styles_differ_and_the_marked_words_go_with_them() -> None:
    drawn = [restyle(Marked.of(SENTENCE, SPANS), random.Random(seed)) for seed in range(200)]
    assert len({text.text for text in drawn}) > 15
    assert {marked_words(text).lower() for text in drawn} == {"damn fool"}
    assert any(text.text.islower() for text in drawn)
    assert any(" ," in text.text for text in drawn)
    assert any("?" not in text.text for text in drawn)


def test_a_frame_is_not_part_of_the_toxic_span() -> None:
    for seed in range(50):
        framed = frame(Marked.of(SENTENCE, SPANS), random.Random(seed))
        assert SENTENCE in framed.text
        assert marked_words(framed) == "damn fool"


def test_obfuscation_prefers_the_toxic_words_and_keeps_their_marks() -> None:
    drawn = [obfuscate(Marked.of(SENTENCE, SPANS), random.Random(seed)) for seed in range(200)]
    changed = [text for text in drawn if marked_words(text) != "damn fool"]
    assert len(changed) > 120
    around = [
        text for text in changed if text.text.startswith("You're a ") and text.text.endswith("Go home.")
    ]
    assert len(around) > 0.9 * len(changed)


def test_every_trick_changes_some_word_and_none_breaks_on_short_ones() -> None:
    for trick in TRICKS:
        assert any(trick("asshole", random.Random(seed)) != "asshole" for seed in range(10))
        for seed in range(20):
            assert trick("abc", random.Random(seed))


def test_joined_texts_keep_their_marks_and_the_joint_is_clean() -> None:
    joined = concatenate([Marked.of("ab", ((0, 2),)), Marked.of("cd", None)], " \n")
    assert joined == Marked("ab \ncd", bytes([1, 1, 0, 0, 2, 2]))


def test_substitution_carries_the_highest_mark_of_what_it_replaces() -> None:
    assert Marked("abcd", bytes([0, 1, 0, 0])).sub("bc", "XYZ") == Marked("aXYZd", bytes([0, 1, 1, 1, 0]))
