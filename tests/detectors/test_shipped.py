"""The detector and the lexicon inside the package, as they ship."""

from __future__ import annotations

import random

import numpy as np
import pytest

from guardrail.detectors.lexicon import Lexicon
from guardrail.detectors.onnx import OnnxDetector
from guardrail.outcome import LABELS

TOXIC = [
    "you are a stupid worthless idiot and everybody hates you",
    "shut the fuck up, you pathetic piece of shit",
    "I will find you and break every bone in your body",
]
MISSED = "those people are vermin and should be driven out of our country"
CLEAN = [
    "Thank you for your help, the parcel arrived this morning.",
    "The process has to be killed before the port is free again.",
    "Our gay neighbours invited the whole street to their wedding.",
    "The patient was referred for a breast examination.",
    "Water boils at 100 degrees Celsius at sea level.",
]
OBFUSCATED = ["you are a stupid 1d10t", "you st\u200bup\u200bid ѕһіt", "shut the f u c k up you idiiiiot"]


@pytest.fixture(scope="module")
def detector() -> OnnxDetector:
    return OnnxDetector.shipped(threads=2)


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon.shipped()


def test_the_shipped_detector_knows_every_label(detector: OnnxDetector) -> None:
    assert detector.manifest.labels == LABELS


@pytest.mark.parametrize("text", TOXIC + OBFUSCATED)
def test_toxic_text_is_flagged(detector: OnnxDetector, text: str) -> None:
    assert detector.detect([text])[0].flagged


def test_hostility_without_swear_words_is_flagged(detector: OnnxDetector) -> None:
    assert detector.detect([MISSED])[0].flagged


@pytest.mark.parametrize("text", CLEAN)
def test_clean_text_is_not(detector: OnnxDetector, lexicon: Lexicon, text: str) -> None:
    assert not detector.detect([text])[0].flagged
    assert not lexicon.detect([text])[0].flagged


def test_spans_point_at_the_insulting_word(detector: OnnxDetector) -> None:
    text = "the weather is nice but you are an idiot"
    spans = detector.detect([text])[0].spans
    assert any(text[span.start : span.end].endswith("idiot") for span in spans)


def test_scores_do_not_depend_on_the_batch_or_its_padding(detector: OnnxDetector) -> None:
    draw = random.Random(0)
    texts = [" ".join(draw.sample(TOXIC + CLEAN + OBFUSCATED, draw.randint(1, 11))) for _ in range(40)]
    together = detector.detect(texts)
    for text, verdict in zip(texts, together, strict=True):
        assert dict(verdict.scores) == pytest.approx(dict(detector.detect([text])[0].scores), abs=1e-4)


def test_one_toxic_sentence_is_found_anywhere_in_a_long_text(detector: OnnxDetector) -> None:
    filler = " ".join(CLEAN) + " "
    for before in (0, 5, 10):
        text = filler * before + TOXIC[1] + ". " + filler * (10 - before)
        assert detector.detect([text])[0].score > detector.detect([filler * 10])[0].score


def test_embeddings_place_like_with_like(detector: OnnxDetector) -> None:
    rows = detector.embed(
        ["The cat sleeps on the sofa.", "A cat is sleeping on the couch.", "Taxes rise in spring."]
    )
    assert rows.shape == (3, 384)
    assert np.linalg.norm(rows, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    assert rows[0] @ rows[1] > rows[0] @ rows[2] + 0.3


def test_the_shipped_lexicon_sees_through_obfuscation(lexicon: Lexicon) -> None:
    for text in ("you fucking idiot", "you f u c k i n g idiot", "you fuck1ng 1d10t", "you f**king idiot"):
        assert lexicon.detect([text])[0].flagged
