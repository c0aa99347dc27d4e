"""Any sequence classifier as a detector, on a tiny random BERT built here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

from guardrail.detectors.transformers import TransformersDetector
from guardrail.errors import ConfigError, MissingExtraError, ModelMissingError, UsageError
from tests.detectors.conftest import vocabulary

TEXTS = ["you idiot", "", "the cat sat on the mat", "nice day " * 60, "\ud800\0 moron", "x" * 250]


def classifier(
    problem_type: str, names: tuple[str, ...] = ("toxicity", "LABEL_insult", "neutral")
) -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary()),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        id2label=dict(enumerate(names)),
        label2id={name: i for i, name in enumerate(names)},
        problem_type=problem_type,
        initializer_range=0.5,
    )
    return BertForSequenceClassification(config)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """For a model this small a second thread only waits for the first."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tokenizer() -> BertTokenizer:
    return BertTokenizer(vocab=vocabulary())


@pytest.fixture(scope="module")
def detector(tokenizer: BertTokenizer) -> TransformersDetector:
    model = classifier("multi_label_classification")
    return TransformersDetector(model, tokenizer, labels={"toxicity": "toxicity", "LABEL_insult": "insult"})


def test_scores_of_a_multi_label_model_are_sigmoids(tokenizer: BertTokenizer) -> None:
    model = classifier("multi_label_classification")
    verdict = TransformersDetector(model, tokenizer, labels={"LABEL_insult": "insult"}).detect(["you idiot"])[
        0
    ]
    with torch.inference_mode():
        logits = model(**tokenizer("you idiot", return_tensors="pt")).logits[0]
    assert verdict.scores == pytest.approx({"insult": float(logits[1].sigmoid())}, abs=1e-6)


def test_scores_of_a_single_label_model_are_shares(tokenizer: BertTokenizer) -> None:
    model = classifier("single_label_classification")
    names = {"toxicity": "toxicity", "LABEL_insult": "insult", "neutral": "obscene"}
    verdict = TransformersDetector(model, tokenizer, labels=names).detect(["you idiot"])[0]
    assert sum(verdict.scores.values()) == pytest.approx(1)


def test_names_that_share_a_label_count_by_the_highest(tokenizer: BertTokenizer) -> None:
    model = classifier("single_label_classification")
    every = dict.fromkeys(("toxicity", "LABEL_insult", "neutral"), "toxicity")
    verdict = TransformersDetector(model, tokenizer, labels=every, threshold=1 / 3).detect(["you idiot"])[0]
    assert verdict.scores["toxicity"] >= 1 / 3
    assert verdict.flagged


def test_without_a_mapping_names_that_are_labels_are_used(tokenizer: BertTokenizer) -> None:
    detector = TransformersDetector(classifier("single_label_classification"), tokenizer)
    assert set(detector.detect(["you"])[0].scores) == {"toxicity"} == set(detector.labels)


@pytest.mark.parametrize("labels", [{"toxic": "toxicity"}, {}])
def test_a_mapping_that_does_not_fit_is_a_configuration_error(
    tokenizer: BertTokenizer, labels: dict[str, str]
) -> None:
    with pytest.raises(ConfigError, match="LABEL_insult"):
        TransformersDetector(classifier("single_label_classification"), tokenizer, labels=labels)


def test_verdicts_do_not_depend_on_companions(detector: TransformersDetector) -> None:
    for text, verdict in zip(TEXTS, detector.detect(TEXTS), strict=True):
        assert verdict.scores == pytest.approx(detector.detect([text])[0].scores, abs=1e-5)
    assert detector.detect([]) == []


def test_a_long_text_scores_as_its_highest_window(detector: TransformersDetector) -> None:
    # Every full window of one repeated word is the same text; the last one is shorter.
    windows = [verdict.scores for verdict in detector.detect([" ".join(["cat"] * n) for n in range(1, 37)])]
    long = detector.detect([" ".join(["cat"] * 500)])[0].scores
    for label, score in long.items():
        assert windows[-1][label] - 1e-5 <= score <= max(w[label] for w in windows) + 1e-5


def test_a_saved_folder_loads_from_safetensors_with_equal_scores(
    detector: TransformersDetector, tokenizer: BertTokenizer, tmp_path: Path
) -> None:
    classifier("multi_label_classification").save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = TransformersDetector.load(tmp_path, labels={"toxicity": "toxicity", "LABEL_insult": "insult"})
    assert loaded.detect(["you idiot"])[0].scores == pytest.approx(
        detector.detect(["you idiot"])[0].scores, abs=1e-6
    )


def test_a_pickled_model_is_not_loaded(tokenizer: BertTokenizer, tmp_path: Path) -> None:
    model = classifier("multi_label_classification")
    model.config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelMissingError, match="safetensors"):
        TransformersDetector.load(tmp_path)


@pytest.mark.parametrize("revision", [None, "main", "v1.0"])
def test_a_hub_id_needs_a_pinned_commit(revision: str | None) -> None:
    with pytest.raises(UsageError, match="revision"):
        TransformersDetector.load("owner/model", revision=revision)


def test_a_hub_id_is_not_downloaded_unasked() -> None:
    with pytest.raises(ModelMissingError, match="local_files_only=False"):
        TransformersDetector.load("owner/absent-model", revision="0" * 40)


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"detox-guardrail\[torch\]"):
        TransformersDetector.load("anywhere")
