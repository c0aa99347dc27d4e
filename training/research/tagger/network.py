"""The tagger's network: one encoder, and for each token one number per tag."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModel

from research.detection.onnx_graph import (
    Graph,
    Precision,
    Ranges,
    Weights,
    encoder_states,
    finished,
)

__all__ = ["TaggerNetwork", "build"]


class TaggerNetwork(nn.Module):
    """A BERT-like encoder with a linear layer; a word's tag is read at its first token."""

    encoder: Any  # transformers leaves its models untyped

    def __init__(self, encoder: Any, *, tags: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.tags = nn.Linear(encoder.config.hidden_size, tags)

    @classmethod
    def from_base(
        cls, base: str | Path, *, tags: int, start: str = "", dropout: float = 0.0
    ) -> TaggerNetwork:
        """The network on a pretrained encoder, or on that of a training (``network.safetensors``)."""
        encoder = AutoModel.from_pretrained(
            str(base),
            add_pooling_layer=False,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            attn_implementation="eager",  # on a CPU the backward pass of the fused kind is slow
        )
        if start:
            learned = {name.removeprefix("encoder."): part for name, part in load_file(start).items()}
            encoder.load_state_dict({name: learned[name] for name in encoder.state_dict()})
        return cls(encoder, tags=tags, dropout=dropout)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits (batch, time, tags) from ids and mask (batch, time)."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        logits: Tensor = self.tags(self.dropout(states)).float()
        return logits


def build(weights: Weights, *, precision: Precision, ranges: Ranges | None = None) -> onnx.ModelProto:
    """The model: ``input_ids`` and ``attention_mask`` (batch, time), int64, to ``logits``."""
    graph = Graph([], {}, precision, ranges or {})
    states, _ = encoder_states(graph, weights)
    graph.add("Identity", graph.small_linear("tags", states, weights, "tags"), name="logits")
    count = weights["tags.bias"].shape[0]
    return finished(graph, name="tagger", shapes={"logits": ["batch", "time", count]})
