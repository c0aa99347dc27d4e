"""What a preference run depends on."""

from __future__ import annotations

from dataclasses import dataclass

from guardrail.errors import ConfigError
from guardrail_training.recipe import check_values

__all__ = ["METHODS", "PreferenceSettings"]

METHODS = ("dpo", "orpo")
AT_LEAST_ONE = (
    "sentences",
    "response_tokens",
    "sentences_at_once",
    "max_tokens",
    "passes",
    "batch_size",
    "checkpoint_every",
    "keep_every",
)
POSITIVE = ("temperature", "margin", "beta", "learning_rate", "max_grad_norm")


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceSettings:
    """Everything a run depends on; a recipe is this as TOML.

    What it starts from and learns on:
    base, adapter        model folder or known name; the adapter that is tuned (None: the shipped one)
    data                 folder with ``paradetox/train.jsonl`` (None: GUARDRAIL_DATA, else the hub)

    Candidates, ranked once and kept in ``<out>/pairs.jsonl``:
    sentences            how many rows are drawn; a ``pairs.jsonl`` of fewer or of more serves too
    candidates           responses sampled at ``temperature`` to each sentence, besides the greedy one;
                         0 needs ``references``
    references           whether the row's human references are candidates too
    reward               formula, see guardrail_training.rewards.formula
    margin               least difference in reward between best and worst for the two to make a pair
    response_tokens      a candidate that does not end within these is left out
    sentences_at_once    sentences in memory during sampling
    max_tokens           more tokens in a prompt and its response are an error

    method               dpo (towards the chosen, measured against the starting adapter) or orpo (odds of the
                         chosen over the rejected on top of its likelihood, no reference)
    beta                 dpo: inverse temperature of the implicit reward; orpo: weight of the odds ratio
    nll_weight           dpo alone: weight of the chosen response's mean negative log-likelihood per token
    batch_size           pairs in one optimizer step
    """

    base: str = "smollm2-135m-instruct"
    adapter: str | None = None
    out: str = "runs/preference"
    data: str | None = None
    name: str = "smollm2-preference"
    sentences: int = 2000
    candidates: int = 6
    temperature: float = 1.0
    references: bool = False
    reward: str = "clean * meaning * fluency - 0.5 * copy"
    margin: float = 0.1
    response_tokens: int = 64
    sentences_at_once: int = 16
    max_tokens: int = 512
    method: str = "dpo"
    beta: float = 0.1
    nll_weight: float = 0.0
    learning_rate: float = 5e-5
    warmup: float = 0.05
    max_grad_norm: float = 1.0
    passes: int = 2
    batch_size: int = 8
    dtype: str = "auto"
    seed: int = 0
    threads: int = 0
    checkpoint_every: int = 25
    keep_every: int = 50

    def __post_init__(self) -> None:
        check_values(
            self,
            at_least_one=AT_LEAST_ONE,
            positive=POSITIVE,
            not_negative=("nll_weight",),
            choices={"method": METHODS},
        )
        if self.nll_weight and self.method == "orpo":
            raise ConfigError("nll_weight belongs to dpo: orpo has the likelihood of the chosen in its loss")
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"warmup must be at least 0 and below 1, got {self.warmup}")
        if self.candidates < (0 if self.references else 1):
            raise ConfigError(
                f"candidates must be at least 1, or 0 with references = true, got {self.candidates}"
            )
