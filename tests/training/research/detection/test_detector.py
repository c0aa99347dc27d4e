"""The detector's trainer: losses against slow loops, masks, padding, resuming, and a whole small run."""

from __future__ import annotations

import json
import math
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from guardrail.detectors.onnx import OnnxDetector
from guardrail.errors import ConfigError
from guardrail.manifest import Manifest
from guardrail.outcome import LABELS
from guardrail_training.checkpoint import save_checkpoint
from research.detection import corpora, optimiser
from research.detection.augment import Marked
from research.detection.batches import DetectionBatch, batches, encode, load_tokenizer, pad
from research.detection.detector import (
    LABEL_WEIGHTS,
    DetectorSettings,
    average,
    detector_loss,
    run,
    train,
    twin_loss,
)
from research.detection.labelled import TRAINED
from research.detection.mixture import DetectionExample, compose, draw_pass, highest
from research.detection.network import NetworkOutput, mean_embedding
from research.detection.optimiser import learning_rate
from research.detection.settings import course
from tests.training.research.detection.tiny_detector import tiny_base, tiny_network

TOXIC = ["you are a damn fool", "nobody likes a fool", "go home fool"]
CLEAN = ["the bus is late today", "i like the sun", "nobody knows why the bus is late"]


def rows_of(numbers: range) -> dict[str, list[dict[str, object]]]:
    """Rows by source; those of other numbers are other texts."""
    return {
        "paradetox": [{"toxic": f"{TOXIC[n % 3]} {n}", "neutral": [f"{CLEAN[n % 3]} {n}"]} for n in numbers],
        "davidson": [
            {
                "text": f"{(TOXIC + CLEAN)[n % 6]} x{n}",
                "hate": 0,
                "offensive": 3 * (n % 6 < 3),
                "neither": 3 * (n % 6 > 2),
            }
            for n in numbers
        ],
        "stormfront": [
            {"text": f"{(TOXIC + CLEAN)[n % 6]} women {n}", "label": "hate" if n % 6 < 3 else "noHate"}
            for n in numbers
        ],
        "toxigen_statements": [
            {
                "text": f"{(TOXIC + CLEAN)[n % 6]} y{n}",
                "group": "g",
                "label": "hate" if n % 6 < 3 else "neutral",
            }
            for n in numbers
        ],
        "toxigen_prompts": [
            {"prompt": f"- {CLEAN[0]} z{n}\n-", "group": "g", "label": "neutral"} for n in numbers
        ],
        "toxic_spans": [
            {
                "text": f"you are a damn fool. {CLEAN[n % 3]} number {n}.",
                "annotators": 3,
                "toxic_votes": 3,
                "type_votes": {"Insult": 3},
                "spans": [[10, 19]],
            }
            for n in numbers
        ],
    }


def write_sources(folder: Path) -> Path:
    """A few rows of every source, with variations so that the held-out slice is not empty."""
    for part, first in (("train", 0), ("dev", 100)):
        for source, rows in rows_of(range(first, first + 60)).items():
            (folder / source).mkdir(exist_ok=True)
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / source / f"{part}.jsonl").write_text(lines, encoding="utf-8")
    (folder / "wikitext2").mkdir()
    text = "\n".join(f"{CLEAN[n % 3]} at the end of the day {n}." for n in range(60))
    for part in ("valid", "test"):
        (folder / "wikitext2" / f"{part}.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture
def small(base: Path, sources: Path, tmp_path: Path) -> DetectorSettings:
    return DetectorSettings(
        base=str(base),
        data=str(sources),
        out=str(tmp_path / "run"),
        share=0.002,
        tokens_per_batch=400,
        max_tokens=60,
        max_steps=6,
        checkpoint_every=3,
        dtype="float32",
        threads=1,
        export=False,
    )


def example(text: str, *, spans: tuple[tuple[int, int], ...] | None = None) -> DetectionExample:
    return DetectionExample(Marked.of(text, spans), corpora.CLEAN, 1.0, "s")


def batch_of(
    labels: torch.Tensor,
    *,
    marks: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
    pair: torch.Tensor | None = None,
) -> DetectionBatch:
    """A batch whose tokens do not matter."""
    rows = len(labels)
    marks = torch.full((rows, 1), 2.0) if marks is None else marks
    ids = torch.zeros(marks.shape, dtype=torch.long)
    return DetectionBatch(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        case_ids=torch.zeros_like(ids),
        labels=labels,
        marks=marks,
        weight=torch.ones(rows) if weight is None else weight,
        pair=torch.zeros(rows, dtype=torch.long) if pair is None else pair,
    )


def test_twins_are_ranked_by_the_labels_in_which_they_differ_and_by_no_other() -> None:
    toxicity, incivility = TRAINED.index("toxicity"), TRAINED.index("incivility")
    labels = torch.full((5, len(TRAINED)), math.nan)
    labels[:, toxicity] = torch.tensor([1.0, 0.0, 0.0, 1.0, math.nan])
    labels[:, incivility] = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0])
    logits = torch.randn(5, len(TRAINED), generator=torch.Generator().manual_seed(1))
    batch = batch_of(labels, pair=torch.tensor([7, 7, 7, 8, 0]))
    wanted = [(toxicity, 0, 1), (toxicity, 0, 2), (incivility, 0, 2), (incivility, 1, 2)]
    slow = [math.log1p(math.exp(float(logits[low, at] - logits[high, at]))) for at, high, low in wanted]
    assert float(twin_loss(logits, batch)) == pytest.approx(sum(slow) / 4, rel=1e-5)
    assert float(twin_loss(logits, batch_of(labels))) == 0.0


