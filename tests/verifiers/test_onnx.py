"""The ONNX verifier, on a lookup-table model whose answers can be foretold."""

from __future__ import annotations

import json
import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guardrail.errors import ManifestError, ModelFileError
from guardrail.manifest import sha256_of
from guardrail.rewriters.verifier import OnnxVerifier
from tests.verifiers.conftest import OFFSET, SLOPE

WORDS = ("cat", "mat", "day", "nice", "idiot", "nobody")


def altered(folder: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    change(manifest)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def test_a_probability_is_the_calibrated_logit(verifier: OnnxVerifier) -> None:
    found = verifier.verify(["the cat sat", "the cat sat"], ["the cat sat", "the nice cat sat on"])
    expected = [1 / (1 + math.exp(-(SLOPE * logit + OFFSET))) for logit in (0, -2)]
    assert found == pytest.approx(expected, abs=1e-6)


def test_a_pair_too_long_to_be_read_is_not_acceptable(verifier: OnnxVerifier) -> None:
    found = verifier.verify(["cat " * 60, "cat"], ["mat " * 60, "cat"])
    assert found[0] == 0.0 < found[1]


def test_a_pair_does_not_depend_on_the_others(verifier: OnnxVerifier) -> None:
    generator = random.Random(3)
    texts = [" ".join(generator.choices(WORDS, k=generator.randint(1, 25))) for _ in range(60)]
    sources, candidates = texts[:30], texts[30:]
    alone = [verifier.verify([s], [c])[0] for s, c in zip(sources, candidates, strict=True)]
    assert verifier.verify(sources, candidates) == pytest.approx(alone, abs=1e-6)


def test_no_pairs_give_no_probabilities(verifier: OnnxVerifier) -> None:
    assert verifier.verify([], []) == []


def test_sources_and_candidates_must_be_equally_many(verifier: OnnxVerifier) -> None:
    with pytest.raises(ValueError, match="argument 2"):
        verifier.verify(["cat"], [])


def test_the_threshold_is_the_manifests(verifier: OnnxVerifier) -> None:
    assert verifier.threshold == 0.4


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_an_altered_file_is_refused_before_it_is_opened(
    verifier_folder: Path, tmp_path: Path, name: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(verifier_folder, copy)
    with (copy / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(ManifestError, match=name):
        OnnxVerifier(copy)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_file_that_cannot_be_read_is_named(verifier_folder: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(verifier_folder, copy)
    (copy / name).write_bytes(b"nothing")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["files"][name] = sha256_of(copy / name)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelFileError, match=name):
        OnnxVerifier(copy)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda m: m.update(kind="detector"), "not a complete verifier"),
        (lambda m: m["files"].pop("tokenizer.json"), "tokenizer.json"),
        (lambda m: m.update(threshold=None), "threshold"),
        (lambda m: m.update(threshold=1.5), "threshold"),
        (lambda m: m["settings"].update(window=0), "window"),
        (lambda m: m["settings"].update(window="all"), "window"),
        (lambda m: m.update(calibration={}), "calibration"),
        (lambda m: m["calibration"]["acceptable"].pop("b"), "calibration"),
        (lambda m: m["calibration"]["acceptable"].update(a=float("nan")), "calibration"),
    ],
)
def test_a_manifest_without_what_a_probability_needs_is_refused(
    verifier_folder: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], named: str
) -> None:
    with pytest.raises(ManifestError, match=named):
        OnnxVerifier(altered(verifier_folder, tmp_path, change))
