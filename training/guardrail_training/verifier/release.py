"""From a trained network to the folder that ships: 8-bit ONNX, tokenizer, manifest with figures."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from guardrail.errors import UsageError
from guardrail.manifest import Manifest, sha256_of
from guardrail.verifiers.onnx import LABEL, OnnxVerifier
from guardrail_training.detection.batches import load_tokenizer
from guardrail_training.detection.calibrate import platt
from guardrail_training.detection.quantise import Row, activation_ranges, arrays, export
from guardrail_training.detection.vocabulary import prune
from guardrail_training.provenance import plain
from guardrail_training.records import required_folder
from guardrail_training.runlog import git_commit, package_versions
from guardrail_training.verifier.batches import encode
from guardrail_training.verifier.examples import Example, Examples
from guardrail_training.verifier.figures import choose_threshold, crossed_precision, measure
from guardrail_training.verifier.network import VerifierNetwork
from guardrail_training.verifier.onnx_graph import build
from guardrail_training.verifier.settings import VerifierSettings, course

__all__ = ["release"]

VERSION = "1.0.0"
WINDOW = 512
SMOOTHED = 600  # pairs on which the size of activations is read
COMPARED = 300  # candidates on which the 8-bit file is compared with float32, and timed
TOGETHER = 7  # candidates that a guard asks about at once
MIN_RATED = 100  # so many held-out ratings, and so many of both kinds as below, decide alone
MIN_OF_A_KIND = 25

Floats = npt.NDArray[np.float32]


def release(network: VerifierNetwork, settings: VerifierSettings, examples: Examples) -> Path:
    """Exports, calibrates and measures; returns the folder with the finished manifest.

    Calibration and threshold come from held-out candidates that readers rated, if there are enough; the
    manifest says what they come from.
    """
    folder = Path(settings.out) / "model"
    folder.mkdir(parents=True, exist_ok=True)
    held_out = examples.held_out
    if len({example.acceptable for example in held_out}) < 2:
        raise UsageError(
            f"of {len(held_out)} held-out candidates none is acceptable, or all are: "
            "raise held_out or bring more pairs"
        )

    # 1. Files.
    vocabulary = prune(Path(settings.base) / "tokenizer.json")
    vocabulary.save(folder / "tokenizer.json")
    weights = vocabulary.apply(arrays(network))
    encoded = encode(
        examples.train[:: max(1, len(examples.train) // SMOOTHED)],
        load_tokenizer(settings.base),
        max_tokens=64,
    )
    ranges = activation_ranges(network, [Row(row.ids, row.kinds) for row in encoded])
    export(weights, folder / "model.onnx", precision="rows", ranges=ranges, build=build)
    beside = Path(settings.out) / "float32"
    beside.mkdir(exist_ok=True)
    vocabulary.save(beside / "tokenizer.json")
    export(weights, beside / "model.onnx", precision="float", build=build)

    # 2. Calibration on what readers said of outputs, where enough of it is held out.
    manifest = _manifest(folder, settings, examples)
    manifest.save(folder)
    verifier = OnnxVerifier(folder, threads=settings.threads)
    logits = verifier.logits(*_texts(held_out))
    rated = np.array([example.is_rated for example in held_out], dtype=bool)
    decides = rated if _are_enough(held_out, rated) else np.ones(len(held_out), dtype=bool)
    read = decides & np.isfinite(logits)
    acceptable = np.array([example.acceptable for example in held_out], dtype=bool)
    line = platt(logits[read], acceptable[read].astype(float), np.ones(int(read.sum())))

    # 3. The threshold, on probabilities as they are served.
    _manifest(folder, settings, examples, calibration=line).save(folder)
    verifier = OnnxVerifier(folder, threads=settings.threads)
    probabilities = np.array(verifier.verify(*_texts(held_out)))
    chosen = choose_threshold(acceptable[decides], probabilities[decides], precision=settings.precision)
    threshold = float(np.sort(probabilities[decides])[-1]) if chosen is None else chosen

    # 4. Figures.
    def figures(kept: npt.NDArray[np.bool_]) -> Any:
        some = [example for example, keep in zip(held_out, kept, strict=True) if keep]
        if len({example.acceptable for example in some}) < 2:
            return None
        found = measure(some, probabilities[kept], threshold=threshold, seed=settings.seed)
        crossed = crossed_precision(some, probabilities[kept], precision=settings.precision)
        return {**plain(found), "precision_of_thresholds_of_other_sources": plain(crossed)}

    metrics = {
        "decided_on": "rated outputs" if decides is rated else "all held-out candidates",
        "precision_reached": chosen is not None,
        "rated": figures(rated),
        "made_and_references": figures(~rated),
        "candidates": examples.counts(),
        "eight_bit": _cost(folder, beside, settings, held_out),
    }
    final = _manifest(folder, settings, examples, calibration=line, threshold=threshold)
    dataclasses.replace(final, metrics=_rounded(metrics)).save(folder)
    return folder


def _texts(examples: Sequence[Example]) -> tuple[list[str], list[str]]:
    return [example.source for example in examples], [example.candidate for example in examples]


def _are_enough(examples: Sequence[Example], rated: npt.NDArray[np.bool_]) -> bool:
    accepted = sum(example.acceptable for example in examples if example.is_rated)
    total = int(rated.sum())
    return total >= MIN_RATED and min(accepted, total - accepted) >= MIN_OF_A_KIND


def _manifest(
    folder: Path,
    settings: VerifierSettings,
    examples: Examples,
    *,
    calibration: dict[str, float] | None = None,
    threshold: float = 0.5,
) -> Manifest:
    return Manifest(
        kind="verifier",
        name="rewrite-minilm",
        version=VERSION,
        licence="Apache-2.0",
        files={name: sha256_of(folder / name) for name in ("model.onnx", "tokenizer.json")},
        trained_on=sha256_of(Path(settings.base) / "model.safetensors"),
        labels=(LABEL,),
        threshold=threshold,
        calibration={LABEL: calibration or {"a": 1.0, "b": 0.0}},
        languages=("en",),
        settings={"window": WINDOW, "training": course(settings)},
        data=_sources(settings, examples),
        versions={**package_versions(), "onnxruntime": onnxruntime.__version__},
        seed=settings.seed,
        git=git_commit(),
    )


def _sources(settings: VerifierSettings, examples: Examples) -> list[dict[str, Any]]:
    """What it was trained on: names, licences, and the files' sha256."""
    data = required_folder(settings.data)
    licences = {"everyday": "Apache-2.0", "paradetox": "OpenRAIL++"}
    described = [
        {"name": name, "licence": licence, "sha256": sha256_of(data / name / "train.jsonl")}
        for name, licence in licences.items()
    ]
    rated = sum(example.is_rated for example in (*examples.train, *examples.held_out))
    for name, paths, count in (
        ("pairs of this project", settings.own, None),
        ("ratings of this project", settings.ratings, rated),
    ):
        for path in paths:
            rows = {} if count is None else {"rows": count}
            described.append({"name": name, "licence": "Apache-2.0", **rows, "sha256": sha256_of(path)})
    return described


