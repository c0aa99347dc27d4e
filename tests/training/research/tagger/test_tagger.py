"""The tagger's training: what it learns from, its loss, and a whole small run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from guardrail.errors import ConfigError
from guardrail.manifest import Manifest
from guardrail.rewriters.edits.tagger import TaggedEdit, Tagger, tokens_of_words
from guardrail.rewriters.edits.tags import KEEP, UNKNOWN, UNKNOWN_APPEND
from research.detection.batches import load_tokenizer
from research.detection.quantise import Row as Tokens
from research.detection.quantise import activation_ranges, arrays, export
from research.pairs.mixture import PairRow
from research.tagger.acceptance import acceptance_table
from research.tagger.batches import UNTAGGED, TaggedRow, encode, pad
from research.tagger.examples import (
    Alignment,
    TaggedExample,
    TaggedExamples,
    aligned,
    gather,
    phrase_labels,
    tags_of,
)
from research.tagger.figures import measure
from research.tagger.network import TaggerNetwork, build
from research.tagger.settings import TaggerSettings
from research.tagger.tagger import run, tagger_loss, train
from tests.training.research.detection.tiny_detector import tiny_base, tiny_network

NOUNS = ("bus", "sun", "home", "dog", "door", "road", "song", "game", "fire", "hill")


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data and a base."""
    root = tmp_path_factory.mktemp("tagger")
    rows: list[dict[str, object]] = [
        {
            "toxic": f"the damn {NOUNS[n % 10]} is late today you fool number {n}",
            "neutral": [f"the {NOUNS[n % 10]} is late today number {n}"] * 2,
            "lossy": n % 10 == 9,
            "lookalike": f"i like the {NOUNS[n % 10]} today {n}",
        }
        for n in range(80)
    ]
    write(root / "data" / "everyday" / "train.jsonl", rows)
    write(
        root / "data" / "paradetox" / "train.jsonl",
        [
            {
                "toxic": f"nobody likes the damn {NOUNS[n % 10]} number {n}",
                "neutral": [f"nobody likes the {NOUNS[n % 10]} number {n}"],
            }
            for n in range(40)
        ],
    )
    tiny_base(root / "base")
    return root


@pytest.fixture(scope="module")
def settings(folder: Path) -> TaggerSettings:
    return TaggerSettings(
        base=str(folder / "base"),
        out=str(folder / "out"),
        data=str(folder / "data"),
        held_out=0.2,
        passes=1,
        tokens_per_batch=512,
        dtype="float32",
    )


@pytest.fixture(scope="module")
def examples(settings: TaggerSettings) -> TaggedExamples:
    return gather(settings)


def row(source: str, *references: str) -> PairRow:
    return PairRow(source, references, "own")


def test_an_alignment_names_the_words_that_differ_whatever_their_letter_case() -> None:
    assert aligned("You damn fool, stop!", "you, please stop") == [
        Alignment(1, 3, ()),
        Alignment(4, 4, ("please",)),
        Alignment(5, 6, ()),
    ]


def test_the_phrases_that_are_needed_most_often_become_labels() -> None:
    rows = [
        row("a damn bus", "a bad bus"),
        row("a damn dog", "a bad dog"),
        row("a dog", "a dog now", "a big old dog"),
    ]
    assert phrase_labels(rows, count=5) == ["replace bad", "append now"]
    assert phrase_labels(rows, count=1) == ["replace bad"]


def test_a_sources_labels_are_those_of_the_reference_that_can_be_said() -> None:
    known = frozenset(["replace bad", "append now"])
    assert tags_of(row("a damn old bus", "a vile bus", "a bad bus"), known=known) == (
        KEEP,
        "replace bad",
        "delete",
        KEEP,
    )
    assert tags_of(row("a bus", "a bus now"), known=known) == (KEEP, "append now")
    assert tags_of(row("a damn bus", "a vile bus"), known=known) == (KEEP, UNKNOWN, KEEP)
    assert tags_of(row("a bus", "what a bus"), known=known) == (UNKNOWN_APPEND, KEEP)
    assert tags_of(row("a bus", "A bus"), known=known) == (KEEP, KEEP)


