"""trl's side of the PPO benchmark, run by the Python of its own environment; ``benchmarks.ppo`` starts it.

trl is set up in its own favour: one base under policy and reference (its ``create_reference_model`` would
hold a second one), no dropout, no logging, and generation in chunks of responses of about equal length.
In bfloat16 it holds the base and computes in that, the adapter stays in float32: as this project does.
"""

from __future__ import annotations

import torch
from peft import LoraConfig, TaskType, get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration
from trl import AutoModelForSeq2SeqLMWithValueHead, PPOConfig, PPOTrainer

from benchmarks.ppo_workload import BATCH, END_ID, MINIBATCH, PAD_ID, RANK, SHAPE, Workload, read_arguments
from benchmarks.side import serve


def tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that knows what the trainer asks it for: what to pad with and what ends a text."""
    words = {"<pad>": PAD_ID, "</s>": END_ID, "<unk>": 2}
    plain = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


class TrlPpo:
    """A trainer and what it learns from; responses are drawn ``chunk`` at a time."""

    def __init__(self, workload: Workload, *, layers: int, rows: int, chunk: int, dtype: str) -> None:
        torch.manual_seed(0)
        base = T5ForConditionalGeneration(T5Config(**SHAPE, num_layers=layers)).to(getattr(torch, dtype))
        base.generation_config.eos_token_id = None  # responses of given lengths
        lora = LoraConfig(
            r=RANK,
            lora_alpha=RANK,
            lora_dropout=0.0,
            target_modules=["q", "v"],
            bias="none",
            task_type=TaskType.SEQ_2_SEQ_LM,
        )
        model = AutoModelForSeq2SeqLMWithValueHead.from_pretrained(
            get_peft_model(base, lora), summary_dropout_prob=0.0
        )
        config = PPOConfig(
            learning_rate=1.41e-5,
            batch_size=BATCH,
            mini_batch_size=rows,
            gradient_accumulation_steps=MINIBATCH // rows,
            ppo_epochs=1,
            seed=0,
            accelerator_kwargs={"mixed_precision": "bf16", "cpu": True} if dtype == "bfloat16" else {},
        )
        self._trainer = PPOTrainer(config, model, ref_model=None, tokenizer=tokenizer())
        self._workload, self._chunk = workload, chunk
        self._prompts = [torch.tensor(prompt) for prompt in workload.prompts]

    def generate(self) -> int:
        """Draws responses of the workload's lengths, a chunk's of its longest."""
        limits = self._workload.limits
        order = sorted(range(BATCH), key=limits.__getitem__)
        for start in range(0, BATCH, self._chunk):
            rows = order[start : start + self._chunk]
            self._trainer.generate(
                [self._prompts[row] for row in rows],
                batch_size=self._chunk,
                return_prompt=False,
                max_new_tokens=limits[rows[-1]],
                do_sample=True,
                top_k=0,
                top_p=1.0,
                pad_token_id=PAD_ID,
            )
        return sum(limits)

    def learn(self) -> int:
        """One step on the workload's responses."""
        self._trainer.step(
            self._prompts,
            # As trl's own generation returns them: the decoder's start token stands first.
            [torch.tensor([PAD_ID, *response]) for response in self._workload.responses],
            [torch.tensor(score) for score in self._workload.scores],
        )
        return sum(self._workload.limits)


def main() -> None:
    """Generates and learns when asked to."""
    arguments = read_arguments()
    training = TrlPpo(
        Workload.scaled(arguments.scale),
        layers=arguments.layers,
        rows=arguments.rows,
        chunk=arguments.chunk,
        dtype=arguments.dtype,
    )
    serve({"generate": training.generate, "learn": training.learn})


if __name__ == "__main__":
    main()
