"""Dense text: which tokens are read, and that prose is read as a whole."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from benchmarks.texts import MAX_RATIO, kinds
from guardrail import Guard, Policy
from guardrail.detectors.density import is_dense, thinned
from guardrail.detectors.onnx import OnnxDetector
from guardrail.detectors.windows import Encoding, encode
from guardrail.outcome import LABELS
from tests.linear import takes_linear_time

LATIN = ("Latin",)
PROSE = "The work took longer than planned, because the engineers found cracks in two of the pillars."
JUNK = [
    "(((((((((((((",
    "8831902774610283",
    "9f3ab07cc1d2e6f7a9b3",
    "你好你好你好你好你好",
    "}],\"'{:[}]",
    "l2.3q-3.9h",
    "%C3%A4%F0%9B",
    "f8 83 a7 02 8d ",
    "\n",
]
INSULT = "idiot"
SIZE = 2400
"""Characters of each kind of text: the linear times say that longer ones are alike."""


@pytest.fixture(scope="module")
def shipped() -> OnnxDetector:
    return OnnxDetector.shipped(threads=1)


@pytest.fixture(scope="module")
def tokenizer(shipped: OnnxDetector) -> Tokenizer:
    return shipped._tokenizer


def words_of(encoding: Encoding, text: str) -> list[str]:
    return [text[start:end] for start, end in zip(encoding.starts, encoding.ends, strict=True)]


@pytest.mark.parametrize(
    "text",
    [
        PROSE,
        "Call 555-0199 on 2021-03-04 before 17:30; it costs 1,234,567.89 dollars (or more)!",
        "Fuck you!!! Is that *your* dog?!",
        "Die Donaudampfschifffahrtsgesellschaft hat heute leider keine weiteren Fahrkarten mehr.",
        "y0u @r3 @n 1d10t",
        "",
    ],
)
def test_language_is_read_as_a_whole(tokenizer: Tokenizer, text: str) -> None:
    encoding = encode(tokenizer, text)
    assert thinned(encoding, text, scripts=LATIN) is encoding


@pytest.mark.parametrize("junk", JUNK[:-1])
def test_the_inside_of_a_run_without_words_is_left_out(tokenizer: Tokenizer, junk: str) -> None:
    text = f"{junk * 10} {INSULT} {junk * 10}"
    encoding = encode(tokenizer, text)
    assert is_dense(encoding, text, scripts=LATIN)
    kept = thinned(encoding, text, scripts=LATIN)
    assert len(kept) <= 10
    assert INSULT in words_of(kept, text)


@given(st.lists(st.sampled_from([*JUNK, INSULT, "you are", "stop", " "]), max_size=30))
def test_no_word_is_ever_left_out(tokenizer: Tokenizer, pieces: list[str]) -> None:
    text = " ".join(pieces)
    kept = words_of(thinned(encode(tokenizer, text), text, scripts=LATIN), text)
    for word in (INSULT, "you", "are", "stop"):
        assert kept.count(word) == text.split().count(word)


def test_a_script_that_the_model_knows_is_no_junk(tokenizer: Tokenizer) -> None:
    text = "你好你好你好你好你好" * 5
    encoding = encode(tokenizer, text)
    assert len(thinned(encoding, text, scripts=LATIN)) < len(encoding)
    assert len(thinned(encoding, text, scripts=("Latin", "Han"))) == len(encoding)


def test_junk_beside_letters_without_capitals_is_left_out(tokenizer: Tokenizer) -> None:
    text = "你好你好你好" + "(" * 300
    encoding = encode(tokenizer, text)
    kept = thinned(encoding, text, scripts=("Latin", "Han"))
    assert len(kept) <= 10
    assert "".join(words_of(kept, text)).startswith("你好你好你好")


SURROUNDINGS = ["(" * 300, "4711" * 80, "qX7zK9pLw2" * 30, "l2.3q-3.9h" * 30, "f8 83 a7 02 " * 20]


@pytest.mark.parametrize("junk", SURROUNDINGS)
@pytest.mark.parametrize("insult", ["you are a stupid worthless idiot", "y0u st00pid w0rthle55 1d10t"])
def test_junk_around_an_insult_does_not_hide_it(shipped: OnnxDetector, junk: str, insult: str) -> None:
    assert shipped.detect([f"{junk} {insult}"])[0].flagged


def test_the_embedding_of_dense_text_is_the_same_after_a_verdict(shipped: OnnxDetector) -> None:
    text = "0f3b" * 90
    fresh = OnnxDetector.shipped(threads=1)
    shipped.detect([text])
    assert shipped.embed([text])[0] == pytest.approx(fresh.embed([text])[0], abs=1e-5)


def test_a_text_that_comes_twice_is_read_once(shipped: OnnxDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted()
    monkeypatch.setattr(shipped, "_session", counted)
    once, other, again = shipped.detect([PROSE, "Something else.", PROSE])
    assert once == again
    assert once.scores == other.scores
    assert counted.rows == 2


class Counted:
    """A session that counts what it is given, and finds nothing in it."""

    def __init__(self) -> None:
        self.tokens = 0
        self.rows = 0

    def run(
        self, names: list[str], inputs: dict[str, npt.NDArray[np.int64]]
    ) -> list[npt.NDArray[np.float32]]:
        rows, time = inputs["input_ids"].shape
        self.rows += rows
        self.tokens += rows * time
        shapes = {"logits": (rows, len(LABELS)), "embedding": (rows, 384), "token_logits": (rows, time)}
        return [np.full(shapes[name], -9.0, dtype=np.float32) for name in names]


@pytest.fixture(scope="module")
def tokens_a_character() -> dict[str, float]:
    """What an encoder reads of each kind of text in a whole check: the greatest part of its cost."""
    detector = OnnxDetector.shipped(threads=1)
    counted = detector._session = Counted()
    guard = Guard(detector=detector, rewriter=None)
    found = {}
    for kind, text in kinds().items():
        counted.tokens = 0
        guard.check(text[:SIZE])
        found[kind] = counted.tokens / min(len(text), SIZE)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", kinds())
def test_no_text_has_more_than_thrice_the_tokens_of_prose(
    tokens_a_character: dict[str, float], kind: str
) -> None:
    assert tokens_a_character[kind] <= MAX_RATIO * tokens_a_character["prose"]


@pytest.mark.parametrize("piece", ["(", "4", "ab1", "你", "a.b.", "http://", '{"a":1},', "\u0301", "a\n"])
def test_reading_takes_linear_time(tokenizer: Tokenizer, piece: str) -> None:
    def reading(size: int) -> partial[Encoding]:
        text = (piece * size)[:size]
        return partial(read_thin, tokenizer, text)

    assert takes_linear_time(reading, size=4_000)


def read_thin(tokenizer: Tokenizer, text: str) -> Encoding:
    return thinned(encode(tokenizer, text), text, scripts=LATIN)


@pytest.mark.parametrize("piece", ["word ", "x7Q", "。你"])
def test_a_check_takes_linear_time(folder: Path, piece: str) -> None:
    """Inline, in this thread, on the lookup model."""
    detector = OnnxDetector(folder, threads=1)
    guard = Guard(policy=Policy(detect_timeout=None), detector=detector, rewriter=None)
    assert takes_linear_time(lambda size: partial(guard.check, (piece * size)[:size]), size=1_000)
