"""Multiple choice: files of the usual forms, prompts, and what a model makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from guardrail.errors import ConfigError
from guardrail_training import modeling
from guardrail_training.cli import app
from guardrail_training.evaluation.multiple_choice import ChoiceQuestion, ask, prompts_of, read_questions
from guardrail_training.records import TrainingRowError

FORMS: dict[str, dict[str, Any]] = {
    "mmlu": {"question": "2 + 2?", "choices": ["3", "4"], "answer": 1},
    "mmlu, by letter": {"question": "2 + 2?", "choices": ["3", "4"], "answer": "B"},
    "arc": {"question": "2 + 2?", "choices": {"text": ["3", "4"], "label": ["1", "2"]}, "answerKey": "2"},
    "arc, as published": {
        "question": {"stem": "2 + 2?", "choices": [{"text": "3", "label": "A"}, {"text": "4", "label": "B"}]},
        "answerKey": "B",
    },
    "openbookqa": {
        "question_stem": "2 + 2 is",
        "choices": {"text": ["3", "4"], "label": ["A", "B"]},
        "answerKey": "B",
    },
    "piqa": {"goal": "2 + 2?", "sol1": "3", "sol2": "4", "label": 1},
    "hellaswag": {"ctx": "2 + 2 is", "endings": ["3", "4"], "label": "1"},
    "winogrande": {"sentence": "2 + _ is 4", "option1": "3", "option2": "2", "answer": "2"},
    "boolq": {"passage": "Sums.", "question": "is 2 + 2 4", "answer": True},
    "siqa": {
        "context": "Two.",
        "question": "And?",
        "answerA": "3",
        "answerB": "4",
        "answerC": "5",
        "label": "2",
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_rows_of_the_usual_forms_are_read(form: str, tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(json.dumps(FORMS[form]) + "\n")

    (question,) = read_questions(path)

    assert question.right == 1
    prompts = prompts_of(question, style="texts")
    assert len(prompts) == len(question.choices)
    assert all(answer.startswith(" ") for _, answer in prompts)


def test_mmlu_s_own_csv_has_no_header(tmp_path: Path) -> None:
    path = tmp_path / "dev.csv"
    path.write_text('"2, or 3?",a,b,c,d,C\n1?,e,f,g,h,A\n')

    assert read_questions(path) == [
        ChoiceQuestion("2, or 3?", ("a", "b", "c", "d"), 2),
        ChoiceQuestion("1?", ("e", "f", "g", "h"), 0),
    ]


@pytest.mark.parametrize("row", [{"text": "zebra"}, {"question": "zebra?", "choices": ["a"], "answer": 3}])
def test_a_row_of_no_known_form_is_named_and_not_quoted(row: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(json.dumps(row) + "\n")

    with pytest.raises(TrainingRowError, match="row 1: no question of a known form") as caught:
        read_questions(path)
    assert "zebra" not in str(caught.value)


def test_five_shots_are_asked_as_mmlu_is() -> None:
    shown = [ChoiceQuestion(f"q{place}?", ("x", "y"), place % 2) for place in range(5)]

    (prompt, answer), (_, other) = prompts_of(
        ChoiceQuestion("new?", ("u", "v"), 0), style="letters", examples=shown, subject="sums"
    )

    assert prompt.startswith("The following are multiple choice questions (with answers) about sums.\n\nq0?")
    assert "q1?\nA. x\nB. y\nAnswer: B\n\n" in prompt
    assert prompt.endswith("new?\nA. u\nB. v\nAnswer:")
    assert (answer, other) == (" A", " B")


def test_the_likeliest_answer_is_the_one_that_a_slow_loop_finds(tiny_base: Path) -> None:
    model = modeling.load_base(tiny_base, dtype=torch.float32)
    tokenizer = modeling.load_ending_tokenizer(tiny_base, pad_token="")
    asked = [
        ChoiceQuestion(f"{word} is", ("a cat", "the long mat"), place % 2)
        for place, word in enumerate("abcd")
    ]

    found = ask(model, tokenizer, asked)

    right = 0
    for question in asked:
        scores = []
        for prompt, answer in prompts_of(question, style="texts"):
            begin = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
            begin += tokenizer.encode(prompt, add_special_tokens=False)
            ids = tokenizer.encode(answer, add_special_tokens=False)
            total = 0.0
            for place, token in enumerate(ids):
                with torch.no_grad():
                    logits = model(torch.tensor([[*begin, *ids[:place]]])).logits[0, -1]
                total += float(logits.log_softmax(0)[token])
            scores.append(total / len(answer.strip()))
        right += scores.index(max(scores)) == question.right
    assert found.per_character is not None
    assert found.per_character.value == right / len(asked)
    assert found.accuracy.n == 4


def test_shots_without_examples_and_unknown_styles_are_refused(tiny_base: Path) -> None:
    with pytest.raises(ConfigError, match="5 shots need as many examples, got 0"):
        ask(None, None, [ChoiceQuestion("a?", ("b", "c"), 0)], shots=5)
    with pytest.raises(ConfigError, match="style must be one of texts, letters"):
        ask(None, None, [], style="essay")


def test_the_command_prints_accuracies_with_intervals(tiny_base: Path, tmp_path: Path) -> None:
    for name in ("test", "dev"):
        (tmp_path / f"{name}.csv").write_text("a?,b,c,d,e,A\nf?,g,h,i,j,B\n")
    given = ["multiple-choice", str(tmp_path / "test.csv"), "--base", str(tiny_base)]

    done = CliRunner().invoke(
        app, [*given, "--style", "letters", "--shots", "2", "--examples", str(tmp_path / "dev.csv")]
    )

    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert found["accuracy"]["n"] == 2
    assert found["accuracy"]["low"] <= found["accuracy"]["value"] <= found["accuracy"]["high"]
    assert found["per_character"] is None
