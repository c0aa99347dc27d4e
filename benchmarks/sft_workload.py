"""What both sides of the SFT benchmark train on: pairs as long as ParaDetox's, a base and its adapter."""

from __future__ import annotations

import argparse
import random
from typing import Any

import torch

from guardrail_training import modeling
from guardrail_training.data import SourceRow
from guardrail_training.provenance import model_folder
from guardrail_training.supervised.settings import SftSettings

__all__ = ["SETTINGS", "model_and_tokenizer", "read_arguments", "rows"]

SETTINGS = SftSettings(batch_size=16)
WORDS = [
    "the",
    "of",
    "and",
    "a",
    "to",
    "in",
    "is",
    "you",
    "that",
    "it",
    "he",
    "was",
    "for",
    "on",
    "are",
    "as",
]


def rows(batches: int) -> list[SourceRow]:
    """So many batches of pairs: sources of 3 to 25 words, 12 on average, and targets a little shorter."""
    generator = random.Random(SETTINGS.seed)
    made = []
    for number in range(1, batches * SETTINGS.batch_size + 1):
        count = round(generator.triangular(3, 25, 8))
        source = generator.choices(WORDS, k=count)
        target = " ".join(word for word in source if generator.random() < 0.85) or source[0]
        made.append(SourceRow(number, " ".join(source), (target,)))
    return made


def model_and_tokenizer(dtype: str) -> tuple[Any, Any]:
    """SmolLM2-135M-Instruct with a fresh adapter on every linear layer, and its tokenizer."""
    base = model_folder(SETTINGS.base)
    torch.manual_seed(SETTINGS.seed)
    adapted = modeling.add_lora(
        modeling.load_base(base, dtype=modeling.resolve_dtype(dtype)),
        rank=SETTINGS.rank,
        alpha=SETTINGS.alpha,
        dropout=0.0,
        targets=SETTINGS.targets,
    )
    return adapted, modeling.load_ending_tokenizer(base)


def read_arguments() -> argparse.Namespace:
    """The arguments of a side: ``dtype`` and ``batches``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--batches", type=int, required=True)
    return parser.parse_args()
