"""The shipped adapter on its real base: it loads verified, and rewrites rudeness without swear words."""

from __future__ import annotations

from pathlib import Path

import pytest

import guardrail
from guardrail.rewriters.onnx import OnnxRewriter

pytestmark = pytest.mark.base

ADAPTER = Path(guardrail.__file__).parent / "shipped" / "rewriter"
RUDE = [
    "what the hell is wrong with this damn printer ?",
    "shut up , you stupid idiot , nobody asked you .",
    "The report is late again because this bloody fool of a manager cannot read a calendar.",
]
SWEAR_WORDS = ("hell", "damn", "stupid", "idiot", "bloody", "fool")


@pytest.fixture(scope="module")
def rewriter() -> OnnxRewriter:
    return OnnxRewriter.load(ADAPTER)


def test_every_rude_sentence_gets_a_candidate_without_its_swear_words(rewriter):
    for candidates in rewriter.rewrite(RUDE, 7):
        assert any(not any(word in text.lower() for word in SWEAR_WORDS) for text in candidates)


def test_a_sentence_alone_gets_what_it_gets_in_a_batch(rewriter):
    together = rewriter.rewrite(RUDE, 3)
    assert [rewriter.rewrite([segment], 3)[0] for segment in RUDE] == together


@pytest.mark.parametrize(
    ("segment", "shorter", "is_candidate"),
    [
        ("That damn dog barked all night.", "That dog barked all night.", True),
        ("This is fucking great.", "This is great.", True),
        ("You are a complete idiot. See you at nine.", "You are a complete. See you at nine.", False),
        ("Stop being an asshole.", "Stop being an.", False),
        ("What the fuck is this?", "What the is this?", False),
    ],
)
def test_a_deletion_is_a_candidate_where_the_rest_reads_well(rewriter, segment, shorter, is_candidate):
    assert (shorter in rewriter.rewrite([segment], 2)[0]) is is_candidate


def test_the_adapter_in_the_package_is_small_and_names_its_base_and_template(rewriter):
    assert (ADAPTER / "adapter_model.safetensors").stat().st_size <= 12_000_000
    assert rewriter.manifest.trained_on is not None
    assert rewriter.manifest.template is not None
