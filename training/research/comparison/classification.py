"""Learning to classify toxicity: questions with yes or no as answers, and how well a model ranks by them."""

from __future__ import annotations

import json
import random
from pathlib import Path

from guardrail_training.data import read_rows
from guardrail_training.metrics.statistics import Ranking, ranking
from guardrail_training.records import read_records
from research.comparison.subject import ComparedModel

__all__ = ["classification", "write_questions"]

QUESTION = "Message: {text}\nIs the message toxic? Answer yes or no.\nAnswer:"
YES, NO = " yes", " no"


def write_questions(data: Path, path: Path, *, count: int, seed: int) -> Path:
    """Writes ``count`` questions about Davidson's and ParaDetox's training texts, half of them toxic."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps({"prompt": QUESTION.replace("{text}", text), "response": YES if toxic else NO}) + "\n"
        for text, toxic in _balanced(data, split="train", count=count, seed=seed)
    ]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def classification(subject: ComparedModel, data: Path, *, count: int, seed: int) -> Ranking:
    """How well the log-odds of yes against no rank ``count`` dev texts, half of them toxic."""
    asked = _balanced(data, split="dev", count=count, seed=seed)
    prompts = [subject.opening_ids(QUESTION.replace("{text}", text)) for text, _ in asked for _ in range(2)]
    found = subject.logprobs(prompts, [subject.ids(YES), subject.ids(NO)] * len(asked))
    sums = [float(values.sum()) for values in found]
    odds = [yes - no for yes, no in zip(sums[::2], sums[1::2], strict=True)]
    return ranking([toxic for _, toxic in asked], odds)


def _balanced(data: Path, *, split: str, count: int, seed: int) -> list[tuple[str, bool]]:
    """Texts with whether they are toxic, both alike often, in random order."""
    toxic: list[str] = []
    clean: list[str] = []
    for vote in read_records(
        data / "davidson" / f"{split}.jsonl",
        fields={"text": str, "hate": int, "offensive": int, "neither": int},
    ):
        (toxic if vote["hate"] + vote["offensive"] > vote["neither"] else clean).append(vote["text"])
    for row in read_rows(data / "paradetox" / f"{split}.jsonl"):
        toxic.append(row.source)
        clean.append(row.references[0])
    generator = random.Random(f"questions-{split}-{seed}")
    each = min(count // 2, len(toxic), len(clean))
    chosen = [(text, True) for text in generator.sample(toxic, each)]
    chosen += [(text, False) for text in generator.sample(clean, each)]
    generator.shuffle(chosen)
    return chosen
