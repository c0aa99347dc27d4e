"""From a trained tagger to the folder that ships: 8-bit ONNX, tokenizer, manifest with figures."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from guardrail.manifest import Manifest, sha256_of
from guardrail.rewriters.edits.tagger import Tagger
from guardrail_training.provenance import plain
from guardrail_training.records import required_folder
from guardrail_training.runlog import git_commit, package_versions
from research.detection.batches import load_tokenizer
from research.detection.quantise import Row, activation_ranges, arrays, export
from research.detection.sources import LICENCES
from research.detection.vocabulary import prune
from research.tagger.batches import encode
from research.tagger.examples import TaggedExamples
from research.tagger.figures import measure
from research.tagger.network import TaggerNetwork, build
from research.tagger.settings import TaggerSettings, course

__all__ = ["eight_bit_cost", "release"]

VERSION = "1.0.0"
SMOOTHED = 600  # texts on which the size of activations is read
COMPARED = 500  # texts on which the 8-bit file is compared with float32, and timed
TOGETHER = 16  # texts in a batch


def release(network: TaggerNetwork, settings: TaggerSettings, examples: TaggedExamples) -> Path:
    """Exports and measures; returns the folder with the finished manifest."""
    folder, beside = (Path(settings.out) / name for name in ("model", "float32"))
    folder.mkdir(parents=True, exist_ok=True)

    # 1. Files.
    vocabulary = prune(Path(settings.base) / "tokenizer.json")
    weights = vocabulary.apply(arrays(network))
    some = examples.train[:: max(1, len(examples.train) // SMOOTHED)]
    rows = encode(some, load_tokenizer(settings.base), labels=examples.labels, max_tokens=64)
    ranges = activation_ranges(network, [Row(row.ids) for row in rows])
    for place in (folder, beside):
        vocabulary.save(place / "tokenizer.json")
    export(weights, folder / "model.onnx", precision="rows", ranges=ranges, build=build)
    export(weights, beside / "model.onnx", precision="float", build=build)
    manifest = _manifest(settings, examples)
    for place in (folder, beside):
        files = {name: sha256_of(place / name) for name in ("model.onnx", "tokenizer.json")}
        dataclasses.replace(manifest, files=files).save(place)

    # 2. Figures, of the files as they are served.
    small, large = (Tagger(place, threads=settings.threads) for place in (folder, beside))
    texts = [pair.source for pair in examples.held_out][:COMPARED]
    metrics = {
        "held_out": plain(measure(small, examples.held_out)),
        "held_out_float32": plain(measure(large, examples.held_out)),
        "texts": examples.counts(),
        "eight_bit": {
            "bytes": (folder / "model.onnx").stat().st_size,
            **eight_bit_cost(small, large, texts),
        },
    }
    dataclasses.replace(small.manifest, metrics=_rounded(metrics)).save(folder)
    return folder


def eight_bit_cost(small: Tagger, large: Tagger, texts: Sequence[str]) -> dict[str, float]:
    """What 8 bits change, and milliseconds of processor time per text, alone and in a batch.

    ``tags_changed`` texts have another likeliest tag at some word, ``edits_changed`` another first proposal.
    """
    small.propose(texts[:TOGETHER])
    started = time.process_time()
    alone = [small.propose([text])[0] for text in texts]
    alone_ms = 1e3 * (time.process_time() - started) / max(1, len(texts))
    started = time.process_time()
    together = [
        each for at in range(0, len(texts), TOGETHER) for each in small.propose(texts[at : at + TOGETHER])
    ]
    together_ms = 1e3 * (time.process_time() - started) / max(1, len(texts))
    moved = [
        abs(one.confidence - other.confidence)
        for group, others in zip(alone, together, strict=True)
        for one, other in zip(group, others, strict=True)
    ]
    tags = [
        [None if each is None else each.argmax(axis=1) for each in tagger.chances(texts)]
        for tagger in (small, large)
    ]
    firsts = [
        [edits[0].text if edits else None for edits in tagger.propose(texts)] for tagger in (small, large)
    ]
    return {
        "texts": len(texts),
        "alone_ms": alone_ms,
        f"in_{TOGETHER}s_ms": together_ms,
        "alone_to_batch": max(moved, default=0.0),
        "tags_changed": sum(not np.array_equal(a, b) for a, b in zip(*tags, strict=True)),
        "edits_changed": sum(a != b for a, b in zip(*firsts, strict=True)),
    }


def _manifest(settings: TaggerSettings, examples: TaggedExamples) -> Manifest:
    return Manifest(
        kind="tagger",
        name="edits-minilm",
        version=VERSION,
        licence="Apache-2.0",
        files={},
        trained_on=sha256_of(Path(settings.base) / "model.safetensors"),
        labels=examples.labels,
        languages=("en",),
        settings={"window": settings.max_tokens, "training": course(settings)},
        data=_sources(settings),
        versions={**package_versions(), "onnxruntime": onnxruntime.__version__},
        seed=settings.seed,
        git=git_commit(),
    )


def _sources(settings: TaggerSettings) -> list[dict[str, Any]]:
    """What it was trained on: names, licences, and the files' sha256."""
    data = required_folder(settings.data)
    described: list[dict[str, Any]] = [
        {"name": name, "licence": LICENCES[name], "sha256": sha256_of(data / name / "train.jsonl")}
        for name in ("everyday", "paradetox")
    ]
    return described + [
        {"name": "pairs of this project", "licence": "Apache-2.0", "sha256": sha256_of(path)}
        for path in settings.own
    ]


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return round(value, 5) if isinstance(value, float) else value
