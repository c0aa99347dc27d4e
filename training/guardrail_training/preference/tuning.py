"""Tunes an adapter on its own candidates: DPO or ORPO on the best and the worst of them by a reward.

Run it with ``guardrail-train preference --recipe training/recipes/dpo-rewriter.toml --data FOLDER --out
runs/dpo``; the same command continues an interrupted run, in either stage. First the starting adapter
rewrites each sentence several times, and ``<out>/pairs.jsonl`` receives the best and the worst of it; copied
into another run's folder, that file serves another method on the same pairs. Then the adapter itself goes on
being trained: the result has its rank and its size.

DPO is Rafailov et al. 2023 (arXiv 2305.18290), ORPO is Hong et al. 2024 (arXiv 2403.07691); best and worst of
own candidates is how the winners of TextDetox 2024 tuned their rewriter (arXiv 2407.05449). Left out: diverse
beam search (samples differ as well), a second copy of the model (the reference's numbers are computed once),
rounds of new candidates from the tuned policy (start a second run from its adapter).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from guardrail.errors import ConfigError
from guardrail.rewriters.adapter import read_adapter
from guardrail_training import modeling
from guardrail_training.checkpoint import stop_on_signals
from guardrail_training.data import drop_copies, load_paradetox
from guardrail_training.modeling import resume_adapter
from guardrail_training.preference.candidates import draw_sentences
from guardrail_training.preference.comparisons import FILENAME, pairs_of, read_comparisons
from guardrail_training.preference.ranking import compare_missing
from guardrail_training.preference.record import manifest_of, ranking_fingerprint, training_fingerprint
from guardrail_training.preference.settings import PreferenceSettings
from guardrail_training.preference.steps import Progress, train
from guardrail_training.processes import Processes
from guardrail_training.provenance import SHIPPED, model_folder, weights_sha256
from guardrail_training.reinforcement.learner import Learner
from guardrail_training.rewards.algebra import Reward
from guardrail_training.rewards.independence import check_independent

__all__ = ["PreferenceReport", "PreferenceSettings", "run"]


@dataclass(frozen=True, slots=True)
class PreferenceReport:
    """How a run ended: sentences with candidates of all, pairs, steps taken of all, the last step's loss.

    Pairs and steps are 0 where the signal in ``stopped_by`` came while candidates were still to be drawn.
    """

    compared: int
    sentences: int
    pairs: int
    step: int
    steps: int
    loss: float | None
    stopped_by: str | None

    @property
    def finished(self) -> bool:
        """Whether every step was taken."""
        return 0 < self.steps == self.step


def run(settings: PreferenceSettings, *, reward: Reward | None = None) -> PreferenceReport:
    """Tunes, or continues, the run in ``settings.out`` and returns how it ended.

    ``reward`` takes the place of the settings' formula. Whatever can be wrong with data, models and settings
    is an error before the first candidate; TrainingRowError, before the first step, where no pair comes of
    them. SIGINT and SIGTERM finish the batch, keep the state and return. DivergedError where a gradient is
    not finite: checkpoint and adapters are those of the steps before.
    """
    # 1. Everything that can be wrong, before anything is expensive.
    processes = Processes()
    if processes.count > 1:
        raise ConfigError(f"preference tuning runs in one process, got {processes.count}; start one")
    out, base = Path(settings.out), model_folder(settings.base)
    start = read_adapter(settings.adapter or SHIPPED / "rewriter")
    start.manifest.check_base(weights_sha256(base))
    dtype = modeling.resolve_dtype(settings.dtype)
    tokenizer = modeling.load_ending_tokenizer(base)
    rows = drop_copies(load_paradetox(settings.data, split="train"))
    sentences = draw_sentences(rows, tokenizer=tokenizer, template=start.template, settings=settings)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    reward = reward or _formula(settings.reward)
    check_independent(reward)
    ranking = ranking_fingerprint(settings, rows=rows, reward=reward, start=start, base=base)
    comparisons = read_comparisons(out / FILENAME, fingerprint=ranking)

    # 2. The starting adapter on its base.
    torch.manual_seed(settings.seed)
    learner = Learner(
        resume_adapter(modeling.load_base(base, dtype=dtype), start),
        pad_id=tokenizer.pad_token_id,
        temperature=1.0,
        dtype=dtype,
        has_values=False,
    )
    out.mkdir(parents=True, exist_ok=True)

    # 3. Its candidates for every sentence.
    with stop_on_signals() as stop:
        compare_missing(
            learner,
            sentences,
            comparisons,
            reward=reward,
            tokenizer=tokenizer,
            settings=settings,
            fingerprint=ranking,
            stop=stop,
        )
        numbers = [sentence.number for sentence in sentences]
        compared = sum(number in comparisons for number in numbers)
        if stop.signal:
            return PreferenceReport(compared, len(sentences), 0, 0, 0, None, stop.signal)

        # 4. The pairs that they make, and training on them.
        formula = reward.formula
        del reward  # its models take memory that training can use
        pairs = pairs_of(numbers, comparisons, margin=settings.margin)
        progress: Progress = train(
            learner,
            pairs,
            tokenizer=tokenizer,
            settings=settings,
            manifest=manifest_of(settings, pairs=pairs, reward=formula, start=start, base=base),
            fingerprint=training_fingerprint(settings, pairs=pairs, start=start, base=base),
            stop=stop,
        )
    return PreferenceReport(
        compared=compared,
        sentences=len(sentences),
        pairs=len(pairs),
        step=progress.step,
        steps=progress.steps,
        loss=progress.loss,
        stopped_by=stop.signal,
    )


def _formula(formula: str) -> Reward:
    # Loads models, so it is imported where a formula is given in words.
    from guardrail_training.rewards.formula import read_formula

    return read_formula(formula)
