from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.detectors.lexicon import Entry, Lexicon
from guardrail.errors import UsageError
from guardrail_training.data import normalised
from research.pairs.mixture import PairRow
from research.verifier.negatives import KINDS, Negative, make_negatives

LEXICON = Lexicon([Entry("moron", "insult", 1.0), Entry("idiot", "insult", 1.0)])
PAIRS = [
    PairRow(source, (reference,), "test")
    for source, reference in (
        (
            "Only a moron is always late on Mondays, and he sold 3 tickets.",
            "He is always late on Mondays, and he sold 3 tickets.",
        ),
        (
            "You idiot, I love the good train because it is cheap.",
            "I love the good train because it is cheap.",
        ),
        ("The idiot said that the bus isn't safe in Bath.", "They said that the bus isn't safe in Bath."),
        ("My boss is a moron who never answers the mail.", "My boss is a chef who never answers the mail."),
        ("The late bus was full of morons again, idiot.", "The late bus was full again."),
        ("Why do you buy this crap train, moron?", "Why do you buy a ticket for this train?"),
    )
]  # fmt: skip


def made(pairs: Sequence[PairRow] = PAIRS, *, seed: int = 0, per_pair: int = len(KINDS)) -> list[Negative]:
    return list(make_negatives(pairs, lexicon=LEXICON, seed=seed, per_pair=per_pair))


def of(kind: str, *, seeds: int = 40) -> set[str]:
    return {each.candidate for seed in range(seeds) for each in made(seed=seed) if each.kind == kind}


def test_every_kind_is_made() -> None:
    assert {each.kind for each in made()} == set(KINDS)


@given(st.integers(0, 10**6))
def test_no_candidate_is_a_reference_and_none_comes_twice(seed: int) -> None:
    references = {pair.source: {normalised(text) for text in pair.references} for pair in PAIRS}
    found = made(seed=seed)
    assert not any(normalised(each.candidate) in references[each.source] for each in found)
    told = [(each.source, normalised(each.candidate)) for each in found]
    assert len(set(told)) == len(told)


@given(st.integers(0, 10**6), st.integers(1, 5))
def test_a_pair_has_as_many_as_asked_each_of_another_kind(seed: int, count: int) -> None:
    for pair in PAIRS:
        kinds = [each.kind for each in made(seed=seed, per_pair=count) if each.source == pair.source]
        assert len(kinds) == len(set(kinds)) == count


@given(st.integers(0, 10**6))
def test_the_same_seed_makes_the_same(seed: int) -> None:
    assert made(seed=seed) == made(seed=seed)


def test_another_seed_makes_others() -> None:
    assert made(seed=1) != made(seed=2)


@pytest.mark.parametrize(
    ("kind", "candidate"),
    [
        ("opposite", "He is never late on Mondays, and he sold 3 tickets."),
        ("opposite", "I hate the good train because it is cheap."),
        ("dropped", "He is always late on Mondays, and he sold tickets."),
        ("dropped", "I love the good train."),
        ("hole", "My boss is a who never answers the mail."),
        ("hole", "My boss is a chef who never answers the."),
        ("stand-in", "My boss is a bad person who never answers the mail."),
        ("swapped", "He is always late on Mondays, and he sold 3 tickets."),
        ("hostile", "My boss is a moron who never answers the mail."),
        ("hostile", "The late bus was full again, you idiot."),
        ("person", "Why do I buy a ticket for this train?"),
        ("tense", "The late bus is full again."),
        ("negation", "They said that the bus is safe in Bath."),
        ("negation", "My boss is a chef who answers the mail."),
        ("negation", "The late bus was not full again."),
        ("grammar", "The late bus were full again."),
        ("grammar", "The late bus full again."),
    ],
)
def test_a_kind_makes_the_fault_that_it_is_named_for(kind: str, candidate: str) -> None:
    assert candidate in of(kind)


def test_an_addition_has_words_of_another_pair() -> None:
    own = {pair.source: normalised(pair.references[0]) for pair in PAIRS}
    found = [each for seed in range(10) for each in made(seed=seed) if each.kind == "addition"]
    assert found
    assert all(len(normalised(each.candidate)) > len(own[each.source]) for each in found)


def test_one_pair_alone_has_faults_that_need_no_other() -> None:
    kinds = {each.kind for seed in range(20) for each in made(PAIRS[:1], seed=seed)}
    assert kinds.isdisjoint({"swapped", "addition"})
    assert len(kinds) > 5


def test_no_candidates_at_all_are_not_asked_for() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        made(per_pair=0)
