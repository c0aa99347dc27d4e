"""The exported files: equal to the network in float, close to it in 8 bits, functions of the text alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from guardrail.outcome import LABELS
from research.detection.batches import load_tokenizer
from research.detection.network import DetectorNetwork
from research.detection.onnx_graph import WEIGHT_MAX, quantise_columns, quantise_rows, smoothing
from research.detection.quantise import (
    ExportSession,
    Row,
    activation_ranges,
    arrays,
    export,
    measure_cost,
)
from research.detection.vocabulary import prune
from tests.training.research.detection.tiny_detector import VOCABULARY, tiny_base, tiny_network

IDS = [[4, 8, 9, 10, 5], [4, 12, 13, 5], [4, *range(7, 27), 5], [4, 11, 5], [4, 20, 21, 9, 8, 7, 5]]
ROWS = [Row(ids, [place % 3 for place in range(len(ids))]) for ids in IDS]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> DetectorNetwork:
    return tiny_network(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def files(network: DetectorNetwork, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, weights = tmp_path_factory.mktemp("onnx"), arrays(network)
    ranges = activation_ranges(network, ROWS)
    static = export(weights, folder / "static.onnx", precision="static", ranges=ranges)
    rows = export(weights, folder / "rows.onnx", precision="rows", ranges=ranges)
    return {
        "float": export(weights, folder / "float.onnx", precision="float"),
        "rows": rows,
        "static": static,
    }


def test_the_float_file_equals_the_network(network: DetectorNetwork, files: dict[str, Path]) -> None:
    for row in ROWS:
        ids = torch.tensor([row.ids])
        with torch.no_grad():
            reading = network(ids, torch.ones_like(ids), torch.tensor([row.cases]))
        answer = ExportSession(files["float"]).run([row])
        np.testing.assert_allclose(answer.logits, reading.logits[:, : len(LABELS)].numpy(), atol=1e-5)
        np.testing.assert_allclose(answer.embedding, reading.embedding.numpy(), atol=1e-5)


def test_token_scores_have_the_shape_of_the_ids_and_equal_the_network(
    network: DetectorNetwork, files: dict[str, Path]
) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(files["float"]), providers=["CPUExecutionProvider"])
    ids, cases = (np.array([part], np.int64) for part in (ROWS[2].ids, ROWS[2].cases))
    given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "case_ids": cases}
    (tokens,) = session.run(["token_logits"], given)
    with torch.no_grad():
        expected = network(*(torch.from_numpy(part) for part in given.values())).token_logits
    np.testing.assert_allclose(tokens, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("precision", ["rows", "static"])
def test_eight_bits_stay_close_to_float(files: dict[str, Path], precision: str) -> None:
    small, large = ExportSession(files[precision]).read(ROWS), ExportSession(files["float"]).read(ROWS)
    assert (small.embedding * large.embedding).sum(1).min() > 0.98
    assert np.abs(small.logits - large.logits).max() < 0.2


@pytest.mark.parametrize("precision", ["float", "rows", "static"])
def test_a_text_alone_in_a_batch_and_padded_gives_the_same_numbers(
    files: dict[str, Path], precision: str
) -> None:
    session = ExportSession(files[precision])
    together = session.run(ROWS)
    for place, row in enumerate(ROWS):
        alone = session.run([row])
        np.testing.assert_allclose(alone.logits[0], together.logits[place], atol=1e-5)
        np.testing.assert_allclose(alone.embedding[0], together.embedding[place], atol=1e-5)


def test_reading_in_buckets_keeps_the_order_of_the_texts(files: dict[str, Path]) -> None:
    session = ExportSession(files["rows"])
    answers = session.read(ROWS, together=2)
    for place, row in enumerate(ROWS):
        np.testing.assert_allclose(answers.logits[place], session.run([row]).logits[0], atol=1e-5)


def test_embeddings_have_unit_length(files: dict[str, Path]) -> None:
    embedding = ExportSession(files["rows"]).read(ROWS).embedding
    np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1.0, atol=1e-5)


def test_no_weight_exceeds_what_sixteen_bit_sums_hold(files: dict[str, Path]) -> None:
    model = onnx.load(str(files["rows"]))
    products = {node.input[1] for node in model.graph.node if node.op_type == "MatMulIntegerToFloat"}
    stored = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    assert len(products) == 8
    assert max(np.abs(stored[name].astype(int)).max() for name in products) == WEIGHT_MAX
    assert 2 * 255 * WEIGHT_MAX < 2**15


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 1000))
@settings(max_examples=40)
def test_quantised_weights_are_within_half_a_step(rows: int, columns: int, seed: int) -> None:
    weight = np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)
    codes, scale = quantise_columns(weight)
    assert np.abs(codes * scale - weight).max() <= scale.max() / 2 + 1e-6
    codes, scale = quantise_rows(weight)
    assert scale.shape == (rows, 1)
    assert scale.dtype == np.float16
    assert np.abs(codes * scale.astype(np.float32) - weight).max() <= 0.52 * float(scale.max()) + 1e-4


def test_smoothing_moves_size_from_an_outlier_channel_to_its_weights_and_changes_no_product() -> None:
    generator = np.random.default_rng(0)
    states, weight = generator.normal(size=(50, 8)), generator.normal(size=(8, 4))
    states[:, 3] *= 40
    factors = smoothing(np.abs(states).max(0), weight)
    np.testing.assert_allclose((states / factors) @ (weight * factors[:, None]), states @ weight, rtol=1e-4)
    before, after = (np.abs(each).max(0) for each in (states, states / factors))
    assert after.max() / after.min() < before.max() / before.min()


def test_a_zero_column_is_quantised_to_zeros() -> None:
    codes, scale = quantise_columns(np.zeros((3, 2), np.float32))
    assert not codes.any()
    assert np.isfinite(scale).all()


def test_the_cost_report_compares_the_two_files(files: dict[str, Path]) -> None:
    cost = measure_cost(files["rows"], files["float"], ROWS, threads=1, repeats=1)
    assert cost.alone_to_batch <= 1e-5
    assert 0.9 < cost.embedding_cosine <= 1.0001
    assert cost.size_ratio > 0
    assert min(cost.alone_ms, cost.alone_ms_float, cost.batch_ms, cost.batch_ms_float) > 0


def test_the_same_weights_give_the_same_bytes(network: DetectorNetwork, tmp_path: Path) -> None:
    first, second = (
        export(arrays(network), tmp_path / name, precision="rows") for name in ("a.onnx", "b.onnx")
    )
    assert first.read_bytes() == second.read_bytes()


def test_pruning_the_vocabulary_changes_no_answer(network: DetectorNetwork, tmp_path: Path) -> None:
    base = tiny_base(tmp_path)
    vocabulary = prune(base / "tokenizer.json")
    assert len(vocabulary.kept) == len(VOCABULARY) - 2
    old, new = (
        load_tokenizer(base),
        load_tokenizer(vocabulary.save(tmp_path / "new" / "tokenizer.json").parent),
    )
    before = export(arrays(network), tmp_path / "before.onnx", precision="rows")
    after = export(vocabulary.apply(arrays(network)), tmp_path / "after.onnx", precision="rows")
    text = "You are a damn fool, [unused0]!"
    answers = [
        ExportSession(f).run([Row(t.encode(text).ids, [0] * len(t.encode(text).ids))])
        for f, t in ((before, old), (after, new))
    ]
    np.testing.assert_array_equal(answers[0].logits, answers[1].logits)
    np.testing.assert_array_equal(answers[0].embedding, answers[1].embedding)
