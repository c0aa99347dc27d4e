"""What is read of known texts, and that an auxiliary model learns from it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from guardrail.errors import ConfigError
from guardrail.manifest import sha256_of
from guardrail.rewriters.adapter import read_adapter
from guardrail_training.records import TrainingRowError
from guardrail_training.regularized import trainer
from guardrail_training.regularized.corpus import load_mixture
from guardrail_training.regularized.fitting import fit, ranking_quality
from guardrail_training.regularized.samples import read_prefix_labels
from guardrail_training.regularized.settings import RegularizedSettings
from guardrail_training.reinforcement.policy import Learner
from tests.training.nado.conftest import auxiliary_of
from tests.training.regularized.conftest import ORACLE, samples_of
from tests.training.regularized.test_posterior_targets import moved
from tests.training.regularized.test_trainer import _corpus, metrics
from tests.training.reinforcement.conftest import WORDS, word_tokenizer

__all__ = ["_corpus"]


@pytest.fixture
def known(settings: RegularizedSettings, tmp_path: Path) -> RegularizedSettings:
    """Settings with two files of texts: every word after another, some of the letter d."""
    for name, step in (("one", 5), ("two", 7)):
        texts = [
            " ".join(WORDS[(step * row + word) % 32] for word in range(1 + row % 5)) for row in range(30)
        ]
        rows = [json.dumps({"text": text}) + "\n" for text in texts]
        (tmp_path / f"{name}.jsonl").write_text("".join(rows))
    return replace(
        settings, known_texts=("one.jsonl", "two.jsonl"), known_rows=40, prefix_weight=1.0, response_tokens=3
    )


def test_known_texts_come_alike_from_all_files(known: RegularizedSettings, tmp_path: Path) -> None:
    mixture = load_mixture(tmp_path, known, tokenizer=word_tokenizer())

    assert len(mixture.known) == 40
    assert max(len(passage.response) for passage in mixture.known) == 3
    assert not load_mixture(tmp_path, replace(known, method="sft"), tokenizer=word_tokenizer()).known


def test_states_are_the_bases_and_labels_the_oracles(
    learner: Learner, known: RegularizedSettings, tmp_path: Path
) -> None:
    passages = load_mixture(tmp_path, known, tokenizer=word_tokenizer()).known[:9]
    tokenizer = word_tokenizer()
    moved(learner)

    found = read_prefix_labels(learner, passages, reward=ORACLE, tokenizer=tokenizer, settings=known)

    for row, passage in enumerate(passages):
        length = len(passage.response)
        with torch.no_grad(), learner.model.disable_adapter():
            prompt = learner.family.pad([passage.prompt])
            alone = learner.family.states(prompt, torch.tensor([passage.response]))[0]
        torch.testing.assert_close(found.states[row, :length], alone, atol=1e-5, rtol=1e-4)
        assert found.ids[row, :length].tolist() == list(passage.response)
        for column in range(found.ids.shape[1]):
            label = float(found.labels[row, column])
            if column < length and (length - 1 - column) % 2 == 0:
                assert label == float("d" not in tokenizer.decode(passage.response[: column + 1]))
            else:
                assert math.isnan(label)


def test_known_texts_teach_which_words_matter(
    learner: Learner, known: RegularizedSettings, tmp_path: Path
) -> None:
    passages = load_mixture(tmp_path, known, tokenizer=word_tokenizer()).known
    told, asked = (
        read_prefix_labels(learner, part, reward=ORACLE, tokenizer=word_tokenizer(), settings=known)
        for part in (passages[:30], passages[30:])
    )
    samples = samples_of(learner, known)
    auxiliary = auxiliary_of(learner)
    optimizer = torch.optim.AdamW(auxiliary.parameters(), lr=1e-2, weight_decay=0.0)

    fit(auxiliary, optimizer, samples, settings=known, iteration=0, steps=100, prefix_labels=told)

    logits = auxiliary(asked.states, asked.ids[..., None])[..., 0].detach()
    found = ~asked.labels.isnan()
    assert (ranking_quality(logits[found], asked.labels[found] == 1) or 0) > 0.7


def test_a_run_with_known_texts_names_them(known: RegularizedSettings, tmp_path: Path) -> None:
    trainer.run(replace(known, iterations=1), reward=ORACLE)

    first, _ = metrics(known)
    assert first["auxiliary/prefixes"] > 0
    manifest = read_adapter(tmp_path / "run" / "step-3").manifest
    named = {part["name"]: part for part in manifest.data}
    assert named["one.jsonl"] == {
        "name": "one.jsonl",
        "rows": 20,
        "sha256": sha256_of(tmp_path / "one.jsonl"),
        "licence": "NOASSERTION",
    }


def test_known_texts_need_a_weight_and_a_text(known: RegularizedSettings, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="prefix_weight"):
        replace(known, prefix_weight=0.0)
    (tmp_path / "two.jsonl").write_text('{"text": " "}\n')
    with pytest.raises(TrainingRowError, match="row 1"):
        trainer.run(known, reward=ORACLE)
