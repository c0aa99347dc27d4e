"""Disguised insults are caught by the shipped models, and what only looks disguised is not."""

from __future__ import annotations

import base64
import random
import string
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest

from guardrail.detectors import lexicon, onnx
from guardrail.detectors.lexicon import Lexicon
from guardrail.detectors.normalise import fold
from guardrail.detectors.onnx import OnnxDetector
from tests.detectors.disguises import KINDS

PLAIN = ["you are an idiot", "shut up you moron", "what a stupid bitch", "kill yourself you loser"]
HARMLESS = (Path(__file__).parent / "harmless.txt").read_text(encoding="utf-8").splitlines()


def codes() -> list[str]:
    """Identifiers, keys, hashes, part numbers, paths and letters at random."""
    drawn = random.Random(3)
    signs = string.ascii_uppercase + string.digits
    made: list[str] = []
    for _ in range(40):
        made += [
            f"id {uuid.UUID(int=drawn.getrandbits(128))}",
            f"key {base64.b64encode(drawn.randbytes(24)).decode()}",
            f"hash {drawn.randbytes(20).hex()}",
            f"part {''.join(drawn.choices(signs, k=4))}-{''.join(drawn.choices(signs, k=5))}",
            f"see https://example.com/{''.join(drawn.choices(string.ascii_letters + '-_%1', k=20))}",
            f"word {''.join(drawn.choices(string.ascii_lowercase, k=14))}",
        ]
    return made


@pytest.fixture(scope="module")
def detector() -> OnnxDetector:
    return OnnxDetector.shipped(threads=2)


def flagged(detector: OnnxDetector, texts: Sequence[str]) -> set[str]:
    """The texts that the detector or the word list flags."""
    pairs = zip(detector.detect(texts), Lexicon.shipped().detect(texts), strict=True)
    return {text for text, verdicts in zip(texts, pairs, strict=True) if any(v.flagged for v in verdicts)}


def test_nine_of_ten_disguises_are_caught(detector: OnnxDetector) -> None:
    plain = sorted(flagged(detector, PLAIN))
    disguised = {(kind, hide(text)) for kind, hide in KINDS.items() for text in plain}
    assert len(KINDS) >= 15
    assert len(disguised) >= 60
    caught = flagged(detector, [text for _, text in sorted(disguised)])
    missed = sorted((kind, text) for kind, text in disguised if text not in caught)
    assert len(missed) <= 0.1 * len(disguised), missed


@pytest.mark.slow
def test_harmless_text_is_not_flagged_for_what_it_reads_like(
    detector: OnnxDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = HARMLESS + codes()
    assert len(texts) > 400
    found = flagged(detector, texts)
    monkeypatch.setattr(onnx, "second_reading", lambda text: None)
    monkeypatch.setattr(lexicon, "normalise", fold)
    # Two in four hundred: hashtags whose words the detector flags when they are written apart, too, and an
    # address that spells something.
    assert len(found - flagged(detector, texts)) <= 2


@pytest.mark.parametrize(
    "text", ["stfu", "gtfo", "kys", "foad", "you pos", "kys lol u missed a penalty", "gfy"]
)
def test_abbreviations_are_understood(detector: OnnxDetector, text: str) -> None:
    assert flagged(detector, [text])
