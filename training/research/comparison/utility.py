"""What a language model is still good for: commonsense (PIQA) and plain text (WikiText)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from guardrail_training.metrics.statistics import Mean, Rate, bootstrap_mean, wilson_rate
from guardrail_training.records import read_records
from research.comparison.subject import ComparedModel

__all__ = ["PiqaAccuracy", "choices", "perplexity"]

WINDOW = 256


@dataclass(frozen=True, slots=True)
class PiqaAccuracy:
    """PIQA: the share of right choices, and by how many nats per character the right solution is ahead.

    ``ahead`` has each question's margin, in the file's order: two models are compared question by question.
    """

    accuracy: Rate
    margin: Mean
    ahead: tuple[float, ...]


def choices(subject: ComparedModel, path: Path, *, limit: int = 0, seed: int) -> PiqaAccuracy:
    """Asks ``Question: GOAL Answer: SOLUTION`` with both solutions; the likelier one per character is chosen.

    This is the length-normalised accuracy that evaluation harnesses print for PIQA.
    """
    rows = read_records(path, fields={"goal": str, "sol1": str, "sol2": str, "label": int})
    rows = rows[: limit or None]
    prompts = [subject.opening_ids(f"Question: {row['goal']}\nAnswer:") for row in rows for _ in range(2)]
    texts = [" " + row[name].strip() for row in rows for name in ("sol1", "sol2")]
    found = subject.logprobs(prompts, [subject.ids(text) for text in texts])
    scores = [float(values.sum()) / len(text) for values, text in zip(found, texts, strict=True)]
    pairs = zip(scores[::2], scores[1::2], strict=True)
    ahead = [
        (first - second) * (1 if row["label"] == 0 else -1)
        for row, (first, second) in zip(rows, pairs, strict=True)
    ]
    right = sum(margin > 0 for margin in ahead)
    return PiqaAccuracy(
        accuracy=wilson_rate(right, len(ahead)),
        margin=bootstrap_mean(ahead, seed=seed),
        ahead=tuple(round(margin, 6) for margin in ahead),
    )


def perplexity(subject: ComparedModel, path: Path, *, tokens: int) -> float:
    """exp of the mean negative log-likelihood over the first ``tokens`` tokens of a plain text.

    The text is read in windows of 256 tokens whose first token is only read.
    """
    ids = subject.ids(path.read_text(encoding="utf-8"))[:tokens]
    windows = [ids[start : start + WINDOW] for start in range(0, len(ids), WINDOW)]
    windows = [window for window in windows if len(window) > 1]
    found = subject.logprobs([window[:1] for window in windows], [window[1:] for window in windows])
    return math.exp(-float(torch.cat(found).double().mean()))
