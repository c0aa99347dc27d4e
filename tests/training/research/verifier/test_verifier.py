"""The verifier's training: what it learns from, its loss, and a whole small run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file, save_model

from guardrail.errors import ConfigError, UsageError
from guardrail.manifest import Manifest
from guardrail.rewriters.pairs import KINDS
from guardrail.rewriters.verifier import OnnxVerifier
from guardrail_training.records import TrainingRowError
from research.detection.batches import load_tokenizer
from research.detection.quantise import Row as Tokens
from research.detection.quantise import activation_ranges, arrays, export
from research.verifier import examples as gathering
from research.verifier.batches import UNKNOWN, Row, encode, pad
from research.verifier.examples import FAULTS, Example, Examples, gather, is_held_out, read_ratings
from research.verifier.figures import choose_threshold, crossed_precision, measure
from research.verifier.negatives import KINDS as MADE
from research.verifier.network import VerifierNetwork
from research.verifier.onnx_graph import build
from research.verifier.release import release
from research.verifier.settings import VerifierSettings
from research.verifier.verifier import run, train, verifier_loss
from tests.training.research.detection.tiny_detector import tiny_base, tiny_network

NOUNS = ("bus", "sun", "home", "dog", "door", "road", "song", "game", "fire", "hill")
HOSTILE = "the {noun} is late today you damn fool number {number}"
GOOD = "the {noun} is late today number {number}"


def pairs(count: int) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for number in range(count):
        names = {"noun": NOUNS[number % len(NOUNS)], "number": number}
        rows.append(
            {
                "register": "daily",
                "kind": "insult",
                "toxic": HOSTILE.format(**names),
                "neutral": [GOOD.format(**names), f"today {GOOD.format(**names)}"],
                "lossy": number % 10 == 9,
                "lookalike": f"i like the {names['noun']} today {number}",
            }
        )
    return rows


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, ratings and a base."""
    root = tmp_path_factory.mktemp("verifier")
    write(root / "data" / "everyday" / "train.jsonl", pairs(60))
    write(
        root / "data" / "paradetox" / "train.jsonl",
        [
            {
                "toxic": f"nobody likes the damn {NOUNS[n % 10]} number {n}",
                "neutral": [
                    f"nobody likes the {NOUNS[n % 10]} number {n}",
                    f"nobody likes the bad thing number {n}",
                ],
            }
            for n in range(60)
        ],
    )
    rated: list[dict[str, object]] = [
        {
            "source": HOSTILE.format(noun=NOUNS[n % 10], number=n),
            "candidate": GOOD.format(noun=NOUNS[n % 10], number=n) if n % 2 else f"you fool number {n}",
            "rating": "accept" if n % 2 else "hostile",
        }
        for n in range(60)
    ]
    write(root / "ratings.jsonl", rated)
    tiny_base(root / "base")
    return root


@pytest.fixture(scope="module")
def settings(folder: Path) -> VerifierSettings:
    return VerifierSettings(
        base=str(folder / "base"),
        out=str(folder / "out"),
        data=str(folder / "data"),
        ratings=(str(folder / "ratings.jsonl"),),
        held_out=0.4,
        tokens_per_batch=512,
        dtype="float32",
    )


@pytest.fixture(scope="module")
def examples(settings: VerifierSettings) -> Examples:
    return gather(settings)


@pytest.fixture(scope="module")
def network(folder: Path) -> VerifierNetwork:
    torch.manual_seed(5)
    network = VerifierNetwork.from_base(folder / "base").eval()
    torch.nn.init.normal_(network.kind.weight, std=0.1)
    return network


def test_no_source_is_both_learned_from_and_measured_on(examples: Examples) -> None:
    parts = [{example.source.casefold() for example in part} for part in (examples.train, examples.held_out)]
    assert all(parts)
    assert not parts[0] & parts[1]