def test_held_out_sources_and_what_nothing_civil_can_carry_are_not_learned_from(
    examples: TaggedExamples,
) -> None:
    learned = {example.source.casefold() for example in examples.train}
    assert examples.held_out
    assert not learned & {pair.source for pair in examples.held_out}
    assert not any(f"fool number {n}" in source for source in learned for n in (9, 19, 29))


def test_clean_texts_are_kept_as_they_are_and_paradetox_counts_less(examples: TaggedExamples) -> None:
    kept = [example for example in examples.train if set(example.labels) == {KEEP}]
    assert any("i like the" in example.source.casefold() for example in kept)
    weights = {example.source.casefold().startswith("nobody"): example.weight for example in examples.train}
    assert weights[True] < weights[False]


def test_a_words_tag_stands_at_its_first_token(folder: Path) -> None:
    tokenizer = load_tokenizer(folder / "base")
    example = TaggedExample("you damn zq, go", (KEEP, "delete", "delete", KEEP, KEEP), 2.0)
    (encoded,) = encode([example], tokenizer, labels=(KEEP, "delete"), max_tokens=64)
    tokens = tokens_of_words(tokenizer, example.source)
    assert [encoded.tags[first] for first in tokens.firsts] == [0, 1, 1, 0, 0]
    assert encoded.tags.count(UNTAGGED) == len(encoded) - 5
    assert encode([example], tokenizer, labels=(KEEP, "delete"), max_tokens=len(encoded) - 1) == []
    assert encode([TaggedExample(" ", ())], tokenizer, labels=(KEEP,), max_tokens=64) == []


def test_the_loss_equals_a_slow_loop() -> None:
    rows = [TaggedRow([1, 2, 3], [UNTAGGED, 1, 0], 1.0), TaggedRow([1, 2], [UNTAGGED, 1], 0.5)]
    logits = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    total = 0.0
    for line, each in zip(logits, rows, strict=True):
        for place, tag in enumerate(each.tags):
            if tag != UNTAGGED:
                total -= each.weight * float(line[place].log_softmax(-1)[tag])
    assert float(tagger_loss(logits, pad(rows))) == pytest.approx(total / 3, rel=1e-5)


def test_it_goes_on_from_a_detectors_encoder(folder: Path, tmp_path: Path) -> None:
    detector = tiny_network(tmp_path / "detector")
    with torch.no_grad():
        detector.encoder.encoder.layer[0].output.dense.weight.add_(0.5)
    state = {name: part.contiguous().clone() for name, part in detector.state_dict().items()}
    save_file(state, tmp_path / "network.safetensors")
    network = TaggerNetwork.from_base(folder / "base", tags=5, start=str(tmp_path / "network.safetensors"))
    for name, part in network.encoder.state_dict().items():
        torch.testing.assert_close(part, state[f"encoder.{name}"])


