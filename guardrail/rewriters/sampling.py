"""How the next token is chosen: the likeliest, or a sample whose noise depends on nothing but its segment.

The noise of a sampled candidate is a hash of its prompt's seed, its number, the step and the token: not of
batch companions, padding, call order or a random state.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from guardrail.errors import ConfigError

__all__ = ["Decoding", "Prompt", "choose", "gumbel", "noise_key"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """How candidates are drawn and how much is computed at once.

    Args:
        temperature: Temperature of the sampled candidates of ``rewrite``; the first one is greedy.
        top_k: Number of likeliest tokens that are sampled from.
        top_p: Probability mass of the likeliest tokens that are sampled from, 0..1.
        length_ratio: A candidate ends within ``length_ratio * source tokens + spare_tokens``.
        spare_tokens: See ``length_ratio``.
        prompt_tokens: A longer prompt gets no candidates.
        rows: Maximum number of candidates in one forward pass.
        batch_tokens: Maximum number of tokens of the candidates in one forward pass.
    """

    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 0.95
    length_ratio: float = 1.5
    spare_tokens: int = 8
    prompt_tokens: int = 512
    rows: int = 64
    batch_tokens: int = 8192

    def __post_init__(self) -> None:
        for name in (
            "temperature",
            "top_k",
            "top_p",
            "length_ratio",
            "prompt_tokens",
            "rows",
            "batch_tokens",
        ):
            if getattr(self, name) <= 0:
                raise ConfigError(f"decoding {name} must be more than 0, got {getattr(self, name)!r}")


@dataclass(frozen=True, slots=True)
class Prompt:
    """Token ids to continue by at most ``limit`` tokens, with noise that depends on ``seed`` alone."""

    ids: tuple[int, ...]
    limit: int
    seed: bytes


def choose(
    logits: npt.NDArray[np.floating],
    tokens: npt.NDArray[np.int64],
    *,
    keys: npt.NDArray[np.uint64],
    steps: npt.NDArray[np.uint64],
    greedy: npt.NDArray[np.bool_],
    decoding: Decoding,
) -> npt.NDArray[np.int64]:
    """The next token of each row of ``tokens`` (rows, k), whose ``logits`` fall from left to right.

    The likeliest for greedy rows, a sample by the Gumbel-max trick for others, drawn from the smallest set of
    the first ``top_k`` that holds ``top_p`` of their probability (nucleus sampling,
    https://arxiv.org/abs/1904.09751).
    """
    scores = logits[:, : decoding.top_k].astype(np.float64) / decoding.temperature
    tokens = tokens[:, : decoding.top_k]
    probabilities = np.exp(scores - scores[:, :1])
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    outside = probabilities.cumsum(axis=1) - probabilities >= decoding.top_p
    noisy = np.where(outside, -np.inf, scores + gumbel(keys, steps, tokens.astype(np.uint64)))
    choice = noisy.argmax(axis=1)
    choice[greedy] = 0
    ids: npt.NDArray[np.int64] = tokens[np.arange(len(tokens)), choice]
    return ids


def gumbel(
    keys: npt.NDArray[np.uint64], steps: npt.NDArray[np.uint64], tokens: npt.NDArray[np.uint64]
) -> npt.NDArray[np.float64]:
    """Standard Gumbel noise, shape (rows, k), a pure function of key and step (rows,) and token (rows, k)."""
    mixed = _splitmix(_splitmix(keys + steps * _GOLDEN)[:, None] + tokens * _GOLDEN)
    uniform = ((mixed >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53  # strictly between 0 and 1
    return -np.log(-np.log(uniform))


def _splitmix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014); wraps around at 64 bits."""
    values = values + _GOLDEN
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def noise_key(seed: bytes, candidate: int) -> np.uint64:
    """What the noise of one candidate of one prompt starts from."""
    digest = hashlib.sha256(candidate.to_bytes(4, "big") + seed).digest()
    return np.uint64(int.from_bytes(digest[:8], "big"))
