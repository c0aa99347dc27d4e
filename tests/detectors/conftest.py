"""A detector folder with the interface of the shipped one, made of a lookup table with known answers."""

from __future__ import annotations

import string
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from guardrail.detectors.onnx import OnnxDetector
from guardrail.manifest import Manifest, sha256_of

LABELS = ("toxicity", "insult")
WORDS = (
    "you",
    "are",
    "the",
    "a",
    "cat",
    "sat",
    "on",
    "mat",
    "nice",
    "day",
    "idiot",
    "moron",
    "nobody",
    "said",
)
TOXIC = ("idiot", "moron")
DIMENSIONS = 16


def vocabulary() -> dict[str, int]:
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    letters = (*string.ascii_lowercase, *string.digits, *string.punctuation)
    pieces = (*special, *letters, *(f"##{c}" for c in letters), *WORDS)
    return {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}


def write_tokenizer(path: Path) -> None:
    tokenizer = Tokenizer(models.WordPiece(vocabulary(), unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.enable_truncation(16)  # as sentence encoders ship it: the detector must lift it
    tokenizer.enable_padding()
    tokenizer.save(str(path))


def write_model(path: Path) -> None:
    """Toxicity is the highest token value in the text, ``insult`` half of it, the embedding a masked mean."""
    table = np.random.default_rng(0).normal(size=(len(vocabulary()), DIMENSIONS)).astype(np.float32)
    table[:, 0] = -6.0
    for word in TOXIC:
        table[vocabulary()[word], 0] = 6.0
    constants = {
        "table": table,
        "one": np.array(1.0, dtype=np.float32),
        "far": np.array(1e4, dtype=np.float32),
        "share": np.array([[1.0, 0.5]], dtype=np.float32),
        "column": np.array([0], dtype=np.int64),
        "next": np.array([1], dtype=np.int64),
        "last": np.array([2], dtype=np.int64),
        "time": np.array([1], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["states"]),  # (batch, time, dimensions)
        helper.make_node("Slice", ["states", "column", "next", "last"], ["first"]),  # (batch, time, 1)
        helper.make_node("Squeeze", ["first", "last"], ["token_logits"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["one", "mask"], ["padding"]),
        helper.make_node("Mul", ["padding", "far"], ["penalty"]),
        helper.make_node("Sub", ["token_logits", "penalty"], ["visible"]),
        helper.make_node("ReduceMax", ["visible"], ["highest"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["highest", "share"], ["logits"]),
        helper.make_node("Unsqueeze", ["mask", "last"], ["column_mask"]),
        helper.make_node("Mul", ["states", "column_mask"], ["kept"]),
        helper.make_node("ReduceSum", ["kept", "time"], ["total"], keepdims=0),
        helper.make_node("LpNormalization", ["total"], ["embedding"], axis=1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "lookup",
        [
            helper.make_tensor_value_info(n, TensorProto.INT64, ["b", "t"])
            for n in ("input_ids", "attention_mask")
        ],
        [
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", len(LABELS)]),
            helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["b", DIMENSIONS]),
            helper.make_tensor_value_info("token_logits", TensorProto.FLOAT, ["b", "t"]),
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("detector")
    write_tokenizer(path / "tokenizer.json")
    write_model(path / "model.onnx")
    Manifest(
        kind="detector",
        name="lookup",
        version="1",
        licence="Apache-2.0",
        files={name: sha256_of(path / name) for name in ("tokenizer.json", "model.onnx")},
        labels=LABELS,
        threshold=0.5,
        calibration={"toxicity": {"a": 1.0, "b": 0.0}, "insult": {"a": 2.0, "b": 0.5}},
        scripts=("Latin",),
        settings={"span_threshold": 0.5, "window": 34},
    ).save(path)
    return path


@pytest.fixture(scope="session")
def detector(folder: Path) -> OnnxDetector:
    return OnnxDetector(folder, threads=1)