def test_the_float_file_equals_the_network_and_eight_bits_stay_close(folder: Path, tmp_path: Path) -> None:
    import onnxruntime

    network = TaggerNetwork.from_base(folder / "base", tags=7).eval()
    rows = [Tokens([4, *range(7, 7 + n), 5]) for n in range(2, 12)]
    ranges = activation_ranges(network, rows)
    for precision, tolerance in (("float", 1e-5), ("rows", 0.1)):
        path = export(
            arrays(network),
            tmp_path / f"{precision}.onnx",
            precision=precision,
            ranges=ranges,
            build=build,  # type: ignore[arg-type]  # one of the names
        )
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        ids = np.array([rows[3].ids], np.int64)
        (logits,) = session.run(["logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        with torch.no_grad():
            expected = network(torch.from_numpy(ids), torch.ones_like(torch.from_numpy(ids)))
        np.testing.assert_allclose(logits, expected.numpy(), atol=tolerance)


class Known:
    """A tagger with known edits."""

    def __init__(self, edits: dict[str, TaggedEdit]) -> None:
        self.edits = edits

    def propose(self, texts: list[str]) -> list[list[TaggedEdit]]:
        return [[self.edits[text]] if text in self.edits else [] for text in texts]


def test_figures_count_edits_that_equal_a_reference_and_the_surest_first() -> None:
    pairs = [row(f"you fool {n}", f"You, {n}.") for n in range(60)]
    edits = {f"you fool {n}": TaggedEdit(f"you {n}" if n < 40 else "no", -n / 10) for n in range(55)}
    found = measure(Known(edits), pairs)  # type: ignore[arg-type]  # proposes as one does
    assert (found.pairs, found.proposed, found.exact) == (60, 55, 40)
    assert found.precision == {"at 50": 0.8}


def test_the_table_counts_what_nobody_rated_as_refused(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"source": "a", "candidate": "A", "rating": "accept"},
        {"source": "b", "candidate": "B", "rating": "form"},
        {"source": "c", "candidate": "C", "rating": "accept"},
    ]
    edits = {"a": TaggedEdit("A", -0.1), "b": TaggedEdit("B", -0.1), "c": TaggedEdit("D", -0.9)}
    table = acceptance_table(Known(edits), write(tmp_path / "r.jsonl", rows))  # type: ignore[arg-type]  # as above
    assert "| -0.2 | 2 | 1 | 0.500" in table[2]
    assert "| -1.0 | 3 | 1 | 0.333" in table[-1]


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="dropout"):
        TaggerSettings(base="b", out="o", dropout=1.5)


def test_an_interrupted_training_ends_as_one_that_was_not(
    settings: TaggerSettings, examples: TaggedExamples, tmp_path: Path
) -> None:
    whole = train(replace(settings, out=str(tmp_path / "whole"), checkpoint_every=1), examples)
    parts = replace(settings, out=str(tmp_path / "parts"), checkpoint_every=2)
    log = tmp_path / "parts" / "metrics.jsonl"
    _stopped_after_two_steps(parts, examples)
    assert len(log.read_text(encoding="utf-8").splitlines()) == 2
    again = train(parts, examples)
    for name, part in whole.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], part, rtol=0, atol=0)
    with pytest.raises(ConfigError, match="other settings"):
        train(replace(parts, lr=1e-3), examples)


def _stopped_after_two_steps(settings: TaggerSettings, examples: TaggedExamples) -> None:
    import os
    import signal

    from research.tagger import tagger as trainer

    original, steps = trainer.tagger_loss, []

    def loss(logits: torch.Tensor, batch: object) -> torch.Tensor:
        steps.append(1)
        if len(steps) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(logits, batch)  # type: ignore[arg-type]  # a batch

    trainer.tagger_loss = loss  # type: ignore[assignment]  # counts and stops
    try:
        with pytest.raises(SystemExit, match="saved after step 2"):
            train(settings, examples)
    finally:
        trainer.tagger_loss = original


def test_a_run_leaves_a_tagger_that_edits_as_it_learned(settings: TaggerSettings, tmp_path: Path) -> None:
    folder = run(replace(settings, out=str(tmp_path), passes=12, lr=2e-3, head_lr=1e-2, dropout=0.0))
    manifest = Manifest.load(folder)
    assert manifest.kind == "tagger"
    assert manifest.metrics["held_out"]["exact"] > 0.5 * manifest.metrics["held_out"]["pairs"]
    assert manifest.metrics["eight_bit"]["alone_to_batch"] < 1e-4
    assert {each["name"] for each in manifest.data} == {"everyday", "paradetox"}
    (edits,) = Tagger(folder).propose(["the damn bus is late today you fool number 12"])
    assert edits[0].text == "the bus is late today number 12"
    assert load_file(tmp_path / "network.safetensors")["tags.bias"].shape == (len(manifest.labels),)
