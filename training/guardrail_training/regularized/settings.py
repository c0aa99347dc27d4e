"""What a regularized run depends on."""

from __future__ import annotations

from dataclasses import dataclass

from guardrail.errors import ConfigError
from guardrail_training import modeling
from guardrail_training.recipe import check_values

__all__ = ["RegularizedSettings"]

AT_LEAST_ONE = (
    "iterations",
    "steps",
    "batch_size",
    "statements",
    "window",
    "context",
    "max_tokens",
    "prompts",
    "first_prompts",
    "samples_per_prompt",
    "response_tokens",
    "microbatch_size",
    "candidates",
    "auxiliary_hidden",
    "auxiliary_rank",
    "auxiliary_steps",
    "first_auxiliary_steps",
    "auxiliary_batch",
    "known_rows",
    "samples_batch",
    "rank",
    "alpha",
    "keep_every",
)
POSITIVE = (
    "temperature",
    "strength",
    "most_log_ratio",
    "most_prefix_weight",
    "learning_rate",
    "auxiliary_learning_rate",
    "max_grad_norm",
)
NOT_NEGATIVE = (
    "corpus_weight",
    "samples_weight",
    "consistency",
    "prefix_weight",
    "auxiliary_blocks",
    "least_weight",
    "dual_ascent",
)
SHARES = (
    "guided_share",
    "success_from",
    "memory",
    "least_success",
    "least_auc",
    "toxic_target",
    "toxic_memory",
    "warmup",
)
CHOICES = {
    "method": ("regularized", "sft", "filtering", "decoding"),
    "schedule": ("sequential", "parallel"),
    "labels": ("soft", "hard"),
    "gate": ("none", "failure"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RegularizedSettings:
    """Everything a run depends on; a recipe is this as TOML.

    What it starts from and learns on. The mixture has a guided part, the domain in which the constraint is
    broken, and a general part:
    base, adapter        model folder or known name; adapter to start from, merged into the base
    pad_token            what to pad with where the tokenizer does not say
    data                 folder of the sources (None: GUARDRAIL_DATA)
    guided, field        file of guided texts below ``data``: JSON Lines, and the field that holds the text
    template             None: a guided text is a list of lines, its last ``statements`` are kept, the last is
                         learned, and new ones are drawn. A prompt with one ``{text}``: ``guided`` has pairs
                         ``toxic``, ``neutral``; the neutral sentence is learned and drawn
    general              plain text below ``data``, cut into windows of ``window`` tokens of which the first
                         ``context`` are only read; or JSON Lines with ``prompt`` and ``response``, of which
                         the response is learned; empty: no general part
    guided_share         the guided part of a batch
    max_tokens           a longer guided text is an error

    method               regularized; sft (the language-model loss alone); filtering (sft on guided texts that
                         the oracle calls a success); decoding (the auxiliary model alone, fitted to new
                         samples of the base in every iteration)
    schedule             sequential or parallel, see ``schedules``
    iterations, steps    how often samples, auxiliary model and language model follow each other, and how many
                         optimizer steps the language model takes each time, with ``batch_size`` corpus texts

    Samples and oracle:
    reward               formula (guardrail_training.rewards.formula) of a response; the oracle's opinion
    labels               soft: the reward itself, 0..1, is the probability of success; hard: 1 from
                         ``success_from`` on
    prompts, samples_per_prompt, response_tokens, temperature     what an iteration draws; the first draws for
                         ``first_prompts``
    least_weight, most_weight      bounds of importance weights
    memory               what samples count for the auxiliary model an iteration later, and so on; 0: it is
                         fitted to the last ones alone. Older ones are of an earlier language model

    Auxiliary model:
    candidates           next tokens told apart, the others are one bucket
    auxiliary_hidden, auxiliary_blocks, auxiliary_rank    its sizes, see ``auxiliary``
    auxiliary_steps, first_auxiliary_steps, auxiliary_batch
    consistency          weight of the forward-consistency term
    holds_expected       its mean is a constant
    known_texts, known_rows    files of texts (JSON Lines, field ``text``) about whose prefixes the oracle is
                         asked, too, and how many of these the first fit reads in all
    prefix_weight        of the oracle's opinion of each prefix, as if the response ended there. Few responses
                         have few labels, and this tells which token mattered; 0: the oracle is not asked
    balanced             draws rows by label, half of them successes, and corrects for it exactly
    least_auc            the auxiliary model must order held-out responses this well, or the run stops before
                         it teaches noise; 0: never

    Regularizer:
    corpus_weight, samples_weight     of KL(q || p) per token on corpus text and on drawn responses
    samples_batch        drawn responses in an optimizer step
    adaptive             the regularizer acts on the guided part alone; else on both parts of the corpus
    gate                 failure: a token's term counts 1 - R of its prefix; none: all count alike
    strength, most_log_ratio          q in proportion to p R**strength, no token's log-ratio beyond this
    most_prefix_weight   bound on R(prefix) / R(prompt)
    least_success        prefixes with a smaller R have no posterior
    dual_ascent          above 0 the weights grow while more than ``toxic_target`` of the samples fail and
                         shrink while fewer do, by this rate, at most to ``most_multiplier`` times and to its
                         inverse; ``toxic_memory`` is the decay of the running rate
    """

    base: str = "smollm2-135m-instruct"
    adapter: str | None = None
    pad_token: str = ""
    out: str = "runs/regularized"
    data: str | None = None
    name: str = "smollm2-regularized"
    guided: str = "toxigen_prompts/train.jsonl"
    field: str = "prompt"
    template: str | None = None
    general: str = "wikitext2/valid.txt"
    statements: int = 3
    window: int = 64
    context: int = 32
    guided_share: float = 0.5
    max_tokens: int = 256
    method: str = "regularized"
    schedule: str = "parallel"
    iterations: int = 10
    steps: int = 20
    batch_size: int = 16
    reward: str = "clean"
    labels: str = "soft"
    success_from: float = 0.5
    prompts: int = 32
    first_prompts: int = 64
    samples_per_prompt: int = 4
    response_tokens: int = 30
    temperature: float = 1.0
    least_weight: float = 0.2
    most_weight: float = 5.0
    memory: float = 0.0
    microbatch_size: int = 8
    candidates: int = 64
    auxiliary_hidden: int = 256
    auxiliary_blocks: int = 1
    auxiliary_rank: int = 32
    auxiliary_steps: int = 40
    first_auxiliary_steps: int = 200
    auxiliary_batch: int = 16
    auxiliary_learning_rate: float = 1e-3
    consistency: float = 1.0
    holds_expected: bool = False
    prefix_weight: float = 0.0
    known_texts: tuple[str, ...] = ()
    known_rows: int = 3000
    balanced: bool = True
    least_auc: float = 0.55
    corpus_weight: float = 1.0
    samples_weight: float = 1.0
    samples_batch: int = 8
    adaptive: bool = True
    gate: str = "none"
    strength: float = 1.0
    most_log_ratio: float = 5.0
    most_prefix_weight: float = 5.0
    least_success: float = 1e-3
    dual_ascent: float = 0.0
    toxic_target: float = 0.1
    toxic_memory: float = 0.5
    most_multiplier: float = 10.0
    learning_rate: float = 1e-4
    warmup: float = 0.05
    max_grad_norm: float = 1.0
    rank: int = 16
    alpha: int = 32
    targets: tuple[str, ...] = modeling.LINEAR_LAYERS
    dtype: str = "auto"
    seed: int = 0
    threads: int = 0
    keep_every: int = 5

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
        if self.context >= self.window:
            raise ConfigError(f"context {self.context} must be less than window {self.window}")
        if self.least_weight > self.most_weight:
            raise ConfigError(f"least_weight {self.least_weight} is more than most_weight {self.most_weight}")
        if self.most_multiplier < 1:
            raise ConfigError(f"most_multiplier must be at least 1, got {self.most_multiplier}")
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
        """Whether sampling, fitting and tuning run side by side: only where there is something to tune."""
        return self.schedule == "parallel" and self.tunes

    @property
    def all_steps(self) -> int:
        """Optimizer steps of the language model in the whole run."""
        return self.iterations * self.steps
