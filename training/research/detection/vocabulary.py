"""Takes out of the vocabulary what no text can reach: the base reserves a thousand tokens and uses none."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from research.detection.onnx_graph import Weights

__all__ = ["Vocabulary", "prune"]

RESERVED = re.compile(r"\[unused\d+\]")
TABLE = "encoder.embeddings.word_embeddings.weight"


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """A tokenizer file's content, and which rows of the old table its ids stand for."""

    tokenizer: Mapping[str, Any]
    kept: npt.NDArray[np.int64]

    def apply(self, weights: Weights) -> dict[str, npt.NDArray[np.float32]]:
        """The weights with the embedding table's kept rows alone."""
        return {**weights, TABLE: weights[TABLE][self.kept]}

    def save(self, path: str | Path) -> Path:
        """Writes the tokenizer file, making its folder."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(self.tokenizer, ensure_ascii=False) + "\n", encoding="utf-8")
        return Path(path)


def prune(path: str | Path) -> Vocabulary:
    """The tokenizer at ``path`` without reserved tokens, padding and truncation; ids close up in order."""
    tokenizer = json.loads(Path(path).read_text(encoding="utf-8"))
    old = sorted(
        (number, token)
        for token, number in tokenizer["model"]["vocab"].items()
        if not RESERVED.fullmatch(token)
    )
    new = {token: place for place, (_, token) in enumerate(old)}
    tokenizer["model"]["vocab"] = new
    for added in tokenizer["added_tokens"]:
        added["id"] = new[added["content"]]
    for name, special in tokenizer["post_processor"]["special_tokens"].items():
        special["ids"] = [new[name]]
    tokenizer["padding"] = tokenizer["truncation"] = None
    return Vocabulary(tokenizer, np.array([number for number, _ in old], np.int64))
