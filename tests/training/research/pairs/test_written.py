from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.pairs.written import cased, detokenised, names_of, with_articles


@pytest.mark.parametrize(
    ("tokenised", "written"),
    [
        ("do n't do that , please .", "don't do that, please."),
        ("i can 't believe it 's over !", "i can't believe it's over!"),
        ("that 's someone 's death", "that's someone's death"),
        ("dont tell me im wrong", "don't tell me I'm wrong"),
        ("he said ( twice ) : no", "he said (twice): no"),
        ("wait . . . what ?", "wait... what?"),
        ('he called it " a farce " again', 'he called it "a farce" again'),
        ("you are gon na see", "you are gonna see"),
        ("done .. now", "done. now"),
    ],
)
def test_tokenised_text_is_written_as_people_write(tokenised: str, written: str) -> None:
    assert detokenised(tokenised) == written


@given(st.text(alphabet="abc ABC.,!?'\"-()", max_size=40))
def test_written_text_stays_as_it_is(text: str) -> None:
    once = detokenised(text)
    assert [c for c in once if c.isalpha()] == [c for c in text if c.isalpha()]
    assert once == once.strip()


def test_small_letters_get_capitals_at_sentence_starts_in_i_and_in_names() -> None:
    names = {"texas": "Texas"}
    assert cased("i know. we met in texas, i'm sure.", names) == "I know. We met in Texas, I'm sure."


def test_a_word_inside_another_is_no_name() -> None:
    assert cased("the texasmen left i-beams", {"texas": "Texas"}) == "The texasmen left i-beams"


def test_names_are_words_that_careful_texts_always_capitalise() -> None:
    edited = ["We met Priya there."] * 3 + ["The rose was red.", "They saw Rose there."] * 3
    assert names_of(edited, []) == {"priya": "Priya"}


def test_a_text_in_capitals_tells_no_names() -> None:
    assert names_of(["WE MET AGAIN THERE."] * 9, []) == {}


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("a uninformed person", "an uninformed person"),
        ("an person", "a person"),
        ("a hour", "an hour"),
        ("an university", "a university"),
        ("a one-way street", "a one-way street"),
        ("an FBI agent", "an FBI agent"),
    ],
)
def test_articles_fit_the_next_word(wrong: str, right: str) -> None:
    assert with_articles(wrong) == right
