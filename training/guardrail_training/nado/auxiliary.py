"""The model of R: a small network over the states of the frozen base.

It reads the state before a token and says, for any candidate ``v`` for that token, the logit of
R(prefix v) = ``b(h) + u(h) . E_v``, with E the base's own token embeddings: no matrix over the vocabulary is
trained, and only the candidates' rows of E are read. The states are those of the base without adapter, so
that what it reads stays the same while the language model learns.

Before that, transformer blocks let each position read the response's earlier states (the authors have four
blocks, over the prompt's too): a state foretells the next token and need not remember how bad an earlier one
was.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from guardrail.errors import ModelFileError, ModelMissingError
from guardrail.manifest import sha256_of
from guardrail_training.nado.success import logit_of

__all__ = ["Auxiliary", "load_auxiliary", "save_auxiliary"]

HEADS = 4
SIZES = ("hidden", "blocks", "rank")
WEIGHTS, DESCRIPTION = "auxiliary.safetensors", "auxiliary.json"


class _Block(nn.Module):
    """Causal attention and a perceptron, each on normalised inputs and added to them (GPT-2's layout).

    Positions come in with its input.
    """

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.mixed, self.joined = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.before_attention, self.before_perceptron = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, read: Tensor) -> Tensor:
        """``(rows, time, width)`` from the same; a position sees none after it."""
        rows, time, width = read.shape
        mixed = self.mixed(self.before_attention(read)).view(rows, time, 3, self._heads, -1)
        query, key, value = mixed.permute(2, 0, 3, 1, 4)  # each (rows, heads, time, width / heads)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        read = read + self.joined(seen.transpose(1, 2).reshape(rows, time, width))
        more: Tensor = self.narrow(functional.gelu(self.wide(self.before_perceptron(read))))
        return read + more


def _waves(time: int, width: int) -> Tensor:
    """Sines and cosines of positions ``(time, width)`` (Vaswani et al. 2017, section 3.5)."""
    places = torch.arange(width)
    angles = torch.arange(time)[:, None] / 10_000 ** (2 * (places // 2) / width)
    return torch.where(places % 2 == 0, angles.sin(), angles.cos())


class Auxiliary(nn.Module):
    """Logits of R for candidate next tokens; the same for all of them until trained.

    ``embeddings`` ``(vocabulary, width)`` are the base's and stay frozen. With equal R the posterior is the
    language model itself, so an untrained auxiliary guides nothing.
    """

    embeddings: Tensor

    def __init__(self, embeddings: Tensor, *, hidden: int, blocks: int, rank: int) -> None:
        super().__init__()
        width = embeddings.shape[1]
        self.sizes = {"width": width, "hidden": hidden, "blocks": blocks, "rank": rank}
        self.register_buffer("embeddings", embeddings.detach(), persistent=False)
        # Families differ in the scale of their embeddings; a step should move a logit equally far in all.
        rms = float(embeddings.detach().float().square().mean().sqrt())
        self._scale = 1 / (rms * (width * rank) ** 0.5)
        self.inner = nn.Linear(width, hidden)
        heads = math.gcd(hidden, HEADS)
        self.blocks = nn.ModuleList(_Block(hidden, heads=heads) for _ in range(blocks))
        self.after = nn.LayerNorm(hidden)
        self.base_logit = nn.Linear(hidden, 1)
        self.down = nn.Linear(hidden, rank)
        self.up = nn.Linear(rank, width, bias=False)
        for weight in (self.base_logit.weight, self.base_logit.bias, self.up.weight):
            nn.init.zeros_(weight)

    def start_at(self, rate: float) -> None:
        """Sets the R of every prefix of an untrained auxiliary to a rate of success."""
        nn.init.constant_(self.base_logit.bias, logit_of(rate))

    def forward(self, states: Tensor, ids: Tensor) -> Tensor:
        """Logits of R after each candidate ``ids``, both ``(rows, time, candidates)``.

        ``states`` ``(rows, time, width)`` are those before each token of a response, from its first one on;
        computed in float32.
        """
        device = self.embeddings.device
        return self._scores(self._read(states.to(device)), ids.to(device)).to(states.device)

    def last(self, states: Tensor, ids: Tensor) -> Tensor:
        """Logits ``(rows, candidates)`` of R after each candidate for the next token, the last one alone."""
        device = self.embeddings.device
        return self._scores(self._read(states.to(device))[:, -1], ids.to(device)).to(states.device)

    def _scores(self, read: Tensor, ids: Tensor) -> Tensor:
        # Each distinct candidate is projected once: embeddings are long, and most candidates recur.
        distinct, places = torch.unique(ids, return_inverse=True)
        projected = self.embeddings[distinct].float() @ self.up.weight  # (distinct, rank)
        direction = self.down(read) * self._scale  # (..., rank)
        logits: Tensor = self.base_logit(read) + (projected[places] @ direction[..., None])[..., 0]
        return logits

    def _read(self, states: Tensor) -> Tensor:
        read = self.inner(functional.layer_norm(states.float(), states.shape[-1:]))
        read = read + _waves(*read.shape[-2:]).to(
            read.device
        )  # how much of the response is left changes what may still fail
        for block in self.blocks:
            read = block(read)
        normal: Tensor = self.after(read)
        return normal


def save_auxiliary(auxiliary: Auxiliary, folder: str | Path, *, base_sha256: str) -> list[Path]:
    """Writes weights and description, which names the base that it reads; returns their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights, description = folder / WEIGHTS, folder / DESCRIPTION
    save_file({name: value.contiguous() for name, value in auxiliary.state_dict().items()}, weights)
    weights.chmod(0o644)  # safetensors writes 0600, which others cannot read
    content = {**auxiliary.sizes, "base_sha256": base_sha256, "sha256": sha256_of(weights)}
    description.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return [weights, description]


def load_auxiliary(folder: str | Path, *, model: Any, base_sha256: str) -> Auxiliary:
    """The auxiliary of a folder over the base ``model`` with those weights.

    Raises ModelMissingError if there is none, ModelFileError if its file was changed or it belongs to
    another base.
    """
    weights, description = Path(folder) / WEIGHTS, Path(folder) / DESCRIPTION
    if not weights.is_file() or not description.is_file():
        raise ModelMissingError(
            f"no auxiliary model in {folder}; train one with 'guardrail-train regularized'"
        )
    content: dict[str, Any] = json.loads(description.read_text(encoding="utf-8"))
    if content["base_sha256"] != base_sha256:
        raise ModelFileError(
            f"the auxiliary model in {folder} reads another base (sha256 {content['base_sha256'][:12]}...)"
        )
    if sha256_of(weights) != content["sha256"]:
        raise ModelFileError(f"{weights} is not the file that {description.name} describes; train it again")
    embeddings = model.get_input_embeddings().weight
    auxiliary = Auxiliary(embeddings, **{name: content[name] for name in SIZES})
    auxiliary.load_state_dict(load_file(weights))
    return auxiliary.requires_grad_(False).eval().to(embeddings.device)
