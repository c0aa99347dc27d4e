"""What both sides of the PPO benchmark work on: a model's shape, prompts and responses, all from a seed.

The workload is that of FLAN-T5-base on DialogSum: prompts of 200 to 1000 characters, which are 50 to 250
tokens, and 100 to 400 new tokens, all divided by ``scale``. Token ids are random, which changes no speed.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass

__all__ = [
    "BATCH",
    "END_ID",
    "MINIBATCH",
    "OLD_LOGPROBS",
    "PAD_ID",
    "RANK",
    "SHAPE",
    "Workload",
    "read_arguments",
]

SEED = 0
BATCH, MINIBATCH = 16, 4
RANK = 32
PAD_ID, END_ID = 0, 1
VOCABULARY = 32128
SHAPE = {
    "vocab_size": VOCABULARY,
    "d_model": 768,
    "d_kv": 64,
    "d_ff": 2048,
    "num_heads": 12,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
    "dropout_rate": 0.0,
    "pad_token_id": PAD_ID,
    "eos_token_id": END_ID,
    "decoder_start_token_id": PAD_ID,
}
"""Arguments of transformers' T5Config but for the layers, of which FLAN-T5-base has 12."""
OLD_LOGPROBS = {"float32": "sampled", "bfloat16": "read"}
"""Where this project takes them from; sampling in bfloat16 is too far off."""
PROMPT_TOKENS, NEW_TOKENS = (50, 250), (100, 400)


@dataclass(frozen=True, slots=True)
class Workload:
    """Ids of the prompts and of a response to each, and what each response is worth.

    Generation draws as many tokens as each response here has. Log-probabilities from sampling are those of
    the drawn tokens, so this project learns from what it drew; trl learns from these, which are as long.
    """

    prompts: list[list[int]]
    responses: list[list[int]]
    scores: list[float]

    @classmethod
    def scaled(cls, scale: int) -> Workload:
        """The workload with lengths divided by ``scale``."""
        generator = random.Random(SEED)

        def texts(least: int, most: int) -> list[list[int]]:
            # Evenly spread lengths: a draw of 16 could be far from the mean.
            lengths = [(least + (most - least) * i // (BATCH - 1)) // scale for i in range(BATCH)]
            generator.shuffle(lengths)
            return [[generator.randrange(2, VOCABULARY) for _ in range(n)] for n in lengths]

        prompts, responses = texts(*PROMPT_TOKENS), texts(*NEW_TOKENS)
        return cls(prompts, responses, [generator.gauss(0.0, 1.0) for _ in range(BATCH)])

    @property
    def limits(self) -> list[int]:
        """Tokens of each response."""
        return [len(response) for response in self.responses]


def read_arguments() -> argparse.Namespace:
    """The arguments of a side: its model's and workload's, ``rows`` in memory at a time, trl's ``chunk``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--scale", type=int, required=True)
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--rows", type=int, default=MINIBATCH)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--old-logprobs", choices=("read", "sampled"), default="sampled")
    parser.add_argument("--chunk", type=int, default=BATCH)
    return parser.parse_args()
