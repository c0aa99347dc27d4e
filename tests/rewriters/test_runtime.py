"""The runtime without torch, against the one with it: likelihoods, drafts, slots, forked children."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.errors import UsageError
from guardrail.models.weights import OtherModelError, Weights, read_weights
from guardrail.rewriters.lora import LoraRewriter
from guardrail.rewriters.onnx import OnnxRewriter
from guardrail.rewriters.runtime import graph as graphs
from guardrail.rewriters.runtime import search as searching
from guardrail.rewriters.runtime.draft import draft
from guardrail.rewriters.runtime.graph import write_graph
from guardrail.rewriters.runtime.protobuf import GraphWriter
from guardrail.rewriters.runtime.search import Reader
from guardrail.rewriters.runtime.session import Runtime, _session
from guardrail.rewriters.sampling import Decoding

torch = pytest.importorskip("torch")

DECODING = Decoding(temperature=1.5, top_k=300, top_p=1.0, length_ratio=1.0, spare_tokens=40)
TEXTS = ["You are a person.", "This is a fool", "Shut up", "You are a cat, idiot."]
SEGMENTS = ["You are a fool.", "Shut up", "What a stupid idea this was, and how badly it went!"]


@pytest.fixture
def load(tiny_base: Path, make_adapter: Any) -> Any:
    """Loads an adapter with the runtime of this file; ``seed`` and the rest are those of ``make_adapter``."""

    def load(precision: str = "float32", **made: Any) -> OnnxRewriter:
        return OnnxRewriter.load(
            make_adapter(**made), base_folder=tiny_base, decoding=DECODING, precision=precision, threads=1
        )

    return load


# ---- the graph


@pytest.mark.parametrize("rank", [1, 4, 64])
def test_likelihoods_are_those_of_torch(tiny_base: Path, make_adapter: Any, rank: int) -> None:
    adapter = make_adapter(seed=3, rank=rank)
    found = OnnxRewriter.load(
        adapter, base_folder=tiny_base, decoding=DECODING, precision="float32", threads=1
    ).score("You are a fool.", TEXTS)
    expected = LoraRewriter.load(adapter, base_folder=tiny_base, decoding=DECODING).score(
        "You are a fool.", TEXTS
    )
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-4)


def test_in_8_bits_the_weights_are_rounded_and_nothing_else(tiny_base: Path, make_adapter: Any) -> None:
    """A float32 runtime on weights that are rounded already says the same to a part in ten thousand."""
    weights = read_weights(tiny_base)
    embedding = weights.tensors["model.embed_tokens.weight"]
    tensors = {**weights.tensors, "lm_head.weight": embedding}
    untied = replace(weights.shape, tied=False)
    rounded = {
        name: _rounded(array) if array.ndim == 2 and name != "model.embed_tokens.weight" else array
        for name, array in tensors.items()
    }
    scores = []
    for precision, own in (("int8", tensors), ("float32", rounded)):
        rewriter = OnnxRewriter.load(
            make_adapter(seed=3), base_folder=tiny_base, decoding=DECODING, precision=precision, threads=1
        )
        runtime = Runtime(lambda own=own: Weights(untied, own), positions=512, precision=precision, threads=1)
        rewriter._reader = Reader(runtime, rewriter._reader.factors, rewriter._reader.head)
        scores.append(rewriter.score("You are a fool.", TEXTS))
    for exact, other in zip(*scores, strict=True):
        np.testing.assert_allclose(exact, other, atol=2e-4)


@pytest.mark.parametrize("rows", [1, 5])
def test_digits_are_small_and_spell_the_state_to_half_a_step(tiny_base: Path, rows: int) -> None:
    writer = GraphWriter("digits")
    llama = graphs._Llama(read_weights(tiny_base), precision="int8")
    llama._writer = writer
    writer.input("state", "float32", ["S", 64])
    llama._digit_constants()
    writer.output(llama._digits("state", "state"), "uint8", ["rows", 64])
    state = np.random.default_rng(0).uniform(-graphs.LARGEST, graphs.LARGEST, (rows, 64)).astype(np.float32)
    state[0, :5] = (graphs.LARGEST, -graphs.LARGEST, 0, graphs.LARGEST - 0.25, 8192)
    (found,) = _session(writer.serialized(), {}, threads=1).run(None, {"state": state})
    assert found.max() <= 128, "two products with 127 would not fit into 16 bits"
    digits = found.reshape(3, rows, 64).astype(np.int64) - graphs.ZERO_POINT
    whole = np.tensordot(graphs.PLACES.astype(np.int64), digits, axes=1)
    assert np.abs(whole - state.astype(np.float64)).max() <= 0.5


def _rounded(matrix: np.ndarray) -> np.ndarray:
    steps = np.maximum(np.abs(matrix).max(axis=1, keepdims=True), 1e-30) / 127
    return np.rint(matrix / steps) * steps


def test_the_onnx_package_finds_the_graph_well_formed(tiny_base: Path) -> None:
    onnx = pytest.importorskip("onnx")
    for precision in ("float32", "int8"):
        graph = write_graph(read_weights(tiny_base), precision=precision)
        model = onnx.load_from_string(graph.content)
        assert {i.name for i in model.graph.initializer if i.data_location == 1} == set(graph.arrays)
        assert all(node.op_type and node.output for node in model.graph.node)


def test_heads_that_the_attention_cannot_take_are_refused(tiny_base: Path) -> None:
    weights = read_weights(tiny_base)
    with pytest.raises(OtherModelError, match="multiple of 16"):
        write_graph(replace(weights, shape=replace(weights.shape, head_size=8)), precision="int8")


# ---- candidates


def test_in_float32_candidates_are_those_of_torch(tiny_base: Path, make_adapter: Any) -> None:
    adapter = make_adapter(seed=1)
    mine = OnnxRewriter.load(
        adapter, base_folder=tiny_base, decoding=DECODING, precision="float32", threads=1
    ).rewrite(SEGMENTS, 5)
    theirs = LoraRewriter.load(adapter, base_folder=tiny_base, decoding=DECODING).rewrite(SEGMENTS, 5)
    assert mine == theirs
    assert sum(map(len, mine)) >= 3, "too few candidates for this test to mean anything"


@pytest.mark.parametrize("seed", range(3))
def test_drafts_change_nothing_but_the_number_of_passes(
    load: Any, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rewriter = load(seed=1)
    passes = 0
    read = rewriter._base.runtime.read

    def counted(*arguments: Any, **named: Any) -> Any:
        nonlocal passes
        passes += 1
        return read(*arguments, **named)

    monkeypatch.setattr(rewriter._base.runtime, "read", counted)
    monkeypatch.setattr(searching, "draft", lambda source, written, count: ())
    plain = rewriter.rewrite(SEGMENTS, 4)
    without, passes = passes, 0
    random = np.random.default_rng(seed)

    def guess(source: Sequence[int], written: Sequence[int], count: int) -> list[int]:
        return [int(token) for token in random.integers(0, rewriter._base.runtime.shape.vocabulary, count)]

    monkeypatch.setattr(searching, "draft", guess)
    assert rewriter.rewrite(SEGMENTS, 4) == plain
    assert passes <= without
    monkeypatch.setattr(searching, "draft", draft)
    assert rewriter.rewrite(SEGMENTS, 4) == plain


def test_few_slots_change_nothing(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load(seed=1).rewrite(SEGMENTS, 4)
    monkeypatch.setattr(searching, "MIN_SLOTS", 48)
    assert load(seed=1).rewrite(SEGMENTS, 4) == expected


def test_a_copied_rewrite_is_read_in_fewer_passes_than_it_has_tokens() -> None:
    source = list(range(10, 40))
    written, passes = [], 0
    while len(written) < len(source):
        passes += 1
        guessed = draft(source, written, count=4)
        written = source[: len(written) + len(guessed) + 1]
    assert passes <= math.ceil(len(source) / 5)


@given(st.lists(st.integers(0, 5), max_size=20), st.lists(st.integers(0, 5), max_size=20), st.integers(0, 6))
def test_a_draft_is_a_piece_of_the_source(source: list[int], written: list[int], count: int) -> None:
    found = list(draft(source, written, count=count))
    assert len(found) <= count
    assert any(source[start : start + len(found)] == found for start in range(len(source) + 1))


@pytest.mark.parametrize(
    ("written", "expected"),
    [([], [1, 2, 3]), ([1, 2], [3, 4, 5]), ([1, 9], [3, 4, 5]), ([7, 4, 9], [6, 7, 8]), ([9], [])],
)
def test_a_draft_goes_on_behind_the_last_words_that_are_in_the_source(
    written: list[int], expected: list[int]
) -> None:
    assert list(draft([1, 2, 3, 4, 5, 6, 7, 8], written, count=3)) == expected


# ---- scores


def test_scores_of_many_texts_are_those_of_each_alone(load: Any) -> None:
    rewriter = load(seed=2)
    texts = ["You are a person.", "You are", "Shut up"]
    together = rewriter.score(SEGMENTS[0], texts)
    for text, score in zip(texts, together, strict=True):
        np.testing.assert_allclose(rewriter.score(SEGMENTS[0], [text])[0], score, atol=1e-5)
        assert len(score) == len(rewriter._wording.encode(text)) + 1
        assert (score <= 0).all()
    assert rewriter.score(SEGMENTS[0], []) == []


@pytest.mark.parametrize("segment", ["", "a" * 5000])
def test_a_segment_that_cannot_be_rewritten_cannot_be_scored(load: Any, segment: str) -> None:
    with pytest.raises(UsageError, match="cannot be scored"):
        load(seed=2).score(segment, ["x"])


def test_a_text_beyond_the_models_positions_is_a_usage_error(load: Any) -> None:
    with pytest.raises(UsageError, match="at most"):
        load(seed=2).score("You are a fool.", ["word " * 3000])


# ---- processes


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_rewrites_with_a_session_of_its_own(tiny_base: Path, make_adapter: Any) -> None:
    rewriter = OnnxRewriter.load(make_adapter(seed=1), base_folder=tiny_base, decoding=DECODING, threads=2)
    expected = rewriter.rewrite(SEGMENTS[:1], 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads may run while this one forks
        child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if rewriter.rewrite(SEGMENTS[:1], 3) == expected else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert rewriter.rewrite(SEGMENTS[:1], 3) == expected


def test_torch_and_transformers_are_not_imported(tiny_base: Path, make_adapter: Any) -> None:
    code = (
        "import sys\n"
        "from guardrail.rewriters.onnx import OnnxRewriter\n"
        f"rewriter = OnnxRewriter.load({str(make_adapter(seed=1))!r}, base_folder={str(tiny_base)!r})\n"
        "rewriter.rewrite(['You are a fool.'], 2)\n"
        "found = {'torch', 'transformers', 'peft', 'safetensors', 'onnx', 'gguf'} & set(sys.modules)\n"
        "assert not found, found\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
