"""Two tenants, one base, one detector: each gets what a guard of its own would give."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace

import pytest

from guardrail import Action, Guard, Outcome, Policy
from guardrail.outcome import Timings
from guardrail.rewriters.edits import ranking
from guardrail.rewriters.onnx import OnnxRewriter
from guardrail.rewriters.sampling import Decoding
from tests.fakes import BagEmbedder, WordDetector

pytest.importorskip("torch")

# A random model writes noise: what it says matters here, not whether it is any good.
LENIENT = Policy(meaning_floor=-1.0, length_ratio=(0.0, 100.0), negation_change=100, batch_wait=20.0)
DECODING = Decoding(temperature=1.5, top_k=300, top_p=1.0, length_ratio=1.0, spare_tokens=150)
TEXTS = [f"You are such an idiot, number {word}." for word in ("one", "two", "three", "four", "five", "six")]


def guard(rewriter: OnnxRewriter) -> Guard:
    detector = WordDetector()
    return Guard(
        policy=LENIENT,
        detector=detector,
        rewriter=rewriter,
        embedder=BagEmbedder(),
        lexicon=detector,
        verifier=None,
    )


def plain(outcome: Outcome) -> Outcome:
    return replace(outcome, timings=Timings())


def test_two_adapters_interleaved_give_what_separate_guards_give(
    tiny_base, make_adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A model of random weights finds all that it writes unlikely.
    monkeypatch.setattr(ranking, "MIN_TOTAL", -math.inf)
    folders = [make_adapter(seed=1), make_adapter(seed=2)]
    alone = []
    for folder in folders:
        own = guard(OnnxRewriter.load(folder, base_folder=tiny_base, decoding=DECODING))
        alone.append([plain(outcome) for outcome in own.check_many(TEXTS)])
    assert Action.REWRITTEN in {outcome.action for outcome in alone[0] + alone[1]}
    assert alone[0] != alone[1], "two adapters that say the same would show nothing"

    first = guard(OnnxRewriter.load(folders[0], base_folder=tiny_base, decoding=DECODING))
    tenants = [first, first.with_adapter(folders[1])]
    in_turns = [[plain(tenant.check(text)) for tenant in tenants] for text in TEXTS]
    assert [list(row) for row in zip(*in_turns, strict=True)] == alone

    async def together() -> list[Outcome]:
        return await asyncio.gather(*(tenant.acheck(text) for text in TEXTS for tenant in tenants))

    found = [plain(outcome) for outcome in asyncio.run(together())]
    assert [found[0::2], found[1::2]] == alone
