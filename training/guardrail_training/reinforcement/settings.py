"""What a reinforcement run depends on."""

from __future__ import annotations

from dataclasses import dataclass

from guardrail.errors import ConfigError
from guardrail_training import modeling
from guardrail_training.recipe import check_values

__all__ = ["PpoSettings"]

AT_LEAST_ONE = (
    "steps",
    "batch_size",
    "samples_per_prompt",
    "minibatch_size",
    "microbatch_size",
    "epochs",
    "response_tokens",
    "shortest_limit",
    "max_prompt_tokens",
    "rank",
    "alpha",
    "kl_horizon",
    "checkpoint_every",
    "keep_every",
)
POSITIVE = ("learning_rate", "value_learning_rate", "temperature", "clip", "value_clip", "divergence_kl")
NOT_NEGATIVE = ("kl_coefficient", "value_coefficient", "missing_eos_penalty", "target_kl", "max_grad_norm")
SHARES = ("gamma", "gae_lambda", "warmup")
CHOICES = {
    "estimator": ("ppo", "rloo", "grpo"),
    "kl_control": ("adaptive", "fixed"),
    "kl_estimator": ("k1", "k3"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PpoSettings:
    """Everything a run depends on; a recipe is this as TOML.

    What it starts from and learns on:
    base, adapter        model folder or known name; SFT adapter to start from, which is the reference then
    data, prompts, field file ``prompts`` below ``data`` (None: GUARDRAIL_DATA), its field that is asked about
    template             prompt with one ``{text}``; None takes the adapter's; for T5 it ends with ``</s>``
    least_characters, most_characters     texts outside are left out
    max_prompt_tokens    a longer prompt is an error
    reward               formula, see guardrail_training.rewards.formula

    One step draws ``samples_per_prompt`` responses to each of ``batch_size`` prompts and goes over them
    ``epochs`` times, with an optimizer step per ``minibatch_size`` responses, of which ``microbatch_size``
    are in memory at a time. A response has at most ``response_tokens`` tokens; with a lower
    ``shortest_limit`` each response's limit is drawn between the two.

    gradient_checkpointing   computes each layer again in an update's backward pass instead of keeping it
    estimator            ppo (value function, GAE), rloo or grpo (other responses to the prompt as baseline)
    kl_control           adaptive steers to ``kl_target`` nats per response over ``kl_horizon`` responses
    kl_estimator         k1 or k3, see ``advantages.token_kl``
    target_kl            more than 1.5 times this between old and new policy ends a step's updates; 0: never
    divergence_kl        nats per response from the reference at which the run gives up
    missing_eos_penalty  taken from the score of a response that reaches its limit
    whiten_rewards       scales token rewards to variance 1, their mean kept
    gamma, gae_lambda    discount and decay of GAE
    decays               whether the learning rate falls to 0 as a half cosine; else it stays after ``warmup``
    """

    base: str = "smollm2-135m-instruct"
    adapter: str | None = None
    out: str = "runs/ppo"
    data: str | None = None
    name: str = "smollm2-ppo"
    prompts: str = "paradetox/train.jsonl"
    field: str = "toxic"
    template: str | None = None
    least_characters: int = 1
    most_characters: int = 4000
    max_prompt_tokens: int = 512
    reward: str = "clean * meaning * fluency - 0.5 * copy"
    estimator: str = "ppo"
    steps: int = 100
    batch_size: int = 16
    samples_per_prompt: int = 1
    minibatch_size: int = 16
    microbatch_size: int = 8
    gradient_checkpointing: bool = False
    epochs: int = 4
    response_tokens: int = 48
    shortest_limit: int | None = None
    temperature: float = 1.0
    missing_eos_penalty: float = 1.0
    whiten_rewards: bool = False
    kl_control: str = "adaptive"
    kl_estimator: str = "k1"
    kl_coefficient: float = 0.2
    kl_target: float = 6.0
    kl_horizon: int = 10_000
    target_kl: float = 0.1
    divergence_kl: float = 100.0
    gamma: float = 1.0
    gae_lambda: float = 0.95
    clip: float = 0.2
    value_clip: float = 0.2
    value_coefficient: float = 0.1
    learning_rate: float = 1.41e-5
    value_learning_rate: float = 1e-3
    warmup: float = 0.05
    decays: bool = True
    max_grad_norm: float = 1.0
    rank: int = 16
    alpha: int = 32
    targets: tuple[str, ...] = modeling.LINEAR_LAYERS
    dtype: str = "auto"
    seed: int = 0
    threads: int = 0
    checkpoint_every: int = 10
    keep_every: int = 25

    def __post_init__(self) -> None:
        check_values(
            self,
            at_least_one=AT_LEAST_ONE,
            positive=POSITIVE,
            not_negative=NOT_NEGATIVE,
            shares=SHARES,
            choices=CHOICES,
        )
        self._check_sizes()

    def _check_sizes(self) -> None:
        if self.estimator != "ppo" and self.samples_per_prompt < 2:
            raise ConfigError(
                f"{self.estimator} compares responses to one prompt: samples_per_prompt must be at least 2"
            )
        if self.minibatch_size > self.rows:
            raise ConfigError(
                f"minibatch_size {self.minibatch_size} is more than the {self.rows} responses of a step"
            )
        if self.shortest_limit is not None and self.shortest_limit > self.response_tokens:
            raise ConfigError(
                f"shortest_limit {self.shortest_limit} is more than response_tokens {self.response_tokens}"
            )
        if self.kl_control == "adaptive" and self.kl_target <= 0:
            raise ConfigError(f"kl_target must be positive, got {self.kl_target}")
        if self.whiten_rewards and self.rows < 8:
            raise ConfigError(f"whiten_rewards needs at least 8 responses in a step, got {self.rows}")

    @property
    def rows(self) -> int:
        """How many responses a step draws."""
        return self.batch_size * self.samples_per_prompt