def test_the_loss_equals_a_slow_loop_over_known_labels_and_marked_tokens() -> None:
    torch.manual_seed(0)
    labels = torch.full((2, len(TRAINED)), math.nan)
    labels[0, [0, 2, 3, 5]] = torch.tensor([1.0, 0.3, 0.0, 0.0])
    labels[1, [0, 1, 3, 4, 8]] = torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0])
    marks = torch.tensor([[2.0, 1.0, 0.0], [0.0, 2.0, 2.0]])
    batch = batch_of(labels, marks=marks, weight=torch.tensor([1.0, 0.5]))
    unit = torch.nn.functional.normalize(torch.randn(3, 4), dim=-1)
    reading = NetworkOutput(torch.randn(2, len(TRAINED)), unit[:2], torch.randn(2, 3))
    parts = detector_loss(reading, batch, unit[2:], distillation=2.0, token_weight=0.3)

    def entropy(logit: float, share: float) -> float:
        chance = 1 / (1 + math.exp(-logit))
        return -share * math.log(chance) - (1 - share) * math.log(1 - chance)

    slow = 0.0
    for row in range(2):
        for place, label in enumerate(TRAINED):
            if not math.isnan(labels[row, place]):
                part = entropy(float(reading.logits[row, place]), float(labels[row, place]))
                slow += part * LABEL_WEIGHTS[label] * float(batch.weight[row])
    assert float(parts["labels"]) == pytest.approx(slow / 1.5, rel=1e-5)
    marked = [(0, 1), (0, 2), (1, 0)]
    token = sum(entropy(float(reading.token_logits[at]), float(marks[at])) for at in marked) / 3
    assert float(parts["tokens"]) == pytest.approx(token, rel=1e-5)
    assert float(parts["distance"]) == pytest.approx(1 - float(unit[0] @ unit[2]), rel=1e-5)


def test_a_masked_label_gets_no_gradient() -> None:
    labels = torch.full((1, len(TRAINED)), math.nan)
    labels[0, 0] = 1.0
    batch = batch_of(labels)
    logits = torch.zeros(1, len(TRAINED), requires_grad=True)
    embedding = torch.ones(1, 1)
    reading = NetworkOutput(logits, embedding, torch.zeros(1, 1))
    loss = detector_loss(reading, batch, embedding, distillation=1.0, token_weight=1.0)["loss"]
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert logits.grad is not None
    assert logits.grad[0, 0] != 0
    assert not logits.grad[0, 1:].any()


