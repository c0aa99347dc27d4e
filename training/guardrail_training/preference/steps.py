"""The steps of a run over its pairs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from guardrail.manifest import Manifest, Template
from guardrail_training import modeling
from guardrail_training.checkpoint import StopRequest, load_checkpoint, save_checkpoint
from guardrail_training.preference.comparisons import Comparison
from guardrail_training.preference.objectives import dpo_objective, orpo_objective
from guardrail_training.preference.pairs import PairLogprobs, encode_comparisons, plan_batches, read_pairs
from guardrail_training.preference.record import keep_adapter
from guardrail_training.preference.reference import FILENAME as REFERENCE
from guardrail_training.preference.reference import reference_logprobs
from guardrail_training.preference.settings import PreferenceSettings
from guardrail_training.reinforcement.learner import Learner
from guardrail_training.reinforcement.updates import DivergedError
from guardrail_training.runlog import MetricLog, progress_bar, write_run
from guardrail_training.sft import learning_rate

__all__ = ["Progress", "train"]


@dataclass(frozen=True, slots=True)
class Progress:
    """Steps taken of all, and the loss of the last one that this call took."""

    step: int
    steps: int
    loss: float | None


def train(
    learner: Learner,
    comparisons: Sequence[Comparison],
    *,
    tokenizer: Any,
    settings: PreferenceSettings,
    manifest: Manifest,
    fingerprint: str,
    stop: StopRequest,
) -> Progress:
    """Moves the learner, which holds the starting adapter, towards the chosen responses.

    Continues from the state in ``settings.out``, if there is one. ``manifest`` is that of the adapters it
    keeps, without files and metrics. Every comparison has a chosen and a rejected response.
    """
    # 1. The pairs in their batches, and what the starting adapter says of them.
    out, pad_id = Path(settings.out), tokenizer.pad_token_id
    template = Template(manifest.template or "")
    pairs = encode_comparisons(comparisons, tokenizer=tokenizer, template=template)
    batches = plan_batches(pairs, passes=settings.passes, batch_size=settings.batch_size, seed=settings.seed)
    reference = None
    if settings.method == "dpo":
        reference = reference_logprobs(
            learner,
            pairs,
            batches[: len(batches) // settings.passes],
            pad_id=pad_id,
            path=out / REFERENCE,
            fingerprint=fingerprint,
            stop=stop,
        )

    # 2. Optimizer; then the state of an earlier run.
    parameters = modeling.trainable_parameters(learner)
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
    first = load_checkpoint(out, model=learner, optimizer=optimizer, fingerprint=fingerprint)
    step, steps, loss = first, len(batches), None
    if settings.method == "dpo" and reference is None:  # a signal came before it was whole
        return Progress(step=first, steps=steps, loss=None)
    facts = _facts(learner, comparisons, steps=steps, fingerprint=fingerprint)
    write_run(out, settings=settings, facts=facts)
    log = MetricLog(out, resumed_from=first)

    # 3. Steps.
    with progress_bar() as progress:
        progress.console.print(str(modeling.count_parameters(learner)), highlight=False)
        task = progress.add_task(settings.method, total=steps, completed=first, loss=float("nan"))
        for step in range(first + 1, steps + 1):
            started = time.perf_counter()
            rate = learning_rate(step - 1, steps=steps, warmup=settings.warmup, peak=settings.learning_rate)
            for group in optimizer.param_groups:
                group["lr"] = rate
            batch = batches[step - 1]
            read = read_pairs(learner, [pairs[index] for index in batch], pad_id=pad_id)
            objective, figures = _objective(
                read, reference=None if reference is None else reference[batch], settings=settings
            )
            objective.backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
            norm = _clipped_norm(parameters, settings=settings, step=step)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            loss = objective.item()
            figures = {"loss": loss, **figures, "lr": rate, "grad_norm": norm}
            log.add({**figures, "seconds": round(time.perf_counter() - started, 3)}, step=step)
            progress.update(task, completed=step, loss=loss)

            # 4. Now and then an adapter to choose from, and the state to continue from.
            if step == steps or step % settings.keep_every == 0:
                folder = out / f"step-{step}"
                keep_adapter(learner.model, folder, manifest=manifest, step=step, figures=figures)
            if stop.signal or step == steps or step % settings.checkpoint_every == 0:
                save_checkpoint(out, step=step, model=learner, optimizer=optimizer, fingerprint=fingerprint)
            if stop.signal:
                break
    log.close()
    return Progress(step=step, steps=steps, loss=loss)


def _objective(
    policy: PairLogprobs, *, reference: Tensor | None, settings: PreferenceSettings
) -> tuple[Tensor, dict[str, float]]:
    if reference is None:
        return orpo_objective(policy, beta=settings.beta)
    return dpo_objective(
        policy,
        reference_chosen=reference[:, 0],
        reference_rejected=reference[:, 1],
        beta=settings.beta,
        nll_weight=settings.nll_weight,
    )


def _clipped_norm(parameters: Sequence[nn.Parameter], *, settings: PreferenceSettings, step: int) -> float:
    """Clips the gradient and returns its norm before; DivergedError where it is not finite."""
    norm = torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
    if not bool(torch.isfinite(norm)):
        raise DivergedError(
            f"step {step}: the gradient is not finite; lower learning_rate or beta and start anew in another "
            f"--out, with pairs.jsonl copied there from {settings.out}"
        )
    return norm.item()


def _facts(
    learner: Learner, comparisons: Sequence[Comparison], *, steps: int, fingerprint: str
) -> dict[str, Any]:
    return {
        "pairs": len(comparisons),
        "mean_margin": sum(comparison.margin for comparison in comparisons) / len(comparisons),
        "steps": steps,
        "trainable_parameters": sum(p.numel() for p in modeling.trainable_parameters(learner)),
        "parameters": sum(p.numel() for p in learner.parameters()),
        "torch_threads": torch.get_num_threads(),
        "fingerprint": fingerprint,
    }
