"""Texts are scored by a classifier or a formula before anything is trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast
from typer.testing import CliRunner

from guardrail.errors import UsageError
from guardrail_training.cli import app
from guardrail_training.scores import score_texts


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("classifier")
    words = {word: place for place, word in enumerate(["[PAD]", "[UNK]", "good", "bad", "day"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(
        folder
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=5,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        id2label={0: "nothate", 1: "hate"},
        label2id={"nothate": 0, "hate": 1},
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def test_a_class_s_logit_is_the_reward_and_probabilities_sum_to_one(classifier: Path) -> None:
    first, second = score_texts(["good day", "bad"], classifier=str(classifier), label="nothate")

    for each in (first, second):
        assert each.logits is not None
        assert each.probabilities is not None
        assert each.reward == each.logits["nothate"]
        odds = torch.tensor(list(each.logits.values())).softmax(0)
        assert list(each.probabilities.values()) == pytest.approx(odds.tolist(), abs=1e-6)
    assert first.logits != second.logits


def test_the_command_prints_one_object_for_each_text(classifier: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text('{"said": "bad day"}\n')
    given = ["score", "good day", "--file", str(tmp_path / "texts.jsonl"), "--field", "said"]

    done = CliRunner().invoke(app, [*given, "--classifier", str(classifier), "--label", "nothate"])
    by_formula = CliRunner().invoke(app, [*given, "--reward", "length(least=2, most=3) - 0.5 * copy"])

    assert done.exit_code == by_formula.exit_code == 0, done.output + by_formula.output
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["text"] for row in rows] == ["good day", "bad day"]
    assert all({*row} == {"text", "logits", "probabilities", "reward"} for row in rows)
    row = json.loads(by_formula.stdout.splitlines()[0])
    assert row["reward"] == 1.0
    assert row["terms"] == {"length": 1.0, "copy": 0.0}


def test_what_cannot_be_scored_is_one_clear_error(classifier: Path) -> None:
    with pytest.raises(UsageError, match="give --classifier FOLDER or --reward FORMULA"):
        score_texts(["a"])
    with pytest.raises(UsageError, match=r"no class 'rude'; its classes are \['hate', 'nothate'\]"):
        score_texts(["a"], classifier=str(classifier), label="rude")
    assert "no text to score" in CliRunner().invoke(app, ["score", "--reward", "copy"]).output
