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
from guardrail.rewriters.verifier import LABEL, OnnxVerifier
from guardrail_training.provenance import plain
from guardrail_training.records import required_folder
from guardrail_training.runlog import git_commit, package_versions
from research.detection.batches import load_tokenizer
from research.detection.calibrate import platt
from research.detection.quantise import Row, activation_ranges, arrays, export
from research.detection.sources import LICENCES
from research.detection.vocabulary import prune
from research.verifier.batches import encode
from research.verifier.examples import Example, Examples
from research.verifier.figures import choose_threshold, crossed_precision, measure
from research.verifier.network import VerifierNetwork
from research.verifier.onnx_graph import build
from research.verifier.settings import VerifierSettings, course

__all__ = ["release"]

VERSION = "1.0.0"
WINDOW = 512
SMOOTHED = 600  # pairs on which the size of activations is read
COMPARED = 300  # candidates on which the 8-bit file is compared with float32, and timed
TOGETHER = 7  # candidates that a guard asks about at once
MIN_OF_A_KIND = 50  # held-out candidates decide if so many are acceptable, and so many are not

Flags = npt.NDArray[np.bool_]


def release(network: VerifierNetwork, settings: VerifierSettings, examples: Examples) -> Path:
    """Exports, calibrates and measures; returns the folder with the finished manifest.

    Calibration and threshold come from held-out candidates that readers rated, if enough of them are
    acceptable; the manifest says what they come from.
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
    beside = _export(network, settings, examples, folder)
    _manifest(folder, settings, examples).save(folder)

    # 2. Calibration on what readers said of outputs, where enough of it is held out.
    verifier = OnnxVerifier(folder, threads=settings.threads)
    logits = verifier.logits(*_texts(held_out))
    acceptable = np.array([example.acceptable for example in held_out], dtype=bool)
    rated = np.array([example.is_rated for example in held_out], dtype=bool)
    decided_on, decides = _deciding(held_out, acceptable, rated)
    read = decides & np.isfinite(logits)
    line = platt(logits[read], acceptable[read].astype(float), np.ones(int(read.sum())))

    # 3. The threshold, on probabilities as they are served.
    _manifest(folder, settings, examples, calibration=line).save(folder)
    verifier = OnnxVerifier(folder, threads=settings.threads)
    probabilities = np.array(verifier.verify(*_texts(held_out)))
    chosen = choose_threshold(acceptable[decides], probabilities[decides], precision=settings.precision)
    reached = float(probabilities[decides].max()) if chosen is None else chosen
    threshold = settings.threshold or reached

    # 4. Figures.
    metrics = {
        "decided_on": decided_on,
        "threshold_chosen_by": "hand" if settings.threshold else f"precision {settings.precision}",
        "precision_reached": chosen is not None and not settings.threshold,
        "rated": _figures(held_out, probabilities, rated, threshold=threshold, settings=settings),
        "made_and_references": _figures(
            held_out, probabilities, ~rated, threshold=threshold, settings=settings
        ),
        "candidates": examples.counts(),
        "eight_bit": _cost(folder, beside, settings, held_out),
    }
    final = _manifest(folder, settings, examples, calibration=line, threshold=threshold)
    dataclasses.replace(final, metrics=_rounded(metrics)).save(folder)
    return folder


def _export(network: VerifierNetwork, settings: VerifierSettings, examples: Examples, folder: Path) -> Path:
    """Writes tokenizer and model into the folder; the folder of the same in float32, for comparison."""
    vocabulary = prune(Path(settings.base) / "tokenizer.json")
    weights = vocabulary.apply(arrays(network))
    some = examples.train[:: max(1, len(examples.train) // SMOOTHED)]
    encoded = encode(some, load_tokenizer(settings.base), max_tokens=64)
    ranges = activation_ranges(network, [Row(row.ids, row.kinds) for row in encoded])
    beside = Path(settings.out) / "float32"
    for place in (folder, beside):
        vocabulary.save(place / "tokenizer.json")
    export(weights, folder / "model.onnx", precision="rows", ranges=ranges, build=build)
    export(weights, beside / "model.onnx", precision="float", build=build)
    return beside


def _figures(
    held_out: Sequence[Example],
    probabilities: npt.NDArray[np.float64],
    kept: Flags,
    *,
    threshold: float,
    settings: VerifierSettings,
) -> Any:
    """The figures of some held-out candidates; None if all of them are acceptable, or none is."""
    some = [example for example, keep in zip(held_out, kept, strict=True) if keep]
    if len({example.acceptable for example in some}) < 2:
        return None
    found = measure(some, probabilities[kept], threshold=threshold, seed=settings.seed)
    crossed = crossed_precision(some, probabilities[kept], precision=settings.precision)
    return {**plain(found), "precision_of_thresholds_of_other_sources": plain(crossed)}


def _texts(examples: Sequence[Example]) -> tuple[list[str], list[str]]:
    return [example.source for example in examples], [example.candidate for example in examples]


def _deciding(held_out: Sequence[Example], acceptable: Flags, rated: Flags) -> tuple[str, Flags]:
    """What decides calibration and threshold, and its name: the most real candidates that suffice."""
    keys = {example.key for example, is_rated in zip(held_out, rated, strict=True) if is_rated}
    references = [example.origin == "reference" and example.key in keys for example in held_out]
    sets = {
        "rated outputs": rated,
        "rated outputs and references of the same sentences": rated | np.array(references, dtype=bool),
    }
    for name, chosen in sets.items():
        if min(acceptable[chosen].sum(), (~acceptable[chosen]).sum()) >= MIN_OF_A_KIND:
            return name, chosen
    return "all held-out candidates", np.ones_like(rated)


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
    described = [
        {"name": name, "licence": LICENCES[name], "sha256": sha256_of(data / name / "train.jsonl")}
        for name in ("everyday", "paradetox")
    ]
    rated = sum(example.is_rated for example in (*examples.train, *examples.held_out))
    for name, paths, count in (
        ("pairs of this project", settings.own, None),
        ("ratings of this project", settings.ratings, rated),
    ):
        for path in paths:
            rows: dict[str, Any] = {} if count is None else {"rows": count}
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