def test_a_source_in_other_letters_marks_or_spelling_is_the_same_source() -> None:
    sources = [f"The colour of number {n} is wrong, you fool!" for n in range(40)]
    others = [f"the color of number {n} is wrong you fool" for n in range(40)]
    held_out = [is_held_out(source, share=0.5) for source in sources]
    assert held_out == [is_held_out(source, share=0.5) for source in others]
    assert len(set(held_out)) == 2


def test_references_are_acceptable_and_what_is_made_of_them_is_not(examples: Examples) -> None:
    every = [*examples.train, *examples.held_out]
    assert {example.acceptable for example in every if example.origin == "reference"} == {True}
    made = [example for example in every if example.origin.startswith("made:")]
    assert len({example.origin for example in made}) > 4
    assert not any(example.acceptable for example in made)


def test_a_reference_that_a_rule_refuses_is_not_acceptable(examples: Examples) -> None:
    every = [*examples.train, *examples.held_out]
    refused = [example for example in every if example.origin == "refused:stand-in"]
    assert refused
    assert all("bad thing" in example.candidate and not example.acceptable for example in refused)


def test_what_nothing_civil_can_carry_is_left_out(examples: Examples) -> None:
    lossy = {str(row["toxic"]) for row in pairs(60) if row["lossy"]}
    unrated = [e for e in (*examples.train, *examples.held_out) if not e.is_rated]
    assert not lossy & {example.source for example in unrated}


def test_every_kind_of_made_fault_has_a_readers_word() -> None:
    assert set(gathering.OF_KIND) == set(MADE)
    assert set(gathering.OF_KIND.values()) | set(gathering.OF_RULE.values()) <= {*FAULTS, None}


def test_rare_kinds_of_made_faults_count_more(examples: Examples) -> None:
    made = [e for e in (*examples.train, *examples.held_out) if e.origin.startswith("made:")]
    counts = {origin: sum(e.origin == origin for e in made) for origin in {e.origin for e in made}}
    weights = {e.origin: e.weight for e in made}
    assert weights[min(counts, key=counts.__getitem__)] > weights[max(counts, key=counts.__getitem__)]


def test_an_accepted_output_has_no_fault_and_a_refused_one_that_which_was_named(tmp_path: Path) -> None:
    ratings = ("accept", "turned", "other")
    path = write(tmp_path / "r.jsonl", [{"source": "s", "candidate": "c", "rating": r} for r in ratings])
    accepted, turned, other = read_ratings([str(path)], weight=3.0)
    assert (accepted.acceptable, accepted.faults, accepted.weight) == (True, (0, 0, 0, 0, 0), 3.0)
    assert (turned.acceptable, turned.faults) == (False, (None, 1, None, None, None))
    assert (other.acceptable, other.faults) == (False, (None,) * 5)


def test_an_unknown_rating_is_an_error_with_its_row(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", [{"source": "s", "candidate": "c", "rating": "fine"}])
    with pytest.raises(TrainingRowError, match="row 1: rating must be one of accept"):
        read_ratings([str(path)])


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="held_out"):
        VerifierSettings(base="b", out="o", held_out=1.5)


def test_the_loss_equals_a_slow_loop() -> None:
    rows = [
        Row([1, 2], [0, 0], (1.0, 0.0, 0.0, 0.0, 0.0, 0.0), 1.0),
        Row([1], [0], (0.0, UNKNOWN, 1.0, UNKNOWN, UNKNOWN, UNKNOWN), 3.0),
    ]
    batch = pad(rows)
    logits = torch.tensor([[0.3, -1.0, 0.2, 0.0, 2.0, -0.5], [1.1, 0.4, -0.7, 0.3, 0.1, 0.9]])
    sums = {"acceptable": 0.0, "faults": 0.0}
    for row, line in zip(rows, logits.tolist(), strict=True):
        for place, (target, logit) in enumerate(zip(row.targets, line, strict=True)):
            if target != UNKNOWN:
                share = 1 / (1 + np.exp(-logit))
                entropy = -np.log(share if target else 1 - share)
                sums["faults" if place else "acceptable"] += row.weight * entropy / 4.0
    parts = verifier_loss(logits, batch, fault_weight=0.3)
    assert float(parts["acceptable"]) == pytest.approx(sums["acceptable"], rel=1e-5)
    assert float(parts["faults"]) == pytest.approx(sums["faults"], rel=1e-5)
    assert float(parts["loss"]) == pytest.approx(sums["acceptable"] + 0.3 * sums["faults"], rel=1e-5)


