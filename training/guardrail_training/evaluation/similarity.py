"""Sentence encoders that only evaluation uses, and the closeness of meaning (SIM) that they measure.

paraphrase-MiniLM-L3-v2 (Reimers and Gurevych 2019, Apache-2.0) is in no gate and no reward, so SIM and J are
taken from it; the original all-MiniLM-L6-v2, from which the detector's embedding descends, is also shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from guardrail.errors import ModelMissingError
from guardrail.protocols import Embedder

__all__ = ["MiniLm", "ParaphraseL3", "cosines"]

BATCH = 64
POSITIONS = 512  # of both models' position tables


class ParaphraseL3:
    """paraphrase-MiniLM-L3-v2 from its ONNX file; vocabulary and tokenizer file are MiniLM's."""

    def __init__(self, model: str | Path, *, tokenizer: str | Path) -> None:
        import onnxruntime

        self._tokenizer = _tokenizer(tokenizer)
        options = onnxruntime.SessionOptions()
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(_existing(model)), options, providers=["CPUExecutionProvider"]
        )
        # The graph has unnamed outputs; the token states are the one of shape (batch, time, width).
        self._states = next(output.name for output in self._session.get_outputs() if len(output.shape) == 3)

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Shape (n, 384), unit length: token states averaged over the text, then normalised."""

        def states(ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
            (answer,) = self._session.run([self._states], {"input_ids": ids, "attention_mask": mask})
            return np.asarray(answer, dtype=np.float32)

        return _embed(texts, self._tokenizer, states)


class MiniLm:
    """The original all-MiniLM-L6-v2 from its folder, in float32."""

    def __init__(self, folder: str | Path) -> None:
        from transformers import AutoModel

        self._tokenizer = _tokenizer(Path(folder) / "tokenizer.json")
        self._model = AutoModel.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True
        ).eval()

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Shape (n, 384), unit length: token states averaged over the text, then normalised."""
        import torch

        def states(ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
            with torch.inference_mode():
                answer = self._model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
            return np.asarray(answer.last_hidden_state.numpy(), dtype=np.float32)

        return _embed(texts, self._tokenizer, states)


def cosines(encoder: Embedder, first: Sequence[str], second: Sequence[str]) -> npt.NDArray[np.float64]:
    """Shape (n,): the cosine of each text of ``first`` with its counterpart; no text is encoded twice."""
    distinct = list(dict.fromkeys([*first, *second]))
    if not distinct:
        return np.zeros(0)
    place = {text: row for row, text in enumerate(distinct)}
    vectors = np.asarray(encoder.embed(distinct), dtype=np.float64)
    left, right = (vectors[[place[text] for text in texts]] for texts in (first, second))
    return np.asarray((left * right).sum(axis=1), dtype=np.float64)


def _existing(path: str | Path) -> Path:
    if not Path(path).is_file():
        raise ModelMissingError(f"no model file {path}; fetch it with 'guardrail models pull'")
    return Path(path)


def _tokenizer(path: str | Path) -> Any:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(_existing(path)))
    tokenizer.enable_truncation(POSITIONS)
    tokenizer.enable_padding()  # to the longest of a batch; the file's own setting pads everything to 128
    return tokenizer


def _embed(texts: Sequence[str], tokenizer: Any, states: Any) -> npt.NDArray[np.float32]:
    """Embeddings in input order; texts of similar length share a batch."""
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    pooled: dict[int, npt.NDArray[np.float32]] = {}
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        encodings = tokenizer.encode_batch([texts[row] for row in rows])
        ids = np.array([encoding.ids for encoding in encodings], dtype=np.int64)  # (batch, time)
        mask = np.array([encoding.attention_mask for encoding in encodings], dtype=np.int64)
        weights = mask[..., None].astype(np.float32)
        means = (states(ids, mask) * weights).sum(axis=1) / weights.sum(axis=1)  # (batch, width)
        pooled |= zip(rows, means / np.linalg.norm(means, axis=1, keepdims=True), strict=True)
    return np.stack([pooled[row] for row in range(len(texts))]) if texts else np.zeros((0, 0), np.float32)
