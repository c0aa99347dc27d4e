from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from guardrail.errors import ModelMissingError, UsageError
from guardrail_training.evaluation.similarity import ParaphraseL3, cosines
from guardrail_training.metrics.fluency import Surprise, perplexity, surprise
from guardrail_training.metrics.overlap import corpus_bleu, overlap
from guardrail_training.metrics.statistics import bootstrap_mean, rank_correlation, ranking, wilson_rate


def test_a_bootstrap_of_equal_values_has_no_width() -> None:
    mean = bootstrap_mean([0.25] * 10, seed=0)
    assert (mean.value, mean.low, mean.high, mean.n) == (0.25, 0.25, 0.25, 10)


def test_a_bootstrap_interval_is_near_the_normal_one_for_many_values() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    mean = bootstrap_mean(values, seed=0)
    half = 1.96 * values.std() / math.sqrt(400)
    assert mean.low == pytest.approx(values.mean() - half, abs=0.03)
    assert mean.high == pytest.approx(values.mean() + half, abs=0.03)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    values = np.linspace(0, 1, 30)
    assert bootstrap_mean(values, seed=4) == bootstrap_mean(values, seed=4)
    assert bootstrap_mean(values, seed=4) != bootstrap_mean(values, seed=5)


def test_a_mean_over_nothing_is_an_error() -> None:
    with pytest.raises(UsageError, match="no values"):
        bootstrap_mean([], seed=0)


def test_a_wilson_interval_matches_the_published_example() -> None:
    # Newcombe (1998), Statistics in Medicine 17, table I: 81 of 263 and 0 of 20, score method.
    rate = wilson_rate(81, 263)
    assert (round(rate.low, 4), round(rate.high, 4)) == (0.2553, 0.3662)
    rare = wilson_rate(0, 20)
    assert (round(rare.low, 4), round(rare.high, 4)) == (0.0, 0.1611)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_a_wilson_interval_holds_the_share_and_stays_in_bounds(case: tuple[int, int]) -> None:
    rate = wilson_rate(*case)
    assert 0 <= rate.low <= rate.value + 1e-12
    assert rate.value - 1e-12 <= rate.high <= 1


@pytest.mark.parametrize(("hits", "n"), [(1, 0), (3, 2), (-1, 4)])
def test_an_impossible_rate_is_an_error(hits: int, n: int) -> None:
    with pytest.raises(UsageError, match="a rate needs"):
        wilson_rate(hits, n)


@settings(deadline=None)  # the first example imports scikit-learn
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=40))
def test_ranking_figures_match_slow_counts(rows: list[tuple[bool, int]]) -> None:
    positives = [score for label, score in rows if label]
    negatives = [score for label, score in rows if not label]
    if not positives or not negatives:
        return
    found = ranking([label for label, _ in rows], [float(score) for _, score in rows])
    wins = sum((p > n) + 0.5 * (p == n) for p in positives for n in negatives)
    assert found.auc == pytest.approx(wins / (len(positives) * len(negatives)))
    recalls = [
        sum(p >= cut for p in positives) / len(positives)
        for cut in range(8)
        if sum(n >= cut for n in negatives) / len(negatives) <= 0.05
    ]
    assert found.recall_at_5 == pytest.approx(max(recalls))


def test_decisions_give_f1_recall_and_false_positives() -> None:
    found = ranking([True, True, False, False], [0.9, 0.2, 0.6, 0.1], flagged=[True, False, True, False])
    assert (found.f1, found.recall, found.false_positives) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(("labels", "scores"), [([True], [0.5]), ([True, False], [0.5]), ([], [])])
def test_a_ranking_without_both_sides_is_an_error(labels: list[bool], scores: list[float]) -> None:
    with pytest.raises(UsageError, match="both sides"):
        ranking(labels, scores)


def test_rank_correlation_sees_order_and_not_scale() -> None:
    assert rank_correlation([0.1, 0.2, 0.9], [1.0, 4.0, 5.0]) == pytest.approx(1.0)
    assert rank_correlation([0.1, 0.2, 0.9], [3.0, 2.0, 1.0]) == pytest.approx(-1.0)