def test_pairs_that_are_too_long_are_left_out_of_training(folder: Path) -> None:
    example = Example("you " * 30, "bus " * 30, True, (0,) * 5, "reference")
    tokenizer = load_tokenizer(folder / "base")
    assert encode([example], tokenizer, max_tokens=62) == []
    assert len(encode([example], tokenizer, max_tokens=63)) == 1


def test_padding_changes_nothing(network: VerifierNetwork) -> None:
    rows = [Row([4, 8, 5, 9, 5], [0, 1, 0, 10, 0], (1.0,) * 6, 1.0), Row([4] * 12, [3] * 12, (0.0,) * 6, 1.0)]
    together, alone = pad(rows), pad(rows[:1])
    with torch.no_grad():
        both = network(together.input_ids, together.attention_mask, together.kind_ids)
        one = network(alone.input_ids, alone.attention_mask, alone.kind_ids)
    torch.testing.assert_close(both[:1], one, atol=1e-5, rtol=0)


def test_a_candidates_tokens_start_with_the_encoders_second_type(folder: Path) -> None:
    network = VerifierNetwork.from_base(folder / "base")
    types = network.encoder.embeddings.token_type_embeddings.weight
    torch.testing.assert_close(network.kind.weight[KINDS // 2], types[1] - types[0])
    assert not network.kind.weight[: KINDS // 2].any()


def test_it_goes_on_from_a_detectors_encoder(folder: Path, tmp_path: Path) -> None:
    detector = tiny_network(tmp_path / "detector")
    with torch.no_grad():
        detector.encoder.encoder.layer[0].output.dense.weight.add_(0.5)
    state = {name: part.contiguous().clone() for name, part in detector.state_dict().items()}
    save_file(state, tmp_path / "network.safetensors")
    network = VerifierNetwork.from_base(folder / "base", start=str(tmp_path / "network.safetensors"))
    for name, part in network.encoder.state_dict().items():
        torch.testing.assert_close(part, state[f"encoder.{name}"])
    torch.testing.assert_close(network.kind.weight[3:6], detector.case.weight)


def test_it_goes_on_from_an_earlier_verifier(network: VerifierNetwork, folder: Path, tmp_path: Path) -> None:
    save_model(network, str(tmp_path / "network.safetensors"))
    other = VerifierNetwork.from_base(folder / "base", start=str(tmp_path / "network.safetensors"))
    for name, part in network.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], part)


def test_the_float_file_equals_the_network(network: VerifierNetwork, tmp_path: Path) -> None:
    import onnxruntime

    path = export(arrays(network), tmp_path / "float.onnx", precision="float", build=build)
    batch = pad([Row([4, 8, 5, 9, 5], [0, 1, 0, 10, 0], (1.0,) * 6, 1.0)])
    given = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        "kind_ids": batch.kind_ids,
    }
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {name: part.numpy() for name, part in given.items()})
    with torch.no_grad():
        expected = network(*given.values())[:, :1]
    np.testing.assert_allclose(logits, expected.numpy(), atol=1e-5)


def test_eight_bits_stay_close_to_float(network: VerifierNetwork, tmp_path: Path) -> None:
    import onnxruntime

    tokens = [Tokens([4, *range(7, 7 + n), 5, 9, 5], [0, *range(n), 0, 10, 0]) for n in range(2, 12)]
    ranges = activation_ranges(network, tokens)
    small = export(arrays(network), tmp_path / "rows.onnx", precision="rows", ranges=ranges, build=build)
    session = onnxruntime.InferenceSession(str(small), providers=["CPUExecutionProvider"])
    for row in tokens:
        ids, kinds = (np.array([part], np.int64) for part in (row.ids, row.cases))
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "kind_ids": kinds}
        (logits,) = session.run(["logits"], given)
        with torch.no_grad():
            expected = network(*(torch.from_numpy(part) for part in given.values()))[:, :1]
        np.testing.assert_allclose(logits, expected.numpy(), atol=0.1)


