"""The verifier's network: one encoder over source and candidate, and one number for the pair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModel

from guardrail.detectors.windows import LETTER_CASES
from guardrail.rewriters.pairs import KINDS
from research.detection.network import HIDDEN
from research.verifier.examples import FAULTS

__all__ = ["VerifierNetwork"]


class VerifierNetwork(nn.Module):
    """A BERT-like encoder that reads a pair as one row of tokens.

    A vector for each token's kind is added to its embedding: source or candidate, same, moved or changed, by
    letter case. So the network need not find out first what was changed. As in the detector, the classifier
    reads the first token, an attention-weighted mean and the maximum over real tokens.
    """

    encoder: Any  # transformers leaves its models untyped

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        width = encoder.config.hidden_size
        self.encoder = encoder
        self.kind = nn.Embedding(KINDS, width)
        types = encoder.embeddings.token_type_embeddings.weight.detach()  # (2, width)
        with torch.no_grad():  # every token is of the encoder's first type; a candidate's moves to the second
            self.kind.weight.zero_()
            self.kind.weight[KINDS // 2 :] = types[1] - types[0]
        self.attention = nn.Linear(width, 1)
        self.hidden = nn.Linear(3 * width, HIDDEN)
        self.labels = nn.Linear(HIDDEN, 1 + len(FAULTS))

    @classmethod
    def from_base(cls, base: str | Path, *, start: str = "") -> VerifierNetwork:
        """The network on a pretrained encoder, or as a training left it (``network.safetensors``).

        That may be a detector's training, of which the encoder and the letter cases are taken.
        """
        encoder = AutoModel.from_pretrained(
            str(base),
            add_pooling_layer=False,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            attn_implementation="eager",  # on a CPU the backward pass of the fused kind is slow
        )
        network = cls(encoder)
        if start:
            learned = load_file(start)
            if "kind.weight" in learned:
                network.load_state_dict(learned)
                return network
            parts = {name.removeprefix("encoder."): part for name, part in learned.items()}
            encoder.load_state_dict({name: parts[name] for name in encoder.state_dict()})
            with torch.no_grad():
                network.kind.weight += learned["case.weight"].repeat(KINDS // LETTER_CASES, 1)
        return network

    def forward(self, input_ids: Tensor, attention_mask: Tensor, kind_ids: Tensor) -> Tensor:
        """Logits (batch, 1 + faults): acceptable, then each fault; from ids, mask and kinds (batch, time)."""
        embedded = self.encoder.embeddings.word_embeddings(input_ids) + self.kind(kind_ids)
        states = self.encoder(inputs_embeds=embedded, attention_mask=attention_mask).last_hidden_state.float()
        absent = attention_mask.unsqueeze(-1) == 0  # (batch, time, 1)
        weights = self.attention(states).float().masked_fill(absent, -1e9).softmax(1)  # (batch, time, 1)
        pooled = torch.cat(
            [states[:, 0], (weights * states).sum(1), states.masked_fill(absent, -1e9).amax(1)], dim=-1
        )  # (batch, 3 * width)
        logits: Tensor = self.labels(nn.functional.gelu(self.hidden(pooled))).float()
        return logits
