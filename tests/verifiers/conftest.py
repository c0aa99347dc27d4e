"""A verifier folder with the interface of the shipped one, made of a lookup table with known answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from guardrail.manifest import Manifest, sha256_of
from guardrail.rewriters.pairs import KINDS
from guardrail.rewriters.verifier import LABEL, OnnxVerifier
from tests.detectors.conftest import write_tokenizer

SLOPE, OFFSET = 2.0, 1.0
CHANGED = range(6, 9), range(15, 18)
"""Kinds of changed tokens, of the source and of the candidate."""


def write_model(path: Path) -> None:
    """The logit is minus the number of a pair's changed tokens."""
    table = np.zeros((KINDS, 1), dtype=np.float32)
    for kinds in CHANGED:
        table[list(kinds)] = -1.0
    constants = [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([1]), "axis")]
    constants.append(numpy_helper.from_array(np.array([2]), "last"))
    nodes = [
        helper.make_node("Gather", ["table", "kind_ids"], ["values"]),
        helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "last"], ["real"]),
        helper.make_node("Mul", ["values", "real"], ["counted"]),
        helper.make_node("ReduceSum", ["counted", "axis"], ["logits"], keepdims=0),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "time"])
        for name in ("input_ids", "attention_mask", "kind_ids")
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 1])]
    graph = helper.make_graph(nodes, "verifier", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


@pytest.fixture(scope="session")
def verifier_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("verifier")
    write_model(folder / "model.onnx")
    write_tokenizer(folder / "tokenizer.json")
    Manifest(
        kind="verifier",
        name="tiny",
        version="1",
        licence="Apache-2.0",
        files={name: sha256_of(folder / name) for name in ("model.onnx", "tokenizer.json")},
        labels=(LABEL,),
        threshold=0.4,
        calibration={LABEL: {"a": SLOPE, "b": OFFSET}},
        settings={"window": 64},
    ).save(folder)
    return folder


@pytest.fixture(scope="session")
def verifier(verifier_folder: Path) -> OnnxVerifier:
    return OnnxVerifier(verifier_folder)
