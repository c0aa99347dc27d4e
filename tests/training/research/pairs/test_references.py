from __future__ import annotations

import pytest

from guardrail.outcome import Span
from research.pairs.references import RULES, Pairing, is_noise, refused_by
from research.pairs.words import stem, words

USUAL = (
    "things",
    "rude",
    "stuff",
    "mistake",
    "person",
    "good",
    "bad",
    "wise",
    "people",
    "well",
    "thought",
    "worst",
)


class Everything:
    def __contains__(self, word: object) -> bool:
        return word != "uaing"


def pairing(source: str, reference: str, *, toxic: str, hostile: bool = False) -> Pairing:
    start = source.index(toxic)
    usual = frozenset(stem(word) for word in USUAL)
    return Pairing(source, reference, (Span(start, start + len(toxic)),), hostile, Everything(), usual)


GOOD = [
    ("He posts idiotic stuff every day.", "He posts stuff every day.", "idiotic"),
    ("The plan is idiotic.", "The plan is not well thought out.", "idiotic"),
    ("You never answer, moron.", "You never answer.", "moron"),
    ("What the hell is that thing?", "What is that thing?", "the hell"),
]


@pytest.mark.parametrize(("source", "reference", "toxic"), GOOD)
def test_a_good_reference_is_kept(source: str, reference: str, toxic: str) -> None:
    assert refused_by(pairing(source, reference, toxic=toxic)) is None


BAD = [
    ("copy", "You are a clown.", "You are a clown", "clown"),
    ("stand-in", "You are a clown.", "You are a bad person.", "clown"),
    ("stand-in", "The clowns won again.", "The unwise people won again.", "clowns"),
    ("stand-in", "He was a clown.", "He was not a good person.", "a clown"),
    ("ungrammatical", "This was written by a clown.", "This was written by a.", "clown"),
    ("ungrammatical", "This crap was written by him.", "This the was written by him.", "crap"),
    ("ungrammatical", "You are using crap words.", "You are uaing words.", "crap"),
    ("ungrammatical", "They own all the crap cars.", "They owns all the the cars.", "crap"),
    ("ungrammatical", "They live in fancy crap and like it.", "They live in fancy and like it.", "crap"),
    ("person", "Damn, that train was late.", "I think that train was late.", "Damn,"),
    ("person", "Maybe you should read, clown.", "Maybe we should read.", "clown"),
    ("tense", "The clown is late again.", "The person was late again.", "clown"),
    ("turned", "I love this crap train.", "I hate this train.", "crap"),
    ("turned", "They do not use this crap train.", "They use this train.", "crap"),
    ("turned", "They use this train, clown.", "They never use this train.", "clown"),
    ("turned", "Is this damn train late?", "This train is late.", "damn"),
    ("dropped", "The damn train left Paris at noon in rain.", "The train left.", "damn"),
    ("dropped", "The damn train left at 12.", "The train left.", "damn"),
    ("invented", "I saw his crap yesterday.", "I saw his wardrobe yesterday.", "crap"),
]


@pytest.mark.parametrize(("rule", "source", "reference", "toxic"), BAD)
def test_a_reference_is_refused_by_the_rule_that_names_its_fault(
    rule: str, source: str, reference: str, toxic: str
) -> None:
    assert refused_by(pairing(source, reference, toxic=toxic)) == rule


def test_a_reference_that_detectors_flag_is_refused() -> None:
    assert refused_by(pairing("You damn clown.", "You clown.", toxic="damn", hostile=True)) == "hostile"


def test_every_rule_has_a_reference_that_it_refuses() -> None:
    assert {rule.name for rule in RULES} == {rule for rule, *_ in BAD} | {"hostile"}


@pytest.mark.parametrize(
    "source",
    [
        "too short",
        "rt look at this damn thing",
        "soooo damn late again today",
        "it is late d again",
        "a & b are late now",
    ],
)
def test_remains_of_markup_and_chat_are_noise(source: str) -> None:
    assert is_noise(source, spans=(), familiar=Everything())


def test_an_unknown_word_outside_the_toxic_spans_is_noise() -> None:
    assert is_noise("we are uaing the train", spans=(), familiar=Everything())
    assert not is_noise("we are uaing the train", spans=(Span(7, 12),), familiar=Everything())


def test_an_apostrophe_makes_no_single_letter() -> None:
    assert not is_noise("it's late and I don't care", spans=(), familiar=Everything())


def test_contractions_and_chat_words_have_one_key() -> None:
    assert [word.key for word in words("dont Don’t u")] == ["don't", "don't", "you"]
