"""An encoder's tokenizer and ONNX file, opened with errors that say what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from guardrail.errors import ModelFileError

__all__ = ["open_session", "open_tokenizer", "sigmoid"]

Floats = npt.NDArray[np.float32]


def open_tokenizer(path: Path) -> Any:
    """The tokenizer of a file, without its padding and truncation; ModelFileError if it is not one."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:
        raise ModelFileError(f"{path} is not a tokenizer; fetch the model again") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def open_session(path: Path, *, threads: int | None, spinning: bool) -> Any:
    """An onnxruntime session, by default a thread per physical core; ModelFileError if it cannot load."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = threads or 0  # 0: as many as physical cores
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    # Passes differ in size: memory kept for one is of no use to the next.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.log_severity_level = 4  # what goes wrong is raised
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelFileError(f"{path} cannot be loaded by onnxruntime; fetch the model again") from error


def sigmoid(logits: Floats) -> Floats:
    """The logistic function, without overflow."""
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * logits), dtype=np.float32)