def test_a_copy_of_the_reference_overlaps_wholly_and_a_stranger_hardly() -> None:
    reference = "the cats were sleeping on the old mat"
    found = overlap([reference, "quite another thing"], [[reference], [reference]])
    for name in ("bleu", "rouge1", "rouge2", "rougeL", "chrf_first", "chrf_best"):
        same, other = getattr(found, name)
        assert same == pytest.approx(1.0)
        assert other < 0.25


def test_rouge_is_stemmed_and_the_best_reference_is_the_closest_one() -> None:
    found = overlap(["the cat sleeps"], [["the cats sleeping", "the cat sleeps"]])
    assert found.rouge1[0] == pytest.approx(1.0)
    assert found.chrf_first[0] < found.chrf_best[0] == pytest.approx(1.0)


def test_corpus_bleu_takes_sentences_with_differently_many_references() -> None:
    outputs = ["the cat sat on the old mat", "a dog ran over the green hill"]
    references = [["the cat sat on the old mat"], ["no match here at all", outputs[1]]]
    assert corpus_bleu(outputs, references) == pytest.approx(1.0)


class Letters:
    """An encoder whose vectors count letters."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def embed(self, texts: list[str]) -> np.ndarray:
        self.read += texts
        counts = np.array([[text.count(letter) for letter in "abc"] for text in texts], dtype=np.float32)
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def test_cosines_read_every_distinct_text_once() -> None:
    encoder = Letters()
    found = cosines(encoder, ["a", "ab", "a"], ["a", "c", "ab"])
    assert found == pytest.approx([1.0, 0.0, math.sqrt(0.5)])
    assert sorted(encoder.read) == ["a", "ab", "c"]


def write_encoder(folder: Path) -> tuple[Path, Path]:
    """A graph with the outputs of the real one: an unnamed state tensor among others, and its tokenizer."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"[PAD]": 0, "[UNK]": 1, "red": 2, "blue": 3, "green": 4}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(folder / "tokenizer.json"))
    table = np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["states"]),
        helper.make_node("Identity", ["attention_mask"], ["output"]),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "t"])
        for name in ("input_ids", "attention_mask")
    ]
    outputs = [
        helper.make_tensor_value_info("output", TensorProto.INT64, ["b", "t"]),
        helper.make_tensor_value_info("states", TensorProto.FLOAT, ["b", "t", 8]),
    ]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, [numpy_helper.from_array(table, "table")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx", folder / "tokenizer.json"


def test_an_encoder_gives_unit_rows_that_do_not_depend_on_their_batch(tmp_path: Path) -> None:
    model, tokenizer = write_encoder(tmp_path)
    encoder = ParaphraseL3(model, tokenizer=tokenizer)
    texts = ["red", "red blue green red blue", "green blue", "red green"]
    together = encoder.embed(texts)
    alone = np.concatenate([encoder.embed([text]) for text in texts])
    assert together == pytest.approx(alone, abs=1e-6)
    assert np.linalg.norm(together, axis=1) == pytest.approx(np.ones(4), abs=1e-6)
    assert encoder.embed([]).shape[0] == 0


def test_an_encoder_that_is_not_there_is_an_error_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(ModelMissingError, match="guardrail models pull"):
        ParaphraseL3(tmp_path / "model.onnx", tokenizer=tmp_path / "tokenizer.json")


def test_surprise_matches_a_slow_loop_over_one_text_at_a_time(tiny_base: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_base).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    texts = [
        "The cat sat on the mat.",
        "no",
        "",
        "The cat sat on the mat.",
        "said nothing at all, the user said",
    ]
    found = surprise(model, tokenizer, texts)
    for text, nats, count in zip(texts, found.nats, found.tokens, strict=True):
        ids = tokenizer.encode(text, add_special_tokens=False)
        expected, seen = 0.0, [tokenizer.bos_token_id]
        for token in ids:
            with torch.inference_mode():
                logits = model(input_ids=torch.tensor([seen])).logits[0, -1]
            expected -= float(logits.log_softmax(dim=0)[token])
            seen.append(token)
        assert count == len(ids)
        assert nats == pytest.approx(expected, abs=1e-3)


def test_perplexity_of_even_odds_is_the_number_of_choices() -> None:
    assert perplexity(
        Surprise(nats=np.array([2, 3]) * math.log(7), tokens=np.array([2, 3]))
    ) == pytest.approx(7)
    assert math.isinf(perplexity(Surprise(nats=np.zeros(1), tokens=np.zeros(1, dtype=np.int64))))
