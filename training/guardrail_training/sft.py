"""Trains a model on pairs of texts, loss on the target alone: an adapter (LoRA), or the whole model.

Run it with ``guardrail-train sft --recipe smollm2-paradetox --base FOLDER --data FOLDER --out runs/sft``; the
same command continues an interrupted run. Several times in a pass the dev loss is taken and a model left in
``<out>/step-N``: the best by that loss and the last stay.

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
from peft import PeftModel

from guardrail.errors import ConfigError, FailureError
from guardrail.manifest import Template
from guardrail.rewriters.adapter import Adapter
from guardrail_training import modeling
from guardrail_training.modeling import resume_adapter
from guardrail_training.modeling.quantised import make_optimizer
from guardrail_training.processes import Processes
from guardrail_training.provenance import model_folder
from guardrail_training.run import (
    Callback,
    Report,
    Run,
    clip_gradients,
    fingerprint_of,
    manifest_of,
    pad_token_of,
    starting_adapter,
)
from guardrail_training.supervised.corpus import load_corpus, sources_sha256
from guardrail_training.supervised.network import TargetLoss, target_tokens
from guardrail_training.supervised.plan import ExampleEncoder, plan_passes
from guardrail_training.supervised.settings import SftSettings

__all__ = ["SftSettings", "learning_rate", "run"]

EVALUATION_BATCH = 32
NORMAL_95 = 1.96  # two-sided 95 % quantile of the standard normal distribution


def learning_rate(step: int, *, steps: int, warmup: float, peak: float) -> float:
    """The rate of step ``step`` (from 0): linear warm-up to ``peak``, then a half cosine that ends near 0."""
    rising = math.ceil(steps * warmup)
    if step < rising:
        return peak * (step + 1) / rising
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def run(settings: SftSettings, *, callbacks: Sequence[Callback] = ()) -> Report:
    """Trains, or continues, the run in ``settings.out`` and returns how it ended.

    Bad rows, settings and missing files are errors before the first step. SIGINT and SIGTERM finish the step,
    write a checkpoint and return. A gradient that is not a finite number raises FailureError; the last
    checkpoint stays.
    """
    # 1. Everything that can be wrong, before anything is expensive. The plan holds every batch of every pass:
    #    what a step sees is a function of rows and seed, so that a run can continue at any step.
    base, device = model_folder(settings.base), modeling.resolve_device(settings.device)
    processes = Processes(device=device, can_shard=True)
    _check_shardable(settings, processes)
    dtype = modeling.resolve_dtype(settings.dtype, device)
    start = starting_adapter(settings.adapter, base=base)
    if start is not None and start.template != Template(settings.template):
        raise ConfigError("template differs from the adapter's: continue with the prompt it was trained on")
    tokenizer = modeling.load_ending_tokenizer(base, pad_token=pad_token_of(settings, start))
    corpus = load_corpus(settings)
    encoding = ExampleEncoder(tokenizer, Template(settings.template), settings.max_tokens, seed=settings.seed)
    plan = plan_passes(
        corpus.train,
        encoding=encoding,
        passes=settings.passes,
        batch_size=settings.batch_size,
        evaluations_per_pass=settings.evaluations_per_pass,
        max_steps=settings.max_steps,
    )
    dev = [replace(encoding, seed=0).example(row, pass_index=0) for row in corpus.dev]

    # 2. Model and optimizer. A new adapter's second matrix is zero, so that training begins at the base; only
    #    the adapter has a gradient and a state in the optimizer.
    if settings.threads:
        torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    model = _model(settings, base=base, start=start, dtype=dtype, device=processes.loading_device)
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

    # 3. The run's folder; then the state of an earlier run, if there is one.
    hashes = sources_sha256(settings)
    source = {"name": settings.train, "rows": len(corpus.train), "sha256": hashes.get("train")}
    course = Run(
        settings,
        manifest=manifest_of(settings, base=base, template=settings.template, data=[source], start=start),
        fingerprint=fingerprint_of(
            settings.decisive(), start, ([row.source, *row.references] for row in corpus.train)
        ),
        processes=processes,
        best="dev_loss",
        callbacks=callbacks,
    )
    facts = {
        "steps": plan.steps,
        "rows": len(corpus.train),
        "dev_rows": len(dev),
        "references": sum(len(row.references) for row in corpus.train),
        "computed_in": str(dtype).removeprefix("torch."),
        "device": device.type,
        "data_sha256": hashes,
    }
    course.resume(model, optimizer, facts=facts)

    with course:
        for step in course.steps(plan.steps):
            # 4. A step: the learning rate of its place in the schedule; the gradient of the mean -log p of
            #    the target tokens given prompt and earlier target, over the batch; that gradient clipped
            #    to a norm, so that one odd batch cannot throw the weights far; AdamW's update.
            started = time.perf_counter()
            rate = learning_rate(
                step - 1, steps=plan.steps, warmup=settings.warmup, peak=settings.learning_rate
            )
            for group in optimizer.param_groups:
                group["lr"] = rate
            batch = plan.batch(step)
            loss = accumulate(network, batch, microbatch_size=settings.microbatch_size, processes=processes)
            norm = clip_gradients(
                parameters,
                settings.max_grad_norm,
                error=lambda: FailureError(
                    f"step {course.step}: the gradient is not finite; lower learning_rate"
                ),
            )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            seconds = round(time.perf_counter() - started, 3)
            read = sum(map(len, batch))
            metrics = {"loss": loss, "lr": rate, "grad_norm": norm, "tokens": read, "seconds": seconds}
            course.log(metrics, step=step)

            # 5. Several times in a pass: the loss on rows that are not trained on, and a model to keep.
            if step in plan.evaluate_after:
                measured = mean_loss(network, dev, processes=processes)
                dev_loss = measured.value
                course.evaluated({"dev_loss": dev_loss, **_error(measured)}, step=step)
                course.keep(
                    lambda folder: _write(model, folder, tokenizer=tokenizer),
                    step=step,
                    metrics={"dev_loss": dev_loss},
                    is_base=settings.tuning == "full",
                )
    return course.report("dev_loss")


def accumulate(
    network: TargetLoss,
    examples: Sequence[modeling.EncodedExample],
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


@dataclass(frozen=True, slots=True)
class MeanLoss:
    """A mean in nats per target token; ``error`` is half of its 95 % interval over examples."""

    value: float
    error: float


def mean_loss(
    network: TargetLoss, examples: Sequence[modeling.EncodedExample], *, processes: Processes
) -> MeanLoss:
    """Mean negative log-likelihood over all target tokens of the examples, without dropout.

    The interval is that of a ratio of sums, by linearisation: examples are drawn, and
    their tokens with them.
    """
    network.eval()
    ordered = sorted(examples, key=len)  # batches of similar length
    sums = torch.zeros(4, dtype=torch.float64)  # of loss, loss squared, loss times tokens, tokens squared
    with torch.no_grad():
        for part in processes.turns(ordered, size=EVALUATION_BATCH):
            # In an empty turn any example will do, and none of it counts.
            losses = network.of_each(part or ordered[:1]) * bool(part)
            tokens = torch.tensor([len(each.target) for each in part or ordered[:1]]) * bool(part)
            products = (losses, losses**2, losses * tokens, (tokens**2).double())
            sums += torch.stack([each.sum() for each in products])
    loss, squared, crossed, squares = processes.total(sums).tolist()
    count, mean = target_tokens(examples), loss / target_tokens(examples)
    variance = max(0.0, squared - 2 * mean * crossed + mean**2 * squares)
    n = len(examples)
    spread = math.sqrt(variance * n / (n - 1)) if n > 1 else math.nan
    return MeanLoss(mean, NORMAL_95 * spread / count)


def _error(measured: MeanLoss) -> dict[str, float]:
    """The interval as a logged metric; a single example has none."""
    return {} if math.isnan(measured.error) else {"dev_loss_error": measured.error}


def _check_shardable(settings: SftSettings, processes: Processes) -> None:
    if not processes.is_sharded:
        return
    if settings.tuning == "full":
        raise ConfigError("FSDP shards a frozen base: it goes with tuning = 'lora' alone")
    if settings.quantisation != "none":
        raise ConfigError(f"quantisation = {settings.quantisation!r} cannot be sharded; set it to 'none'")


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


def _write(model: Any, folder: Path, *, tokenizer: Any) -> list[Path]:
    if isinstance(model, PeftModel):
        return modeling.save_adapter(model, folder)
    return modeling.save_model(model, folder, tokenizer=tokenizer)
