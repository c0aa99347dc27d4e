from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from guardrail.errors import ConfigError, ModelMissingError, UsageError
from guardrail.outcome import Verdict
from guardrail_training import modeling
from guardrail_training.rewards.algebra import Answer
from guardrail_training.rewards.formula import read_formula
from guardrail_training.rewards.models import (
    acceptable,
    clean,
    fluency,
    load_classifier,
    meaning,
    sequence_classifier,
)
from tests.training.reinforcement.conftest import WORDS, word_tokenizer

ANSWERS = [
    Answer(query="a0 a1", prompt="b0 a0 a1", response="c0 c1 c2"),
    Answer(query="a2", prompt="b0 a2", response="d0"),
    Answer(query="a3 a4", prompt="b0 a3 a4", response=""),
]


class Share:
    """A detector whose score is the share of words that are "bad"."""

    def detect(self, texts: Sequence[str]) -> list[Verdict]:
        shares = [text.split().count("bad") / max(1, len(text.split())) for text in texts]
        return [Verdict(scores={"toxicity": share}, flagged=share > 0.5) for share in shares]


class Reader:
    """A verifier that likes short rewrites."""

    def verify(self, sources: Sequence[str], candidates: Sequence[str]) -> list[float]:
        return [float(len(one) <= len(source)) for source, one in zip(sources, candidates, strict=True)]


class Axes:
    """An embedder that knows three texts."""

    def embed(self, texts: Sequence[str]) -> Any:
        rows = {"east": [1.0, 0.0], "north": [0.0, 1.0], "west": [-1.0, 0.0], "north-east": [0.6, 0.8]}
        return np.array([rows[text] for text in texts], dtype=np.float32)


