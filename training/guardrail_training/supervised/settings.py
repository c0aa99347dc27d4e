"""What a supervised run depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from guardrail.errors import ConfigError
from guardrail_training.data import PARADETOX, SourceColumns
from guardrail_training.settings import ALL_LINEAR, DATA, MODEL, OUTPUT, STEPS, TrainingSettings, setting

__all__ = ["SftSettings"]

TEMPLATE = "<|im_start|>user\nDetoxify: {text}<|im_end|>\n<|im_start|>assistant\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class SftSettings(TrainingSettings):
    """Everything a run depends on; a recipe is this as TOML.

    One optimizer step sees ``batch_size`` examples, of which ``microbatch_size`` are in memory at a time; the
    gradient is the same. An adapter that is continued from keeps its rank, alpha and targets.
    """

    trainer: ClassVar[str] = "sft"

    out: str = setting("runs/sft", "Folder that receives the result.", group=OUTPUT, is_place=True)
    train: str = setting(
        "paradetox/train.jsonl", "File of rows below data: JSON Lines, CSV or TSV.", group=DATA
    )
    dev: str = setting(
        "paradetox/dev.jsonl",
        "Its like to measure on; empty: a part of the rows of train is held out.",
        group=DATA,
    )
    held_out: float = setting(0.05, "That part; 0.2 is a split of 80 to 20.", group=DATA, above=0, below=1)
    split: str = setting(
        "random",
        "Which rows are held out: drawn by the seed, or the last of the file, without shuffling.",
        group=DATA,
        choices=("random", "last"),
    )
    source: str = setting(PARADETOX.source, "Field with the text to rewrite.", group=DATA)
    target: str = setting(
        PARADETOX.target, "Field with its rewrite, or a list of which each pass draws one.", group=DATA
    )
    instruction: str = setting("", "Field that comes before the source; empty: none.", group=DATA)
    min_characters: int = setting(
        1, "Rows with a shorter source are left out.", group=DATA, min=0, formerly="least_characters"
    )
    max_characters: int = setting(
        100_000, "Rows with a longer source are left out.", group=DATA, min=1, formerly="most_characters"
    )
    keep_copies: bool = setting(
        False,
        "Keeps references that only copy their source: they teach to leave clean text alone.",
        group=DATA,
    )
    template: str = setting(TEMPLATE, "Prompt with one {text}; for T5 it ends with </s>.", group=DATA)
    max_tokens: int = setting(512, "A longer example is an error.", group=DATA, min=1)
    share: float = setting(1.0, "Part of the rows to train on.", group=DATA)
    streaming: bool = setting(
        False, "Leaves the rows on disk; the run is the same to the bit.", group=DATA, is_free=True
    )
    passes: int = setting(2, "Passes over the rows.", group=STEPS, min=1)
    max_steps: int | None = setting(None, "Steps after which the run ends.", group=STEPS, min=1)
    batch_size: int = setting(16, "Examples in an optimizer step.", group=STEPS, min=1)
    microbatch_size: int | None = setting(
        None, "Examples in memory at a time; else all of a step.", group=STEPS, min=1, is_free=True
    )
    tuning: str = setting(
        "lora",
        "An adapter, or every weight (saved at each evaluation).",
        group=MODEL,
        choices=("lora", "full"),
    )
    quantisation: str = setting(
        "none",
        "Bits of the frozen base: int8 is LLM.int8, nf4 is 4 bits with double quantisation.",
        group=MODEL,
        choices=("none", "int8", "nf4"),
    )
    rank: int = setting(16, "Rank of the adapter.", group=MODEL, min=1)
    alpha: int = setting(32, "The adapter's weights count alpha / rank.", group=MODEL, min=1)
    dropout: float = setting(
        0.0, "Of a new adapter; a base tuned in full has its own.", group=MODEL, min=0, below=1
    )
    targets: tuple[str, ...] = setting(
        ALL_LINEAR, "Names of layers that get an adapter; all-linear: all but the output.", group=MODEL
    )
    optimizer: str = setting(
        "adamw",
        "AdamW with its state in 32 or 8 bits; paged on a GPU alone.",
        group=STEPS,
        choices=("adamw", "adamw8bit", "paged_adamw8bit"),
    )
    learning_rate: float = setting(1e-3, "Peak of the learning rate.", group=STEPS, above=0)
    weight_decay: float = setting(0.0, "AdamW's decay.", group=STEPS, min=0, below=1)
    gradient_checkpointing: bool = setting(
        False, "Computes each layer again in the backward pass.", group=STEPS, is_free=True
    )
    evaluations_per_pass: int = setting(
        4, "How often a pass is measured and a model kept.", group=OUTPUT, min=1, is_free=True
    )

    def _check_together(self) -> None:
        if self.adapter is not None and self.dropout:
            raise ConfigError("dropout must be 0 when continuing from an existing adapter")
        if self.tuning != "full":
            return
        if self.quantisation != "none":
            raise ConfigError(
                f"quantisation = {self.quantisation!r} freezes the base: it goes with tuning = 'lora' alone"
            )
        if self.adapter is not None:
            raise ConfigError("adapter goes with tuning = 'lora'; export it merged and make that the base")
        if self.dropout:
            raise ConfigError("dropout is the adapter's; a base that is tuned in full has its own")

    @property
    def columns(self) -> SourceColumns:
        """The fields that hold source, references and instruction."""
        return SourceColumns(source=self.source, target=self.target, instruction=self.instruction)
