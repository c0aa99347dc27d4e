from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from research.pairs.styles import STYLES, american, british, restyled


@given(st.text(max_size=40), st.integers(0, 10**6))
def test_both_sides_of_a_row_take_on_the_same_style(text: str, seed: int) -> None:
    first, second = restyled((text, text), random.Random(seed))
    assert first == second


def test_the_same_seed_draws_the_same_style() -> None:
    texts = ("My favourite colour.", "My colour.")
    assert [restyled(texts, random.Random(n)) for n in range(50)] == [
        restyled(texts, random.Random(n)) for n in range(50)
    ]


def test_every_style_is_drawn() -> None:
    texts = ("My favorite colour isn't grey.",)
    found = {restyled(texts, random.Random(n))[0] for n in range(300)}
    assert found == {texts[0], *(change(texts[0]) for _, change in STYLES.values())}


def test_most_rows_stay_as_they_are() -> None:
    assert sum(share for share, _ in STYLES.values()) <= 0.5


def test_spelling_changes_with_its_letter_case() -> None:
    assert american("Colour, colour and pyjamas") == "Color, color and pajamas"
    assert british("Color, color and pajamas") == "Colour, colour and pyjamas"


def test_words_that_mean_something_else_in_british_english_stay() -> None:
    assert british("check the story while I wait") == "check the story while I wait"


def test_addresses_and_code_keep_their_case() -> None:
    small = STYLES["small letters"][1]
    assert small("See https://Example.org/A and `Run`.") == "see https://Example.org/A and `Run`."
