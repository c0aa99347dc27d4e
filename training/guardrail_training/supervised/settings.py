"""What a supervised run depends on."""

from __future__ import annotations

from dataclasses import dataclass

from guardrail.errors import ConfigError
from guardrail_training import modeling
from guardrail_training.data import PARADETOX, Columns
from guardrail_training.recipe import check_values

__all__ = ["SftSettings"]

TEMPLATE = "<|im_start|>user\nDetoxify: {text}<|im_end|>\n<|im_start|>assistant\n"
AT_LEAST_ONE = (
    "passes",
    "batch_size",
    "microbatch_size",
    "max_steps",
    "rank",
    "alpha",
    "max_tokens",
    "most_characters",
    "checkpoint_every",
    "evaluations_per_pass",
)
CHOICES = {
    "tuning": ("lora", "full"),
    "quantisation": ("none", "int8", "nf4"),
    "optimizer": ("adamw", "adamw8bit", "paged_adamw8bit"),
    "device": ("auto", "cpu", "cuda"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SftSettings:
    """Everything a run depends on; a recipe is this as TOML.

    What it starts from and learns on:
    base                 name that ``guardrail models`` knows, or folder with config.json, safetensors and
                         tokenizer; causal or encoder-decoder
    adapter              adapter for this base to go on from; its rank, alpha and targets are the run's
    data, train, dev     files below ``data`` (None: GUARDRAIL_DATA, else ParaDetox from the hub): JSON Lines,
                         CSV or TSV; without ``dev`` a twentieth of the training rows is held out
    source, target       fields of a row: a text, and a text or a list of texts of which each pass draws one
    instruction          field that comes before the source; empty: none
    least_characters, most_characters     rows with a source outside are left out
    keep_copies          keeps references that only copy their source: they teach to leave clean text alone
    template             prompt with one ``{text}``; for T5 it ends with ``</s>``
    pad_token            what to pad with where the tokenizer does not say
    max_tokens           a longer example is an error
    share                part of the rows to train on
    streaming            leaves the rows on disk; the run is the same to the bit

    One optimizer step sees ``batch_size`` examples, of which ``microbatch_size`` are in memory at a time
    (None: all); the gradient is the same. ``max_steps`` ends the run before its last pass does.

    tuning               lora, or full: every weight is trained, and saved at each evaluation
    quantisation         none, int8 (LLM.int8) or nf4 (4 bits, double quantisation) for the frozen base
    optimizer            adamw, adamw8bit or paged_adamw8bit (paged on a GPU alone)
    gradient_checkpointing   computes each layer again in the backward pass instead of keeping it
    dropout              of the adapter; a base under LoRA has none, one that is tuned in full has its own
    warmup               part of all steps over which the learning rate rises
    dtype, device        auto, float32 or bfloat16; auto, cpu or cuda
    threads              0 leaves torch's own choice
    """

    base: str = "smollm2-135m-instruct"
    adapter: str | None = None
    out: str = "runs/sft"
    data: str | None = None
    name: str = "smollm2-paradetox"
    train: str = "paradetox/train.jsonl"
    dev: str = "paradetox/dev.jsonl"
    source: str = PARADETOX.source
    target: str = PARADETOX.target
    instruction: str = ""
    least_characters: int = 1
    most_characters: int = 100_000
    keep_copies: bool = False
    template: str = TEMPLATE
    pad_token: str = ""
    max_tokens: int = 512
    share: float = 1.0
    streaming: bool = False
    passes: int = 2
    max_steps: int | None = None
    batch_size: int = 16
    microbatch_size: int | None = None
    tuning: str = "lora"
    quantisation: str = "none"
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: tuple[str, ...] = modeling.LINEAR_LAYERS
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    warmup: float = 0.05
    max_grad_norm: float = 1.0
    gradient_checkpointing: bool = False
    dtype: str = "auto"
    device: str = "auto"
    seed: int = 0
    threads: int = 0
    checkpoint_every: int = 100
    evaluations_per_pass: int = 4

    def __post_init__(self) -> None:
        check_values(
            self, at_least_one=AT_LEAST_ONE, positive=("learning_rate", "max_grad_norm"), choices=CHOICES
        )
        for key in ("warmup", "dropout", "weight_decay"):
            if not 0 <= getattr(self, key) < 1:
                raise ConfigError(f"{key} must be at least 0 and below 1, got {getattr(self, key)}")
        self._check_together()

    def _check_together(self) -> None:
        if self.adapter is not None and self.dropout:
            raise ConfigError("dropout is for a new adapter: one that is gone on from has none")
        if self.tuning == "full":
            self._check_full()

    def _check_full(self) -> None:
        if self.quantisation != "none":
            raise ConfigError(
                f"quantisation = {self.quantisation!r} freezes the base: it goes with tuning = 'lora' alone"
            )
        if self.adapter is not None:
            raise ConfigError("adapter goes with tuning = 'lora'; export it merged and make that the base")
        if self.dropout:
            raise ConfigError("dropout is the adapter's; a base that is tuned in full has its own")

    @property
    def columns(self) -> Columns:
        """The fields that hold source, references and instruction."""
        return Columns(source=self.source, target=self.target, instruction=self.instruction)