def _cost(
    folder: Path, float32: Path, settings: VerifierSettings, held_out: Sequence[Example]
) -> dict[str, float]:
    """Milliseconds of processor time per candidate, and what 8 bits change."""
    manifest = Manifest.load(folder)
    files = {name: sha256_of(float32 / name) for name in manifest.files}
    dataclasses.replace(manifest, files=files).save(float32)
    small, large = (OnnxVerifier(path, threads=settings.threads) for path in (folder, float32))
    some = held_out[:: max(1, len(held_out) // COMPARED)]
    sources, candidates = _texts(some)
    groups = [slice(start, start + TOGETHER) for start in range(0, len(some), TOGETHER)]
    singles = [slice(place, place + 1) for place in range(len(some))]
    alone, alone_ms = _timed(small, sources, candidates, singles)
    together, together_ms = _timed(small, sources, candidates, groups)
    whole = np.array(large.verify(sources, candidates))
    return {
        "bytes": (folder / "model.onnx").stat().st_size,
        "alone_ms": alone_ms,
        "in_sevens_ms": together_ms,
        "alone_to_batch": float(np.abs(alone - together).max()),
        "probability_change": float(np.abs(together - whole).mean()),
        "largest_probability_change": float(np.abs(together - whole).max()),
    }


def _timed(
    verifier: OnnxVerifier, sources: Sequence[str], candidates: Sequence[str], groups: Sequence[slice]
) -> tuple[npt.NDArray[np.float64], float]:
    """Probabilities, and processor time per candidate."""
    verifier.verify(sources[:TOGETHER], candidates[:TOGETHER])
    started = time.process_time()
    found = [each for group in groups for each in verifier.verify(sources[group], candidates[group])]
    return np.array(found), 1e3 * (time.process_time() - started) / len(candidates)


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return round(value, 5) if isinstance(value, float) else value
