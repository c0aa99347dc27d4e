"""The other side of the SFT benchmark: transformers' Trainer as it comes, batches padded to their longest."""

from __future__ import annotations

import tempfile
from typing import Any

from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

from benchmarks.sft_workload import SETTINGS, model_and_tokenizer, read_arguments, rows
from benchmarks.side import serve
from guardrail.manifest import Template
from guardrail_training.modeling import encode_example
from guardrail_training.modeling.losses import IGNORED


class TrainerSft:
    """A model, and the rows as examples that are encoded before the clock runs."""

    def __init__(self, *, dtype: str, batches: int) -> None:
        self._model, self._tokenizer = model_and_tokenizer(dtype)
        self._is_bfloat16 = dtype == "bfloat16"
        self._examples = [self._example(row.source, row.references[0]) for row in rows(batches)]

    def _example(self, source: str, target: str) -> dict[str, list[int]]:
        pair = encode_example(self._tokenizer, Template(SETTINGS.template), source=source, target=target)
        ids = [*pair.prompt, *pair.target]
        labels = [IGNORED] * len(pair.prompt) + list(pair.target)
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels}

    def train(self) -> int:
        """One pass; how many tokens it read, without padding."""
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                num_train_epochs=1,
                per_device_train_batch_size=SETTINGS.batch_size,
                learning_rate=SETTINGS.learning_rate,
                bf16=self._is_bfloat16,
                use_cpu=True,
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                seed=SETTINGS.seed,
            )
            collator: Any = DataCollatorForSeq2Seq(self._tokenizer, padding=True, label_pad_token_id=IGNORED)
            examples: Any = self._examples
            Trainer(model=self._model, args=arguments, train_dataset=examples, data_collator=collator).train()
        return sum(len(example["input_ids"]) for example in self._examples)


def main() -> None:
    """Trains a pass when asked to."""
    arguments = read_arguments()
    serve({"train": TrainerSft(dtype=arguments.dtype, batches=arguments.batches).train})


if __name__ == "__main__":
    main()
