"""What a reinforcement run depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from guardrail.errors import ConfigError
from guardrail_training.settings import ALL_LINEAR, DATA, MODEL, OUTPUT, STEPS, TrainingSettings, setting

__all__ = ["PpoSettings"]

RESPONSES, REWARDS = "Responses", "Reward, KL and advantages"


@dataclass(frozen=True, slots=True, kw_only=True)
class PpoSettings(TrainingSettings):
    """Everything a run depends on; a recipe is this as TOML.

    One step draws ``samples_per_prompt`` responses to each of ``batch_size`` prompts and goes over them
    ``epochs`` times, with an optimizer step per ``minibatch_size`` responses, of which ``microbatch_size``
    are in memory at a time. The adapter that it starts from is the reference.
    """

    trainer: ClassVar[str] = "ppo"

    out: str = setting("runs/ppo", "Folder that receives the result.", group=OUTPUT, is_place=True)
    prompts: str = setting(
        "paradetox/train.jsonl", "JSON Lines below data with texts to ask about.", group=DATA
    )
    field: str = setting("toxic", "Its field that holds the text.", group=DATA)
    template: str | None = setting(
        None, "Prompt with one {text}, for T5 ending with </s>; else the adapter's.", group=DATA
    )
    min_characters: int = setting(
        1, "Shorter texts are left out.", group=DATA, min=0, formerly="least_characters"
    )
    max_characters: int = setting(
        4000, "Longer texts are left out.", group=DATA, min=0, formerly="most_characters"
    )
    max_prompt_tokens: int = setting(512, "A longer prompt is an error.", group=DATA, min=1)
    reward: str = setting(
        "clean * meaning * fluency - 0.5 * copy", "Formula of rewards.formula.", group=REWARDS
    )
    estimator: str = setting(
        "ppo",
        "Baseline: a value function and GAE (ppo), or other responses to the prompt.",
        group=REWARDS,
        choices=("ppo", "rloo", "grpo"),
    )
    steps: int = setting(100, "Rollouts, each with its updates.", group=STEPS, min=1)
    batch_size: int = setting(16, "Prompts in a step.", group=STEPS, min=1)
    samples_per_prompt: int = setting(1, "Responses to each prompt.", group=RESPONSES, min=1)
    minibatch_size: int = setting(16, "Responses in an optimizer step.", group=STEPS, min=1)
    microbatch_size: int = setting(8, "Responses in memory at a time.", group=STEPS, min=1)
    gradient_checkpointing: bool = setting(
        False, "Computes each layer again in an update's backward pass.", group=STEPS, is_free=True
    )
    epochs: int = setting(4, "How often a step's responses are gone over.", group=STEPS, min=1)
    response_tokens: int = setting(48, "Tokens of a response at most.", group=RESPONSES, min=1)
    min_limit: int | None = setting(
        None,
        "If given, each response's limit is drawn between this and response_tokens.",
        group=RESPONSES,
        min=1,
        formerly="shortest_limit",
    )
    min_response_tokens: int = setting(
        0,
        "A response cannot end before so many; what is scored stays the model's own probability.",
        group=RESPONSES,
        min=0,
    )
    keeps_special_tokens: bool = setting(
        False, "Rewards read responses with their special tokens, such as </s>.", group=RESPONSES
    )
    old_logprobs: str = setting(
        "read",
        "Old log-probabilities and values: read by another pass, or sampled, which saves it. Every step "
        "reads one response both ways, and all of them where a ratio is not 1 within 0.001.",
        group=RESPONSES,
        choices=("read", "sampled"),
    )
    temperature: float = setting(1.0, "At which responses are drawn and scored.", group=RESPONSES, above=0)
    missing_eos_penalty: float = setting(
        1.0, "Taken from the score of a response that reaches its limit.", group=REWARDS, min=0
    )
    whiten_rewards: bool = setting(
        False, "Scales token rewards to variance 1, their mean kept.", group=REWARDS
    )
    kl_control: str = setting(
        "adaptive",
        "adaptive steers to kl_target over kl_horizon responses.",
        group=REWARDS,
        choices=("adaptive", "fixed"),
    )
    kl_estimator: str = setting(
        "k1", "Of a token's KL; see advantages.token_kl.", group=REWARDS, choices=("k1", "k3")
    )
    kl_coefficient: float = setting(0.2, "Weight of the KL penalty, at first.", group=REWARDS, min=0)
    kl_target: float = setting(6.0, "Nats per response that adaptive control steers to.", group=REWARDS)
    kl_horizon: int = setting(10_000, "Responses in which it may change by a fifth.", group=REWARDS, min=1)
    target_kl: float = setting(
        0.1,
        "More than 1.5 times this between old and new policy ends a step's updates; 0: never.",
        group=STEPS,
        min=0,
    )
    divergence_kl: float = setting(
        100.0, "Nats per response from the reference at which the run gives up.", group=REWARDS, above=0
    )
    gamma: float = setting(1.0, "Discount of GAE.", group=REWARDS, min=0, max=1)
    gae_lambda: float = setting(0.95, "Decay of GAE.", group=REWARDS, min=0, max=1)
    clip: float = setting(0.2, "How far a probability ratio may move.", group=STEPS, above=0)
    value_clip: float = setting(0.2, "How far a value may move.", group=STEPS, above=0)
    value_coefficient: float = setting(0.1, "Weight of the value function's loss.", group=STEPS, min=0)
    learning_rate: float = setting(1.41e-5, "Peak of the learning rate.", group=STEPS, above=0)
    value_learning_rate: float = setting(1e-3, "Of the value head.", group=STEPS, above=0)
    warmup: float = setting(
        0.05, "Part of all steps over which the learning rate rises.", group=STEPS, min=0, max=1
    )
    decays: bool = setting(
        True, "Whether the rate falls to 0 as a half cosine; else it stays after warmup.", group=STEPS
    )
    max_grad_norm: float = setting(1.0, "Norm that gradients are clipped to; 0: not.", group=STEPS, min=0)
    rank: int = setting(16, "Rank of the adapter.", group=MODEL, min=1)
    alpha: int = setting(32, "The adapter's weights count alpha / rank.", group=MODEL, min=1)
    targets: tuple[str, ...] = setting(
        ALL_LINEAR, "Names of layers that get an adapter; all-linear: all but the output.", group=MODEL
    )
    checkpoint_every: int = setting(
        10, "Steps between states that an interrupted run continues from.", group=OUTPUT, min=1, is_free=True
    )
    keep_every: int = setting(25, "Steps between kept adapters.", group=OUTPUT, min=1, is_free=True)

    def _check_together(self) -> None:
        if self.estimator != "ppo" and self.samples_per_prompt < 2:
            raise ConfigError(
                f"{self.estimator} compares responses to one prompt: samples_per_prompt must be at least 2"
            )
        if self.minibatch_size > self.rows:
            raise ConfigError(
                f"minibatch_size {self.minibatch_size} is more than the {self.rows} responses of a step"
            )
        if self.min_limit is not None and self.min_limit > self.response_tokens:
            raise ConfigError(
                f"min_limit {self.min_limit} is more than response_tokens {self.response_tokens}"
            )
        shortest = self.response_tokens if self.min_limit is None else self.min_limit
        if self.min_response_tokens > shortest:
            raise ConfigError(
                f"min_response_tokens {self.min_response_tokens} is more than a response's shortest limit, "
                f"{shortest}"
            )
        if self.kl_control == "adaptive" and self.kl_target <= 0:
            raise ConfigError(f"kl_target must be above 0, got {self.kl_target}")
        if self.whiten_rewards and self.rows < 8:
            raise ConfigError(f"whiten_rewards needs at least 8 responses in a step, got {self.rows}")

    @property
    def rows(self) -> int:
        """How many responses a step draws."""
        return self.batch_size * self.samples_per_prompt
