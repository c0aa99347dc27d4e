"""A larger network's scores: kept by text, blended with labels, and drawn for the texts of one training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_model

from research.detection import soft_scores
from research.detection.augment import Marked
from research.detection.labelled import TRAINED, soft
from research.detection.mixture import DetectionExample
from research.detection.settings import DetectorSettings
from research.detection.soft_scores import SoftScores, read_scores, score_texts, training_scores
from tests.training.research.detection.test_detector import write_sources
from tests.training.research.detection.tiny_detector import tiny_base, tiny_network


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base with its trained network beside it."""
    folder = tmp_path_factory.mktemp("base")
    network = tiny_network(folder)
    save_model(network, str(folder / "network.safetensors"))
    return folder


def example(text: str, source: str = "gab_hate_none") -> DetectionExample:
    return DetectionExample(Marked.of(text, None), soft(toxicity=0.0), 1.0, source, origin=text)


def test_labels_move_to_the_scores_and_unknown_ones_are_filled_in(base: Path) -> None:
    scores = read_scores(base, base / "network.safetensors", ["you fool"], threads=1)
    row = score_texts(tiny_network(base), base, ["you fool"])[0]
    blended = scores.blend(example("you fool"), share=0.25).labels
    assert blended[0] == pytest.approx(0.25 * row[0], abs=2e-3)
    assert blended[1:] == pytest.approx(tuple(row[1:]), abs=2e-3)


def test_our_own_sentences_keep_most_of_their_labels(base: Path) -> None:
    scores = read_scores(base, base / "network.safetensors", ["you fool"], threads=1)
    own = scores.blend(example("you fool", "own_harmless"), share=0.9).labels
    other = scores.blend(example("you fool"), share=0.9).labels
    assert 0 < own[0] < other[0]  # type: ignore[operator]  # both are known


def test_a_text_without_scores_stays_as_it_is(base: Path) -> None:
    scores = read_scores(base, base / "network.safetensors", ["you fool"], threads=1)
    assert scores.blend(example("go home"), share=0.5) == example("go home")
    assert scores.blend(replace(example("you fool"), origin=""), share=0.5).labels == soft(toxicity=0.0)


def test_scores_come_back_from_their_file(base: Path, tmp_path: Path) -> None:
    scores = read_scores(base, base / "network.safetensors", ["you fool", "go home"], threads=1)
    scores.save(tmp_path / "soft.npz")
    again = SoftScores.load(tmp_path / "soft.npz")
    first, second = (each.blend(example("go home"), share=0.5).labels for each in (scores, again))
    assert second == pytest.approx(first, abs=1e-3)


def test_a_score_does_not_depend_on_the_other_texts(base: Path) -> None:
    network = tiny_network(base)
    texts = ["you fool", "the bus is late today and nobody knows why", "go"]
    alone = np.concatenate([score_texts(network, base, [text]) for text in texts])
    assert score_texts(network, base, texts) == pytest.approx(alone, abs=2e-2)  # bfloat16 where there is any
    assert alone.shape == (3, len(TRAINED))


def test_the_texts_of_a_training_are_scored_where_their_source_is_noisy(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        soft_scores, "read_scores", lambda _, __, texts, **___: asked.extend(texts) or SoftScores({})
    )
    settings = DetectorSettings(
        base=str(base), out=str(tmp_path), data=str(write_sources(tmp_path)), share=0.005, threads=1
    )
    training_scores(settings, base=tiny_base(tmp_path / "encoder"), network=base / "network.safetensors")
    assert any("women" in text for text in asked)  # the forum's
    assert not any(text.startswith("at the end") for text in asked)
    assert len(asked) == len(set(asked))