def answers(*pairs: tuple[str, str]) -> list[Answer]:
    return [Answer(query=query, prompt=query, response=response) for query, response in pairs]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-class encoder over whole words, with a window of 15 tokens."""
    from transformers import RobertaConfig, RobertaForSequenceClassification

    folder = tmp_path_factory.mktemp("classifier")
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=3 + len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
        pad_token_id=0,
        initializer_range=0.5,
        id2label={0: "nothate", 1: "hate"},
        label2id={"nothate": 0, "hate": 1},
    )
    RobertaForSequenceClassification(config).save_pretrained(folder)
    word_tokenizer().save_pretrained(folder)
    return folder


def slow_logits(folder: Path, text: str) -> torch.Tensor:
    model, tokenizer = load_classifier(str(folder))
    with torch.no_grad():
        logits: torch.Tensor = model(**tokenizer([text], return_tensors="pt")).logits[0]
    return logits


@pytest.mark.parametrize(
    ("over", "texts"),
    [
        ("response", ["c0 c1 c2", "d0"]),
        ("query+response", ["a0 a1c0 c1 c2", "a2d0"]),
        ("prompt+response", ["b0 a0 a1c0 c1 c2", "b0 a2d0"]),
    ],
)
def test_a_classifier_gives_the_logit_of_its_class_over_the_chosen_text(
    classifier: Path, over: str, texts: list[str]
) -> None:
    score = sequence_classifier(*load_classifier(str(classifier)), label="nothate", output="logit", over=over)

    found = np.asarray(score(ANSWERS[:2]))

    expected = [float(slow_logits(classifier, text)[0]) for text in texts]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)
    assert found.dtype == np.float32


def test_a_probability_is_the_share_of_the_softmax(classifier: Path) -> None:
    model, tokenizer = load_classifier(str(classifier))
    hate, nothate = (
        np.asarray(
            sequence_classifier(model, tokenizer, label=label, output="probability", over="response")(ANSWERS)
        )
        for label in ("hate", "nothate")
    )

    assert (hate + nothate).tolist() == pytest.approx([1, 1, 1], abs=1e-6)
    expected = slow_logits(classifier, "d0").softmax(dim=0)[1]
    assert float(hate[1]) == pytest.approx(float(expected), abs=1e-6)


def test_what_a_classifier_cannot_read_is_cut_at_the_start_so_that_the_response_counts(
    classifier: Path,
) -> None:
    score = sequence_classifier(
        *load_classifier(str(classifier)), label="hate", output="logit", over="prompt+response"
    )
    prompt = " ".join(["b1"] * 40)

    one, other = np.asarray(
        score([Answer(query="", prompt=prompt, response=response) for response in (" c0", " d7")])
    )

    assert one != other


def test_a_classifier_reads_as_many_tokens_as_it_has_positions_for(classifier: Path) -> None:
    from transformers import ElectraConfig, ElectraForSequenceClassification

    torch.manual_seed(0)
    roberta, tokenizer = load_classifier(str(classifier))
    sizes = {"hidden_size": 16, "embedding_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"vocab_size": 3 + len(WORDS), "max_position_embeddings": 16, "pad_token_id": 0}
    electra = ElectraForSequenceClassification(ElectraConfig(intermediate_size=16, **sizes, **ends)).eval()

    for model, label, window in ((roberta, "hate", 15), (electra, "LABEL_1", 16)):
        score = sequence_classifier(model, tokenizer, label=label, output="logit", over="response")
        texts = [f"{first} " + "b1 " * others for others in (window - 1, window) for first in ("c0", "d7")]
        read = np.asarray(score([Answer(query="", prompt="", response=text) for text in texts]))
        assert read[0] != read[1]
        assert read[2] == read[3]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"label": "toxic"}, r"no class 'toxic'; its classes are \['hate', 'nothate'\]"),
        ({"output": "log"}, "output of a classifier must be one of logit, probability"),
        ({"over": "both"}, "over of a classifier must be one of response"),
    ],
)
def test_a_class_or_setting_that_is_not_there_is_an_error(
    classifier: Path, changes: dict[str, str], said: str
) -> None:
    settings = {"label": "hate", "output": "logit", "over": "response"} | changes

    with pytest.raises(ConfigError, match=said):
        sequence_classifier(*load_classifier(str(classifier)), **settings)


def test_a_hub_id_needs_a_commit_and_nothing_is_downloaded(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pin revision="):
        load_classifier("someone/classifier")
    with pytest.raises(ModelMissingError, match="has no classifier in safetensors"):
        load_classifier(str(tmp_path))


def test_clean_is_how_sure_the_detector_is_of_the_response() -> None:
    rows = answers(("bad bad", "good"), ("", "bad good"), ("", "bad bad bad good"))

    score = clean(Share(), label="toxicity", output="probability")

    assert np.asarray(score(rows)).tolist() == [1, 0.5, 0.25]


def test_the_logit_of_clean_is_bounded_and_rises_with_it() -> None:
    rows = answers(("", "bad"), ("", "bad good"), ("", "good"))

    found = np.asarray(clean(Share(), label="toxicity", output="logit")(rows))

    assert found.tolist() == pytest.approx([-9.21, 0, 9.21], abs=0.01)


def test_meaning_is_the_cosine_of_query_and_response_and_never_negative() -> None:
    rows = answers(("east", "east"), ("east", "north-east"), ("east", "north"), ("east", "west"))

    assert np.asarray(meaning(Axes())(rows)).tolist() == pytest.approx([1, 0.6, 0, 0])


@pytest.mark.parametrize(("label", "output"), [("rude", "logit"), ("toxicity", "log")])
def test_clean_refuses_labels_and_outputs_that_do_not_exist(label: str, output: str) -> None:
    with pytest.raises(ConfigError, match="must be one of"):
        clean(Share(), label=label, output=output)


def test_fluency_is_1_for_what_surprises_no_more_than_the_query_and_0_for_nothing(llama_base: Path) -> None:
    model = modeling.load_base(llama_base, dtype=torch.float32)
    score = fluency(model, modeling.load_tokenizer(llama_base))
    rows = answers(("a0 a1", "a0 a1"), ("a0 a1", "c3 d4 d4 b2"), ("c3 d4 d4 b2", "a0 a1"), ("a0 a1", ""))

    found = np.asarray(score(rows)).tolist()

    assert found[0] == 1
    assert found[3] == 0
    assert max(found[1], found[2]) == 1
    assert 0 < min(found[1], found[2]) < 1


def test_the_verifier_judges_the_response_as_a_rewrite_of_the_query() -> None:
    assert np.asarray(acceptable(Reader())(ANSWERS)).tolist() == [0.0, 1.0, 1.0]


def test_the_shipped_verifier_is_a_term_that_names_its_weights() -> None:
    reward = read_formula("acceptable")
    assert len(reward.models) == 2
    kept = Answer(query="Your code is wrong, you idiot.", prompt="", response="Your code is wrong.")
    turned = Answer(query="Your code is wrong, you idiot.", prompt="", response="Your code is brilliant.")
    good, bad = reward([kept, turned]).total.tolist()
    assert 0 <= bad < good <= 1
