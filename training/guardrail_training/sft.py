"""Trains a model on pairs of texts, loss on the target alone: an adapter (LoRA), or the whole model.

Run it with ``guardrail-train sft --recipe training/recipes/smollm2-paradetox.toml --base FOLDER --data FOLDER
--out runs/sft``; the same command continues an interrupted run. Each quarter of a pass leaves an adapter in
``<out>/step-N``; ``guardrail-train evaluate`` says which of them is best.

LoRA is Hu et al. 2021 (arXiv 2106.09685), on every linear layer; on a base in 4 bits it is QLoRA (Dettmers et
al. 2023, arXiv 2305.14314). Left out: packing (length buckets pad by about one percent).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from guardrail.errors import ConfigError, FailureError
from guardrail.manifest import Template
from guardrail.rewriters.adapter import Adapter, read_adapter
from guardrail_training import modeling
from guardrail_training.checkpoint import stop_on_signals
from guardrail_training.modeling import resume_adapter
from guardrail_training.modeling.quantised import make_optimizer
from guardrail_training.processes import Processes
from guardrail_training.provenance import model_folder, weights_sha256
from guardrail_training.runlog import progress_bar
from guardrail_training.supervised.corpus import load_corpus
from guardrail_training.supervised.network import TargetLoss, target_tokens
from guardrail_training.supervised.plan import Encoding, plan_passes
from guardrail_training.supervised.run_folder import RunFolder, identity_of
from guardrail_training.supervised.settings import SftSettings

__all__ = ["SftReport", "SftSettings", "identity_of", "learning_rate", "run"]

EVALUATION_BATCH = 32


@dataclass(frozen=True, slots=True)
class SftReport:
    """How a run ended: steps taken of all, the last dev loss, and the signal that stopped it if one did."""

    step: int
    steps: int
    dev_loss: float | None
    stopped_by: str | None

    @property
    def finished(self) -> bool:
        """Whether every step was taken."""
        return self.step == self.steps


def learning_rate(step: int, *, steps: int, warmup: float, peak: float) -> float:
    """The rate of step ``step`` (from 0): linear warm-up to ``peak``, then a half cosine that ends near 0."""
    rising = math.ceil(steps * warmup)
    if step < rising:
        return peak * (step + 1) / rising
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def run(settings: SftSettings) -> SftReport:
    """Trains, or continues, the run in ``settings.out`` and returns how it ended.

    Bad rows, settings and missing files are errors before the first step. SIGINT and SIGTERM finish the step,
    write a checkpoint and return. A gradient that is no finite number raises FailureError; the last
    checkpoint stays.
    """
    # 1. Everything that can be wrong, before anything is expensive.
    base, device = model_folder(settings.base), modeling.resolve_device(settings.device)
    processes = Processes(device=device, can_shard=True)
    _check_shardable(settings, processes)
    dtype = modeling.resolve_dtype(settings.dtype)
    start = _start(settings, base)
    tokenizer = modeling.load_ending_tokenizer(base, pad_token=settings.pad_token)
    corpus = load_corpus(settings)
    encoding = Encoding(tokenizer, Template(settings.template), settings.max_tokens, seed=settings.seed)
    plan = plan_passes(
        corpus.train,
        encoding=encoding,
        passes=settings.passes,
        batch_size=settings.batch_size,
        evaluations_per_pass=settings.evaluations_per_pass,
        max_steps=settings.max_steps,
    )
    dev = [replace(encoding, seed=0).example(row, pass_index=0) for row in corpus.dev]

    # 2. Model, optimizer; then the state of an earlier run, if there is one.
    if settings.threads:
        torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    # The parts of a base that is sharded go to their devices one by one.
    first_device = torch.device("cpu") if processes.is_sharded else device
    model = _model(settings, base=base, start=start, dtype=dtype, device=first_device)
    processes.shard(model)
    network = TargetLoss(
        model,
        pad_id=tokenizer.pad_token_id,
        dtype=dtype,
        recomputes=settings.gradient_checkpointing,
        # A shared opening's gradient comes through the cache, of which sharded layers know nothing.
        shares_prompts=not processes.is_sharded,
    )
    parameters = modeling.trainable_parameters(model)
    optimizer = make_optimizer(
        settings.optimizer,
        parameters,
        rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        device=device,
    )
    folder = RunFolder(
        settings, rows=corpus.train, base=base, tokenizer=tokenizer, start=start, processes=processes
    )
    facts = {
        "steps": plan.steps,
        "computed_in": str(dtype).removeprefix("torch."),
        "device": device.type,
        "processes": processes.count,
        "sharded": processes.is_sharded,
    }
    first = folder.resume(model, optimizer, facts=facts)

    # 3. Steps.
    dev_loss, step, steps = None, first, plan.steps
    with stop_on_signals() as stop, progress_bar(shown=processes.is_first) as progress:
        if processes.is_first:
            progress.console.print(str(modeling.count_parameters(model)), highlight=False)
        task = progress.add_task("sft", total=steps, completed=first, loss=float("nan"))
        for step in range(first + 1, steps + 1):
            started = time.perf_counter()
            rate = learning_rate(step - 1, steps=steps, warmup=settings.warmup, peak=settings.learning_rate)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss = accumulate(
                network, plan.batch(step), microbatch_size=settings.microbatch_size, processes=processes
            )
            norm = torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
            if not bool(torch.isfinite(norm)):
                raise FailureError(f"step {step}: the gradient is not finite; lower learning_rate")
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            seconds = round(time.perf_counter() - started, 3)
            folder.add({"loss": loss, "lr": rate, "grad_norm": norm.item(), "seconds": seconds}, step=step)
            progress.update(task, completed=step, loss=loss)

            # 4. Every part of a pass: the dev loss, and an adapter to choose from later.
            if step in plan.evaluate_after:
                dev_loss = mean_loss(network, dev, processes=processes)
                folder.add({"dev_loss": dev_loss}, step=step)
                folder.keep(model, step=step, dev_loss=dev_loss)
            stopped = processes.any(stop.signal is not None)
            if stopped or step % settings.checkpoint_every == 0 or step == steps:
                folder.save_state(model, optimizer, step=step)
            if stopped:
                break
    folder.close()
    return SftReport(step=step, steps=steps, dev_loss=dev_loss, stopped_by=stop.signal)


def accumulate(
    network: TargetLoss,
    examples: Sequence[modeling.Example],
    *,
    microbatch_size: int | None,
    processes: Processes,
) -> float:
    """Adds the gradient of the examples' mean loss per target token, and returns that loss.

    Every sum is divided by the tokens of all examples, so neither the examples at a time nor the number of
    processes changes anything.
    """
    network.train()
    tokens = target_tokens(examples)
    total = 0.0
    for part in processes.turns(examples, size=microbatch_size or len(examples)):
        # In an empty turn any example will do, and none of it counts.
        loss = network(part or examples[:1]) / tokens * bool(part)
        loss.backward()
        total += loss.item()
    processes.sum_gradients(modeling.trainable_parameters(network))
    return processes.total(torch.tensor(total, dtype=torch.float64)).item()


def mean_loss(network: TargetLoss, examples: Sequence[modeling.Example], *, processes: Processes) -> float:
    """Mean negative log-likelihood in nats over all target tokens of the examples, without dropout."""
    network.eval()
    ordered, total = sorted(examples, key=len), 0.0  # batches of similar length
    with torch.no_grad():
        for part in processes.turns(ordered, size=EVALUATION_BATCH):
            total += network(part or ordered[:1]).item() * bool(part)
    return processes.total(torch.tensor(total, dtype=torch.float64)).item() / target_tokens(examples)


def _check_shardable(settings: SftSettings, processes: Processes) -> None:
    if not processes.is_sharded:
        return
    if settings.tuning == "full":
        raise ConfigError("FSDP shards a frozen base: it goes with tuning = 'lora' alone")
    if settings.quantisation != "none":
        raise ConfigError(f"quantisation = {settings.quantisation!r} cannot be sharded; set it to 'none'")


def _start(settings: SftSettings, base: Path) -> Adapter | None:
    """The adapter that the run goes on from; ManifestError where it is for another base."""
    if settings.adapter is None:
        return None
    start = read_adapter(settings.adapter)
    start.manifest.check_base(weights_sha256(base))
    if start.template != Template(settings.template):
        raise ConfigError("template differs from the adapter's: go on with the prompt it was trained on")
    return start


def _model(
    settings: SftSettings, *, base: Path, start: Adapter | None, dtype: torch.dtype, device: torch.device
) -> Any:
    is_full = settings.tuning == "full"
    model = modeling.load_base(
        base,
        # Small steps are lost in bfloat16 weights, so what is trained is float32.
        dtype=torch.float32 if is_full else dtype,
        quantisation=settings.quantisation,
        device=device,
        has_dropout=is_full,
    )
    if is_full:
        return model.requires_grad_(True)
    if start is not None:
        return resume_adapter(model, start)
    return modeling.add_lora(
        model, rank=settings.rank, alpha=settings.alpha, dropout=settings.dropout, targets=settings.targets
    )
