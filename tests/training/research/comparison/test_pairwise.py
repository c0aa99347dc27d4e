"""Win rates: both orders, ties, and a judge that has to prove itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from guardrail.errors import ConfigError, PluginError, UsageError
from guardrail_training import modeling
from research.comparison.judge_models import endpoint_judge, likelihood_judge
from research.comparison.pairwise import ContinuationDuel, ContinuationWinRate, competence, shuffled, win_rate
from research.comparison.subject import ComparedModel
from tests.training.reinforcement.conftest import word_tokenizer

DUELS = [
    ContinuationDuel(prompt="p", own=" good", other=" bad"),
    ContinuationDuel(prompt="p", own=" bad", other=" good"),
    ContinuationDuel(prompt="p", own=" good", other=" good"),
]
OPENING, CLOSING = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def prefers_good(questions: Sequence[str]) -> list[str]:
    """Sees quality, and takes A where both are alike."""
    found = []
    for question in questions:
        first, second = question.split("Continuation A:")[1].split("Continuation B:")
        found.append("B" if "good" in second and "good" not in first else "A")
    return found


def reads_in_order(questions: Sequence[str]) -> list[str]:
    return ["A" if "one two three" in q.split("Continuation B:")[0] else "B" for q in questions]


def test_a_duel_is_won_only_in_both_orders() -> None:
    found = win_rate(DUELS, prefers_good)

    assert found == ContinuationWinRate(won=1, lost=1, tied=1, first=1, second=0)
    assert found.n == 3
    assert found.consistent == pytest.approx(2 / 3)
    rate = found.rate(seed=0)
    assert (rate.value, rate.n) == (0.5, 3)
    assert rate.low < 0.5 < rate.high


@pytest.mark.parametrize("letter", ["A", "B"])
def test_a_judge_that_always_names_one_place_wins_nothing(letter: str) -> None:
    found = win_rate(DUELS, lambda questions: [letter] * len(questions))

    assert (found.won, found.lost, found.tied) == (0, 0, 3)
    assert (found.first, found.second) == ((3, 0) if letter == "A" else (0, 3))


def test_a_judge_that_says_something_else_has_no_opinion() -> None:
    found = win_rate(DUELS, lambda questions: ["?"] * len(questions))

    assert found == ContinuationWinRate(won=0, lost=0, tied=3, first=0, second=0)


def test_no_duels_and_missing_answers_are_errors() -> None:
    with pytest.raises(UsageError, match="no duels"):
        win_rate([], prefers_good)
    with pytest.raises(PluginError, match="gave 0 answers to 3 questions"):
        win_rate(DUELS, lambda questions: [])


def test_a_text_with_place_holders_stays_as_it_is() -> None:
    asked: list[str] = []

    def note(questions: Sequence[str]) -> list[str]:
        asked.extend(questions)
        return ["A"] * len(questions)

    win_rate([ContinuationDuel(prompt="{first}", own="{second}", other="x")], note)

    assert asked[0].startswith("Text: {first}\n\nContinuation A:{second}\n\nContinuation B:x")


def test_a_judge_has_to_tell_true_from_shuffled() -> None:
    pairs = [("p", f"one two three four {number}") for number in range(8)]

    guesses = competence(pairs, lambda questions: ["A"] * len(questions), seed=0)
    reads = competence(pairs, reads_in_order, seed=0)

    assert (guesses.qualifies, guesses.rate.value, guesses.rate.n) == (False, 0.0, 8)
    assert (reads.qualifies, reads.rate.value, reads.duels.won) == (True, 1.0, 8)


@pytest.mark.parametrize(("right", "qualifies"), [(6, True), (5, False)])
def test_three_of_four_pairs_are_enough(right: int, qualifies: bool) -> None:
    pairs = [(f"p{number}", "one two three four") for number in range(8)]

    def reads_some(questions: Sequence[str]) -> list[str]:
        known = [any(f"Text: p{number}\n" in question for number in range(right)) for question in questions]
        return [
            answer if knows else "A" for answer, knows in zip(reads_in_order(questions), known, strict=True)
        ]

    assert competence(pairs, reads_some, seed=0).qualifies is qualifies


@given(words=st.lists(st.sampled_from("abcdef"), min_size=2, max_size=9), seed=st.integers(0, 99))
def test_shuffling_keeps_the_words_in_another_order(words: list[str], seed: int) -> None:
    text = " " + " ".join(words)

    found = shuffled(text, seed=seed)

    assert sorted(found.split()) == sorted(words)
    assert found == shuffled(text, seed=seed)
    assert (found != text) or len(set(words)) == 1


@pytest.fixture
def subject(tiny_base: Path) -> ComparedModel:
    """A tiny model with a byte-level tokenizer: to it " A" and " B" are two tokens, the first the same."""
    return ComparedModel(
        modeling.load_base(tiny_base, dtype=torch.float32), modeling.load_tokenizer(tiny_base)
    )


@pytest.mark.parametrize("template", [None, TEMPLATE])
def test_a_language_model_judges_by_the_likelier_letter(subject: ComparedModel, template: str | None) -> None:
    tokenizer = subject.tokenizer
    tokenizer.chat_template = template
    questions = [f"The {word} cat sat on the mat, said {word}." for word in ("nothing", "rude", "about")]

    answers = likelihood_judge(subject)(questions)

    expected = []
    for question in questions:
        said = f"{question} " if template is None else OPENING + question + CLOSING
        ids = torch.tensor([tokenizer.encode(said, add_special_tokens=False)])
        logits = subject.model(input_ids=ids).logits[0, -1, tokenizer.convert_tokens_to_ids(["A", "B"])]
        expected.append("AB"[int(logits.argmax())])
    assert answers == expected


def test_control_tokens_in_a_question_are_ordinary_text(subject: ComparedModel) -> None:
    subject.tokenizer.chat_template = TEMPLATE
    asked: list[torch.Tensor] = []
    judge = likelihood_judge(subject)
    subject.model.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: asked.append(kwargs["input_ids"]), with_kwargs=True
    )

    judge(["The cat <|im_end|> sat."])

    assert int((asked[0] == subject.tokenizer.eos_token_id).sum()) == 1  # the template's own


def test_a_tokenizer_without_the_letters_is_an_error(llama_base: Path) -> None:
    model = modeling.load_base(llama_base, dtype=torch.float32)

    with pytest.raises(ConfigError, match="does not tell the answers A and B apart"):
        likelihood_judge(ComparedModel(model, word_tokenizer()))


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("A", "A"),
        (" b", "B"),
        ("B.", "B"),
        ("(A)", "A"),
        ("**B**", "B"),
        ("Continuation A", "A"),
        ("A: because it", "A"),
        ("A good text", ""),
        ("Both", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_an_endpoint_judges_by_the_letter_that_it_begins_with(said: str | None, answer: str) -> None:
    def create(**asked: Any) -> Any:
        assert asked["model"] == "judge"
        return SimpleNamespace(choices=[SimpleNamespace(message=SimpleNamespace(content=said))])

    client = SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=create)))

    assert endpoint_judge(client, model="judge")(["q"]) == [answer]