def test_the_threshold_is_the_lowest_at_which_what_is_taken_is_acceptable() -> None:
    probabilities = np.concatenate([np.full(30, 0.9), np.full(10, 0.5), np.full(60, 0.1)])
    acceptable = np.array([True] * 30 + [False] * 10 + [False] * 60)
    assert choose_threshold(acceptable, probabilities, precision=0.95) == pytest.approx(0.51)
    assert choose_threshold(acceptable, probabilities, precision=0.7) == pytest.approx(0.11)
    assert choose_threshold(~acceptable, probabilities, precision=0.95) is None


def rated(probabilities: np.ndarray, acceptable: np.ndarray) -> list[Example]:
    return [
        Example(f"s{place}", "c", bool(good), (None,) * 5, "rated:accept" if good else "rated:form")
        for place, good in enumerate(acceptable)
    ]


def test_figures_are_those_at_the_threshold() -> None:
    probabilities = np.array([0.9, 0.8, 0.4, 0.7, 0.2])
    some = rated(probabilities, np.array([1, 1, 1, 0, 0]))
    figures = measure(some, probabilities, threshold=0.5, seed=0)
    assert (figures.acceptable, figures.candidates) == (3, 5)
    assert figures.precision is not None
    assert figures.precision.value == pytest.approx(2 / 3)
    assert figures.recall.value == pytest.approx(2 / 3)
    assert figures.refused["rated:form"].value == pytest.approx(0.5)
    assert figures.auc.value == pytest.approx(5 / 6)


def test_precision_is_also_told_of_thresholds_chosen_on_other_sources() -> None:
    probabilities = np.concatenate([np.full(100, 0.9), np.full(100, 0.1)])
    some = rated(probabilities, np.array([1] * 100 + [0] * 100))
    crossed = crossed_precision(some, probabilities, precision=0.95)
    assert crossed is not None
    assert (crossed.value, crossed.n) == (1.0, 100)
    assert crossed_precision(some, 1 - probabilities, precision=0.95) is None


def test_a_run_leaves_a_verifier_with_its_figures_and_continues(
    settings: VerifierSettings, examples: Examples
) -> None:
    part = replace(settings, max_steps=2)
    train(part, examples)
    network = train(part, examples)  # nothing is left to do
    folder = release(network, part, examples)
    manifest = Manifest.load(folder)
    assert (manifest.kind, manifest.labels) == ("verifier", ("acceptable",))
    assert manifest.metrics["made_and_references"]["auc"]["n"] > 0
    assert manifest.metrics["rated"]["candidates"] == sum(e.is_rated for e in examples.held_out)
    assert manifest.metrics["eight_bit"]["alone_to_batch"] < 1e-4
    source = "the bus is late today you damn fool"
    assert 0 <= OnnxVerifier(folder).verify([source], ["the bus is late today"])[0] <= 1


def test_a_run_under_other_settings_does_not_continue_this_one(
    settings: VerifierSettings, examples: Examples, tmp_path: Path
) -> None:
    short = replace(settings, out=str(tmp_path), max_steps=1)
    train(short, examples)
    with pytest.raises(ConfigError, match="other settings"):
        train(replace(short, lr=1e-3), examples)


def test_it_learns_to_tell_references_from_faults(settings: VerifierSettings, tmp_path: Path) -> None:
    folder = run(replace(settings, out=str(tmp_path / "out"), passes=6, lr=2e-3))
    assert Manifest.load(folder).metrics["made_and_references"]["auc"]["value"] > 0.7


def test_held_out_candidates_of_one_kind_only_are_an_error(
    settings: VerifierSettings, examples: Examples, network: VerifierNetwork
) -> None:
    good = tuple(example for example in examples.held_out if example.acceptable)
    with pytest.raises(UsageError, match="held_out"):
        release(network, settings, Examples(examples.train, good))