def test_padding_changes_no_output_of_the_network(tmp_path: Path) -> None:
    network = tiny_network(tmp_path)
    ids = torch.tensor([[4, 8, 9, 10, 5]])
    padded = torch.cat([ids, torch.zeros(1, 7, dtype=torch.long)], 1)
    mask = (torch.arange(12)[None] < 5).long()
    with torch.no_grad():
        alone = network(ids, torch.ones_like(ids), torch.ones_like(ids))
        filled = network(padded, mask, torch.ones_like(padded))
    torch.testing.assert_close(alone.logits, filled.logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(alone.embedding, filled.embedding, atol=1e-5, rtol=0)
    torch.testing.assert_close(alone.token_logits, filled.token_logits[:, :5], atol=1e-5, rtol=0)


def test_the_mean_embedding_is_over_real_tokens_and_of_unit_length() -> None:
    states = torch.tensor([[[3.0, 0.0], [0.0, 4.0], [9.0, 9.0]]])
    mean = mean_embedding(states, torch.tensor([[1, 1, 0]]))
    torch.testing.assert_close(mean, torch.tensor([[0.6, 0.8]]))


def test_token_marks_follow_the_characters_and_special_tokens_are_unknown(base: Path) -> None:
    (row,) = encode([example("you damn fool", spans=((4, 8),))], load_tokenizer(base), max_tokens=20)
    assert row.marks == [2, 0, 1, 0, 2]


def test_a_text_over_the_limit_keeps_its_end_mark(base: Path) -> None:
    (row,) = encode([example("you are a fool " * 9)], load_tokenizer(base), max_tokens=10)
    assert (len(row.ids), len(row.marks)) == (10, 10)
    assert row.ids[-1] == load_tokenizer(base).token_to_id("[SEP]")


def test_the_letter_case_of_a_word_reaches_all_its_tokens(base: Path) -> None:
    (row,) = encode([example("Home you DAMN x7")], load_tokenizer(base), max_tokens=20)
    assert row.cases == [0, 1, 0, 2, 0, 0, 0]


def test_texts_of_a_pair_are_in_one_batch(base: Path) -> None:
    drawn = [replace(example("you are " * (1 + n % 7)), pair=1 + n % 20) for n in range(60)]
    rows = encode(drawn, load_tokenizer(base), max_tokens=60)
    for group in batches(rows, tokens=64, seed=3):
        for place in group:
            assert {n for n in range(60) if rows[n].pair == rows[place].pair} <= set(group)


def test_every_row_is_in_one_batch_and_no_batch_exceeds_its_tokens(base: Path) -> None:
    rows = encode(
        [example("you are " * (1 + n % 9)) for n in range(100)], load_tokenizer(base), max_tokens=60
    )
    groups = batches(rows, tokens=64, seed=1)
    assert sorted(place for group in groups for place in group) == list(range(100))
    for group in groups:
        assert pad([rows[place] for place in group]).input_ids.numel() <= 64
    assert groups == batches(rows, tokens=64, seed=1)
    assert groups != batches(rows, tokens=64, seed=2)


def test_the_learning_rate_rises_then_falls_and_never_ends_at_zero() -> None:
    rates = [learning_rate(step, total=100, warmup=0.1) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert max(rates) == pytest.approx(1.0)
    assert min(rates) > 0


def test_the_labels_of_joined_sentences_are_the_highest_where_that_is_known() -> None:
    toxic, masked = corpora.soft(toxicity=1), corpora.soft(toxicity=0.2)
    assert highest([corpora.CLEAN, toxic]) == toxic
    assert highest([corpora.CLEAN, corpora.CLEAN]) == corpora.CLEAN
    assert highest([masked, corpora.soft(threat=0.8)]) == corpora.soft(threat=0.8)


def test_a_composed_text_is_toxic_exactly_if_a_part_is(sources: Path) -> None:
    texts = corpora.load(sources, part="train")
    pools: dict[str, list[corpora.Labelled]] = {}
    for text in texts:
        pools.setdefault(text.source, []).append(text)
    rng = random.Random(0)
    for _ in range(100):
        composed = compose(pools, rng)
        if composed.labels == corpora.CLEAN:
            assert set(composed.text.marks) <= {0}


def test_a_pass_is_the_same_for_the_same_seed_and_can_do_without_templates(sources: Path) -> None:
    texts = corpora.load(sources, part="train")
    first = draw_pass(texts, None, seed=1, share=0.002)
    assert first == draw_pass(texts, None, seed=1, share=0.002)
    assert first != draw_pass(texts, None, seed=2, share=0.002)
    assert not any(each.source.startswith("template") for each in first)


def test_a_run_interrupted_and_continued_equals_one_in_a_piece(
    small: DetectorSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    halves = tmp_path / "halves"
    halves.mkdir()

    def keep_the_first(folder: Path, *, step: int, **rest: Any) -> None:
        path = save_checkpoint(folder, step=step, **rest)
        if step == 3:
            shutil.copy(path, halves / path.name)

    monkeypatch.setattr(optimiser, "save_checkpoint", keep_the_first)
    whole = train(small)
    continued = train(replace(small, out=str(halves)))
    assert json.loads((halves / "metrics.jsonl").read_text().splitlines()[0])["step"] == 4
    for name, parameter in continued.named_parameters():
        torch.testing.assert_close(parameter, dict(whole.named_parameters())[name], rtol=0, atol=0)


def test_the_result_is_the_average_of_the_last_phase_and_what_it_began_with(tmp_path: Path) -> None:
    network = tiny_network(tmp_path)
    own = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    average(network, {name: parameter + 1 for name, parameter in own.items()}, share=0.75)
    for name, parameter in network.named_parameters():
        torch.testing.assert_close(parameter.detach(), own[name] + 0.25)


def test_a_run_through_both_phases_keeps_the_weights_between_them(small: DetectorSettings) -> None:
    network = train(replace(small, share=0.0002, max_steps=0))
    between = torch.load(Path(small.out) / "main.pt", weights_only=True)
    final = torch.load(Path(small.out) / "checkpoint.pt", weights_only=True)["weights"]
    for name, parameter in network.named_parameters():
        expected = small.averaged * final[name] + (1 - small.averaged) * between[name]
        torch.testing.assert_close(parameter, expected)


def test_a_checkpoint_of_other_settings_is_refused(small: DetectorSettings) -> None:
    train(small)
    with pytest.raises(ConfigError, match="other settings"):
        train(replace(small, lr=1e-5))


def test_training_moves_every_part_of_the_network(small: DetectorSettings, base: Path) -> None:
    torch.manual_seed(small.seed)
    from research.detection.network import DetectorNetwork

    before = {name: p.detach().clone() for name, p in DetectorNetwork.from_base(base).named_parameters()}
    after = dict(train(small).named_parameters())
    for part in ("encoder.encoder.layer.0", "case.", "attention.", "hidden.", "labels.", "tokens."):
        assert any(name.startswith(part) and not torch.equal(before[name], after[name]) for name in before)


def test_a_run_ends_with_a_folder_that_the_detector_loads(small: DetectorSettings) -> None:
    folder = run(replace(small, export=True))
    manifest = Manifest.load(folder)
    assert manifest.labels == LABELS
    assert set(manifest.files) == {"model.onnx", "tokenizer.json", "lexicon.txt"}
    assert manifest.trained_on is not None
    assert {entry["name"] for entry in manifest.data} >= {
        "paradetox",
        "davidson",
        "stormfront",
        "toxic_spans",
    }
    assert "paradetox_cannot_rewrite" not in json.dumps(dict(manifest.metrics))
    assert set(manifest.metrics) == {"eight_bit", "dev", "flagged"}
    loaded = OnnxDetector(folder)
    verdict = loaded.detect(["you are a damn fool"])[0]
    assert set(verdict.scores) == set(LABELS)
    assert np.linalg.norm(loaded.embed(["the bus is late"])[0]) == pytest.approx(1, abs=1e-4)
    metrics = [json.loads(line) for line in (Path(small.out) / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in metrics] == [1, 2, 3, 4, 5, 6]
    assert json.loads((Path(small.out) / "run.json").read_text())["settings"]["seed"] == small.seed


def test_a_run_goes_on_from_the_network_that_another_run_left(
    small: DetectorSettings, tmp_path: Path
) -> None:
    run(small)
    left = Path(small.out) / "network.safetensors"
    still = {"lr": 1e-9, "head_lr": 1e-9, "last_lr": 1e-9}
    again = train(replace(small, out=str(tmp_path / "again"), start=str(left), **still))
    expected = load_file(left)
    for name, weight in again.state_dict().items():
        torch.testing.assert_close(weight, expected[name], atol=1e-5, rtol=0)


def test_what_a_run_learns_depends_on_the_content_of_its_start_and_on_no_path(
    small: DetectorSettings, tmp_path: Path
) -> None:
    for folder, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "network.safetensors").write_bytes(content)
    first, second, third = (
        course(replace(small, start=str(tmp_path / folder / "network.safetensors"), out=folder))
        for folder in "abc"
    )
    assert first == second != third
    assert str(tmp_path) not in json.dumps(first)


def test_a_finished_run_is_blended_with_an_earlier_network_without_training_again(
    small: DetectorSettings, tmp_path: Path
) -> None:
    run(small)
    left = load_file(Path(small.out) / "network.safetensors")
    earlier = {name: torch.full_like(weight, 3.0) for name, weight in left.items()}
    save_file(earlier, tmp_path / "earlier.safetensors")
    steps = (Path(small.out) / "metrics.jsonl").read_text(encoding="utf-8")
    blended = train(replace(small, blend=str(tmp_path / "earlier.safetensors"), blended=0.25))
    for name, weight in blended.state_dict().items():
        torch.testing.assert_close(weight, 0.75 * left[name] + 0.25 * earlier[name])
    assert (Path(small.out) / "metrics.jsonl").read_text(encoding="utf-8") == steps
