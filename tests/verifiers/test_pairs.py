"""Pairs as tokens: which are the same, moved or changed, and what is left out of long ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from guardrail.rewriters.pairs import KINDS, PairTokens, tokens_of_pair
from tests.detectors.conftest import vocabulary, write_tokenizer

NAMES = {place: token for token, place in vocabulary().items()}
STATES = ("same", "moved", "changed")
TEXTS = st.text(st.sampled_from("abc .!?AÖ\U0001f600\ud800\n"), max_size=80)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    write_tokenizer(path)
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def read(tokenizer: Tokenizer, source: str, candidate: str, *, most: int = 400) -> PairTokens:
    tokens = tokens_of_pair(tokenizer, source, candidate, max_tokens=most)
    assert tokens is not None
    return tokens


def told(tokens: PairTokens) -> list[tuple[str, str]]:
    """Each token but special ones, and its state."""
    return [
        (NAMES[token], STATES[kind // 3 % 3])
        for token, kind in zip(tokens.ids, tokens.kinds, strict=True)
        if NAMES[token] not in ("[CLS]", "[SEP]")
    ]


def test_source_and_candidate_stand_between_special_tokens(tokenizer: Tokenizer) -> None:
    tokens = read(tokenizer, "the cat", "a cat")
    assert [NAMES[token] for token in tokens.ids] == ["[CLS]", "the", "cat", "[SEP]", "a", "cat", "[SEP]"]


def test_what_only_one_text_has_is_changed(tokenizer: Tokenizer) -> None:
    assert told(read(tokenizer, "the idiot cat sat", "the nice cat sat")) == [
        ("the", "same"), ("idiot", "changed"), ("cat", "same"), ("sat", "same"),
        ("the", "same"), ("nice", "changed"), ("cat", "same"), ("sat", "same"),
    ]  # fmt: skip


def test_what_stands_elsewhere_is_moved_as_often_as_both_have_it(tokenizer: Tokenizer) -> None:
    assert told(read(tokenizer, "on the mat cat sat", "cat sat on the the mat")) == [
        ("on", "same"), ("the", "same"), ("mat", "same"), ("cat", "moved"), ("sat", "moved"),
        ("cat", "moved"), ("sat", "moved"), ("on", "same"), ("the", "same"),
        ("the", "changed"), ("mat", "same"),
    ]  # fmt: skip


def test_letter_case_is_no_difference_and_is_told(tokenizer: Tokenizer) -> None:
    tokens = read(tokenizer, "The cat", "the CAT")
    assert {state for _, state in told(tokens)} == {"same"}
    assert [kind % 3 for kind in tokens.kinds] == [0, 1, 0, 0, 0, 2, 0]


def test_kinds_of_source_and_candidate_differ(tokenizer: Tokenizer) -> None:
    tokens = read(tokenizer, "cat", "cat")
    assert tokens.kinds[1] < KINDS // 2 <= tokens.kinds[3] < KINDS


def test_a_control_token_in_a_text_is_read_as_its_letters(tokenizer: Tokenizer) -> None:
    separator = tokenizer.token_to_id("[SEP]")
    assert read(tokenizer, "cat [SEP] mat", "cat").ids.count(separator) == 2


def test_of_a_long_pair_the_common_beginning_and_end_are_left_out(tokenizer: Tokenizer) -> None:
    start, end = "cat " * 100, " mat" * 100
    tokens = read(tokenizer, f"{start}idiot{end}", f"{start}nice{end}", most=80)
    assert len(tokens) == 2 * (16 + 1 + 16) + 3
    assert [pair for pair in told(tokens) if pair[1] != "same"] == [("idiot", "changed"), ("nice", "changed")]


def test_a_pair_that_differs_too_much_to_be_read_is_none(tokenizer: Tokenizer) -> None:
    assert tokens_of_pair(tokenizer, "cat " * 50, "mat " * 50, max_tokens=102) is None
    assert tokens_of_pair(tokenizer, "cat " * 50, "mat " * 50, max_tokens=103) is not None


def test_what_differs_in_too_many_tokens_to_be_compared_is_changed(tokenizer: Tokenizer) -> None:
    tokens = read(tokenizer, "cat mat " * 90, "mat cat " * 90 + "day", most=1000)
    assert len(tokens) == 180 + 181 + 3


@given(source=TEXTS, candidate=TEXTS, most=st.integers(8, 120))
def test_a_pair_is_never_longer_than_asked_and_has_a_kind_for_each_token(
    tokenizer: Tokenizer, source: str, candidate: str, most: int
) -> None:
    tokens = tokens_of_pair(tokenizer, source, candidate, max_tokens=most)
    if tokens is not None:
        assert len(tokens.ids) == len(tokens.kinds) <= most
        assert all(0 <= kind < KINDS for kind in tokens.kinds)


@given(text=TEXTS)
def test_a_copy_has_no_change(tokenizer: Tokenizer, text: str) -> None:
    assert {state for _, state in told(read(tokenizer, text, text))} <= {"same"}
