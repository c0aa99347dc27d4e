"""The detector's network: one encoder whose token states feed three outputs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel

from guardrail.detectors.windows import LETTER_CASES
from research.detection.labelled import TRAINED

__all__ = ["DetectorNetwork", "NetworkOutput", "mean_embedding"]

HIDDEN = 192  # width of the classifier's hidden layer


@dataclass(frozen=True, slots=True)
class NetworkOutput:
    """What the network says of a batch."""

    logits: Tensor  # (batch, labels), in the order of TRAINED
    embedding: Tensor  # (batch, width), unit length
    token_logits: Tensor  # (batch, time)


def mean_embedding(states: Tensor, mask: Tensor) -> Tensor:
    """The sentence embedding of all-MiniLM-L6-v2: mean of the real tokens' states, scaled to unit length."""
    real = mask.unsqueeze(-1).to(states.dtype)  # (batch, time, 1)
    return nn.functional.normalize((states * real).sum(1) / real.sum(1), dim=-1)


class DetectorNetwork(nn.Module):
    """A BERT-like encoder with a classifier, a token scorer and the original mean-pooled embedding.

    The encoder's vocabulary is lower case; a vector for each word's letter case (lower, capitalised,
    capitals) is added to its tokens, zero before training: "Dick" is a name and "dick" is not. The
    classifier reads the first token, an attention-weighted mean and the maximum over tokens, not the plain
    mean: that one is held to the original embedding by distillation. All pooling is over real tokens only,
    so padding changes nothing.
    """

    encoder: Any  # transformers leaves its models untyped

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        width = encoder.config.hidden_size
        self.encoder = encoder
        self.case = nn.Embedding(LETTER_CASES, width)
        nn.init.zeros_(self.case.weight)
        self.attention = nn.Linear(width, 1)
        self.hidden = nn.Linear(3 * width, HIDDEN)
        self.labels = nn.Linear(HIDDEN, len(TRAINED))
        self.tokens = nn.Linear(width, 1)

    @classmethod
    def from_base(cls, base: str | Path) -> DetectorNetwork:
        """The network on a pretrained encoder, dropout off: one pass over augmented text does not overfit.

        Attention is eager: on a CPU the backward pass of the fused kind took half of a training step.
        """
        encoder = AutoModel.from_pretrained(
            str(base),
            add_pooling_layer=False,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            attn_implementation="eager",
        )
        return cls(encoder)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, case_ids: Tensor) -> NetworkOutput:
        """Reads ids, mask (1 for real tokens) and letter cases, all (batch, time)."""
        embedded = self.encoder.embeddings.word_embeddings(input_ids) + self.case(case_ids)
        states = self.encoder(inputs_embeds=embedded, attention_mask=attention_mask).last_hidden_state.float()
        absent = attention_mask.unsqueeze(-1) == 0  # (batch, time, 1)
        weights = self.attention(states).float().masked_fill(absent, -1e9).softmax(1)  # (batch, time, 1)
        pooled = torch.cat(
            [states[:, 0], (weights * states).sum(1), states.masked_fill(absent, -1e9).amax(1)], dim=-1
        )  # (batch, 3 * width)
        logits = self.labels(nn.functional.gelu(self.hidden(pooled)))
        return NetworkOutput(
            logits=logits.float(),
            embedding=mean_embedding(states, attention_mask),
            token_logits=self.tokens(states).squeeze(-1).float(),
        )
