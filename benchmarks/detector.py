"""The shipped 8-bit detector against the same encoder in float32 ONNX, alone and in batches.

Run: ``python -m benchmarks.detector``. Both go through ``OnnxDetector``, so tokenising, buckets and threads
are the same. Speed does not depend on the values of weights, so the float32 twin has random ones. A model of
BERT-base's shape, padded to 512 tokens as many guards do, stands alongside them as context.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from transformers import BertConfig, BertModel

from benchmarks.measure import Claim, median_seconds, report
from guardrail.detectors.onnx import OnnxDetector
from guardrail.manifest import Manifest, sha256_of
from research.detection.detector_graph import build
from research.detection.network import DetectorNetwork

SHIPPED = Path(__file__).parents[1] / "guardrail" / "shipped" / "detector"
SENTENCE = "The second chapter explains how the bridge was paid for, and who had to wait for years."
OPENINGS = ("Yes.", "In short,", "As far as I know,", "When the meeting was over and everyone had gone home,")
BATCH = 32
TEXTS = [f"{OPENINGS[i % 4]} {SENTENCE[: 30 + 2 * i]}" for i in range(BATCH)]
ROUNDS = 15
BERT_LENGTH = 512
BERT_ROUNDS = 3
QUIET = -10.0
"""A bias under which random weights find nothing, so that both detectors have as little to report."""


def network(config: BertConfig) -> DetectorNetwork:
    """A detector of this shape with random weights that finds nothing."""
    torch.manual_seed(0)
    made = DetectorNetwork(BertModel(config, add_pooling_layer=False)).eval()
    with torch.no_grad():
        made.labels.bias.fill_(QUIET)
        made.tokens.bias.fill_(QUIET)
    return made


def write_float_model(path: Path, config: BertConfig) -> None:
    """Writes a float32 ONNX model of this shape."""
    weights = {name: value.detach().numpy() for name, value in network(config).state_dict().items()}
    path.write_bytes(build(weights, precision="float").SerializeToString())


def float_twin(folder: Path) -> OnnxDetector:
    """The shipped detector with a float32 model of the same shape in its place."""
    write_float_model(
        folder / "model.onnx",
        BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536),
    )
    shutil.copyfile(SHIPPED / "tokenizer.json", folder / "tokenizer.json")
    files = {name: sha256_of(folder / name) for name in ("model.onnx", "tokenizer.json")}
    replace(Manifest.load(SHIPPED), files=files).save(folder)
    return OnnxDetector(folder)


def padded_bert(folder: Path) -> Callable[[int], object]:
    """Reads so many texts, each padded to 512 tokens, with a model of BERT-base's shape."""
    path = folder / "bert.onnx"
    write_float_model(path, BertConfig())
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def read(texts: int) -> object:
        ids = np.ones((texts, BERT_LENGTH), dtype=np.int64)
        mask = (np.arange(BERT_LENGTH) < 20).astype(np.int64)[None].repeat(texts, axis=0)
        return session.run(["logits"], {"input_ids": ids, "attention_mask": mask})

    return read


def detector_seconds(shipped: OnnxDetector, twin: OnnxDetector) -> dict[str, float]:
    """Median seconds for one text and for a batch, by precision."""

    def alone(detector: OnnxDetector) -> None:
        for text in TEXTS[:8]:
            detector.detect([text])

    seconds = median_seconds(
        {
            "8-bit alone": lambda: alone(shipped),
            "float32 alone": lambda: alone(twin),
            "8-bit batch": lambda: shipped.detect(TEXTS),
            "float32 batch": lambda: twin.detect(TEXTS),
        },
        rounds=ROUNDS,
    )
    return {name: value / (8 if "alone" in name else BATCH) for name, value in seconds.items()}


def row(model: str, size: int, alone: float, batch: float) -> dict[str, object]:
    """One line of the table; ``alone`` and ``batch`` are seconds a text."""
    return {
        "model": model,
        "MB": size / 1e6,
        "ms a text, alone": 1e3 * alone,
        "ms a text, in 32": 1e3 * batch,
    }


def main() -> None:
    """Prints sizes and milliseconds a text, and whether 8 bits keep their promise."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seconds = detector_seconds(OnnxDetector.shipped(), float_twin(folder))
        small, large = ((place / "model.onnx").stat().st_size for place in (SHIPPED, folder))
        read = padded_bert(folder)
        bert = median_seconds({"one": lambda: read(1), "four": lambda: read(4)}, rounds=BERT_ROUNDS)
        rows = [
            row("shipped, 8-bit", small, seconds["8-bit alone"], seconds["8-bit batch"]),
            row("same encoder, float32", large, seconds["float32 alone"], seconds["float32 batch"]),
            row(
                "BERT-base shape, 512 tokens (batch of 4)",
                (folder / "bert.onnx").stat().st_size,
                bert["one"],
                bert["four"] / 4,
            ),
        ]
    alone = seconds["float32 alone"] / seconds["8-bit alone"]
    batch = seconds["float32 batch"] / seconds["8-bit batch"]
    claims = [
        Claim("alone, at least as fast as float32 (ratio)", alone, alone >= 1),
        Claim("in batches of 32, at least as fast as float32 (ratio)", batch, batch >= 1),
        Claim("at most a quarter of the size of float32 (share)", small / large, small / large <= 0.25),
    ]
    report("detector", rows, claims)


if __name__ == "__main__":
    main()
