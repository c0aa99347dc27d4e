"""What a regularized run depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from guardrail.errors import ConfigError
from guardrail_training.settings import ALL_LINEAR, DATA, MODEL, OUTPUT, STEPS, TrainingSettings, setting

__all__ = ["RegularizedSettings"]

ORACLE, AUXILIARY, REGULARIZER = "Samples and oracle", "Auxiliary model", "Regularizer"


@dataclass(frozen=True, slots=True, kw_only=True)
class RegularizedSettings(TrainingSettings):
    """Everything a run depends on; a recipe is this as TOML.

    The mixture has a guided part, the domain in which the constraint is broken, and a general part. Without a
    ``template`` a guided text is a list of lines: its last ``statements`` are kept, the last is learned, new
    ones are drawn. With one, ``guided`` has pairs ``toxic``, ``neutral``; the neutral sentence is learned and
    drawn. ``general`` is plain text, cut into windows, or JSON Lines with ``prompt`` and ``response``.
    """

    trainer: ClassVar[str] = "regularized"

    adapter: str | None = setting(
        None, "Folder of an adapter to start from, merged into the base.", group=MODEL, is_place=True
    )
    out: str = setting("runs/regularized", "Folder that receives the result.", group=OUTPUT, is_place=True)
    guided: str = setting("toxigen_prompts/train.jsonl", "File of guided texts below data.", group=DATA)
    field: str = setting("prompt", "Its field that holds the text.", group=DATA)
    template: str | None = setting(None, "Prompt with one {text}; else guided texts are lists.", group=DATA)
    general: str = setting("wikitext2/valid.txt", "File of the general part; empty: none.", group=DATA)
    statements: int = setting(3, "Lines that are kept of a list.", group=DATA, min=1)
    window: int = setting(64, "Tokens in a window of plain text.", group=DATA, min=1)
    context: int = setting(32, "The first of them, which are only read.", group=DATA, min=1)
    guided_share: float = setting(0.5, "The guided part of a batch.", group=DATA, min=0, max=1)
    max_tokens: int = setting(256, "A longer guided text is an error.", group=DATA, min=1)
    method: str = setting(
        "regularized",
        "sft: the language-model loss alone; filtering: that on what the oracle lets through; decoding: the "
        "auxiliary model alone.",
        group=STEPS,
        choices=("regularized", "sft", "filtering", "decoding"),
    )
    schedule: str = setting("parallel", "See Schedule.", group=STEPS, choices=("sequential", "parallel"))
    iterations: int = setting(
        10, "How often samples, auxiliary and language model follow each other.", group=STEPS, min=1
    )
    steps: int = setting(20, "Optimizer steps of the language model in each.", group=STEPS, min=1)
    batch_size: int = setting(16, "Corpus texts in a step.", group=STEPS, min=1)
    reward: str = setting("clean", "Formula of rewards.formula: gives the oracle's labels.", group=ORACLE)
    labels: str = setting(
        "soft",
        "soft: the reward is the probability of success; hard: 1 from success_from on.",
        group=ORACLE,
        choices=("soft", "hard"),
    )
    success_from: float = setting(
        0.5, "Reward from which a response is a success.", group=ORACLE, min=0, max=1
    )
    prompts: int = setting(32, "Prompts that an iteration draws for.", group=ORACLE, min=1)
    first_prompts: int = setting(64, "Prompts that the first draws for.", group=ORACLE, min=1)
    samples_per_prompt: int = setting(4, "Responses to each prompt.", group=ORACLE, min=1)
    response_tokens: int = setting(30, "Tokens of a response at most.", group=ORACLE, min=1)
    temperature: float = setting(1.0, "At which responses are drawn.", group=ORACLE, above=0)
    min_weight: float = setting(
        0.2, "Lower bound of importance weights.", group=ORACLE, min=0, formerly="least_weight"
    )
    max_weight: float = setting(
        5.0, "Upper bound of importance weights.", group=ORACLE, formerly="most_weight"
    )
    memory: float = setting(
        0.0,
        "What samples count for the auxiliary model an iteration later; 0: the last ones alone.",
        group=ORACLE,
        min=0,
        max=1,
    )
    microbatch_size: int = setting(8, "Rows in memory at a time.", group=STEPS, min=1, is_free=True)
    candidates: int = setting(
        64, "Next tokens told apart; the others are one bucket.", group=AUXILIARY, min=1
    )
    auxiliary_hidden: int = setting(256, "Width.", group=AUXILIARY, min=1)
    auxiliary_blocks: int = setting(1, "Transformer blocks.", group=AUXILIARY, min=0)
    auxiliary_rank: int = setting(32, "Rank of its token directions.", group=AUXILIARY, min=1)
    auxiliary_steps: int = setting(40, "Optimizer steps in an iteration.", group=AUXILIARY, min=1)
    first_auxiliary_steps: int = setting(200, "Optimizer steps before the first.", group=AUXILIARY, min=1)
    auxiliary_batch: int = setting(16, "Responses in a step.", group=AUXILIARY, min=1)
    auxiliary_learning_rate: float = setting(1e-3, "Its learning rate.", group=AUXILIARY, above=0)
    consistency: float = setting(1.0, "Weight of the forward-consistency term.", group=AUXILIARY, min=0)
    holds_expected: bool = setting(False, "Whether its mean is a constant.", group=AUXILIARY)
    prefix_weight: float = setting(
        0.0,
        "Weight of the oracle's label of each prefix, as if the response ended there; 0: it is not asked.",
        group=AUXILIARY,
        min=0,
    )
    known_texts: tuple[str, ...] = setting(
        (), "Files below data (field text) about whose prefixes it is asked too.", group=AUXILIARY
    )
    known_rows: int = setting(3000, "How many of these texts the first fit reads.", group=AUXILIARY, min=1)
    balanced: bool = setting(
        True, "Draws rows by label, half successes, and corrects for it exactly.", group=AUXILIARY
    )
    min_auc: float = setting(
        0.55,
        "Below this on held-out responses the run stops before it teaches noise; 0: never.",
        group=AUXILIARY,
        min=0,
        max=1,
        formerly="least_auc",
    )
    corpus_weight: float = setting(1.0, "Of KL(q || p) per token on corpus text.", group=REGULARIZER, min=0)
    samples_weight: float = setting(
        1.0, "Of KL(q || p) per token on drawn responses.", group=REGULARIZER, min=0
    )
    samples_batch: int = setting(8, "Drawn responses in a step.", group=REGULARIZER, min=1)
    adaptive: bool = setting(True, "Whether it acts on the guided part alone.", group=REGULARIZER)
    gate: str = setting(
        "none", "failure: a token's term counts 1 - R.", group=REGULARIZER, choices=("none", "failure")
    )
    strength: float = setting(1.0, "Power of R in the posterior.", group=REGULARIZER, above=0)
    max_log_ratio: float = setting(
        5.0, "Bound on a token's log-ratio.", group=REGULARIZER, above=0, formerly="most_log_ratio"
    )
    max_prefix_weight: float = setting(
        5.0, "Bound on R(prefix) / R(prompt).", group=REGULARIZER, above=0, formerly="most_prefix_weight"
    )
    min_success: float = setting(
        1e-3,
        "Prefixes with a smaller R have no posterior.",
        group=REGULARIZER,
        min=0,
        max=1,
        formerly="least_success",
    )
    dual_ascent: float = setting(
        0.0, "Rate at which the weights follow the share of failures; 0: not.", group=REGULARIZER, min=0
    )
    toxic_target: float = setting(0.1, "Share of failures they steer to.", group=REGULARIZER, min=0, max=1)
    toxic_memory: float = setting(0.5, "Decay of the running share.", group=REGULARIZER, min=0, max=1)
    max_multiplier: float = setting(
        10.0,
        "Bound on their factor, and on its inverse.",
        group=REGULARIZER,
        min=1,
        formerly="most_multiplier",
    )
    warmup: float = setting(
        0.05, "Part of all steps over which the learning rate rises.", group=STEPS, min=0, max=1
    )
    rank: int = setting(16, "Rank of the adapter.", group=MODEL, min=1)
    alpha: int = setting(32, "The adapter's weights count alpha / rank.", group=MODEL, min=1)
    targets: tuple[str, ...] = setting(
        ALL_LINEAR, "Names of layers that get an adapter; all-linear: all but the output.", group=MODEL
    )
    checkpoint_every: int = setting(
        1,
        "Iterations between states that an interrupted run continues from.",
        group=OUTPUT,
        min=1,
        is_free=True,
    )
    keep_every: int = setting(5, "Iterations between kept models.", group=OUTPUT, min=1, is_free=True)

    def _check_together(self) -> None:
        if self.context >= self.window:
            raise ConfigError(f"context {self.context} must be less than window {self.window}")
        if self.min_weight > self.max_weight:
            raise ConfigError(f"min_weight {self.min_weight} is more than max_weight {self.max_weight}")
        if self.known_texts and not self.prefix_weight:
            raise ConfigError("known_texts teach prefixes alone: set prefix_weight above 0")
        if not self.guided_rows or (self.general and self.guided_rows == self.batch_size):
            raise ConfigError(
                f"guided_share {self.guided_share} of batch_size {self.batch_size} leaves one part empty; "
                "without a general part set general to an empty text"
            )

    @property
    def guided_rows(self) -> int:
        """How many texts of a batch are of the guided part."""
        return round(self.guided_share * self.batch_size) if self.general else self.batch_size

    @property
    def draws(self) -> bool:
        """Whether the method needs samples and an auxiliary model."""
        return self.method in ("regularized", "decoding")

    @property
    def tunes(self) -> bool:
        """Whether the method changes the language model."""
        return self.method != "decoding"

    @property
    def overlaps(self) -> bool:
        """Whether sampling, fitting and tuning run side by side: only if there is something to tune."""
        return self.schedule == "parallel" and self.tunes

    @property
    def all_steps(self) -> int:
        """Optimizer steps of the language model in the whole run."""
        return self.iterations * self.steps
