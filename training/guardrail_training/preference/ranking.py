"""Draws and ranks the candidates of all sentences, batch by batch, where an earlier run left off."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from guardrail_training.checkpoint import StopRequest
from guardrail_training.data import bucketed_batches
from guardrail_training.preference.candidates import Sentence, compare
from guardrail_training.preference.comparisons import FILENAME, Comparison, append_comparisons
from guardrail_training.preference.settings import PreferenceSettings
from guardrail_training.reinforcement.learner import Learner
from guardrail_training.rewards.algebra import Reward
from guardrail_training.runlog import progress_bar

__all__ = ["compare_missing"]


def compare_missing(
    learner: Learner,
    sentences: Sequence[Sentence],
    comparisons: dict[int, Comparison],
    *,
    reward: Reward,
    tokenizer: Any,
    settings: PreferenceSettings,
    fingerprint: str,
    stop: StopRequest,
) -> None:
    """Adds the sentences that have no comparison yet, in memory and on disk, until a signal comes."""
    batches = bucketed_batches(
        [len(sentence.query.ids) for sentence in sentences],
        batch_size=settings.sentences_at_once,
        seed=settings.seed,
        pass_index=0,
    )
    with progress_bar("margin") as progress:
        task = progress.add_task("candidates", total=len(sentences), margin=float("nan"))
        for batch in batches:
            missing = [sentences[index] for index in batch if sentences[index].number not in comparisons]
            if missing:
                found = compare(learner, missing, reward=reward, tokenizer=tokenizer, settings=settings)
                append_comparisons(Path(settings.out) / FILENAME, found, fingerprint=fingerprint)
                comparisons |= {comparison.row: comparison for comparison in found}
            margins = [comparison.margin for comparison in comparisons.values()]
            progress.update(task, advance=len(batch), margin=sum(margins) / len(margins))
            if stop.signal:
                break
