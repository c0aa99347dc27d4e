"""Trains a rewriter: a LoRA adapter on parallel sentences, loss on the target alone.

Run it with ``guardrail-train sft --recipe training/recipes/smollm2-paradetox.toml --base FOLDER --data FOLDER
--out runs/sft``; the same command continues an interrupted run. Each quarter of a pass leaves an adapter in
``<out>/step-N``; ``guardrail-train evaluate`` says which of them is best.

LoRA is Hu et al. 2021 (arXiv 2106.09685), on every linear layer. Left out: dropout (two passes do not
overfit), weight decay (the adapter is small), packing (length buckets pad by about one percent).
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from guardrail.errors import ConfigError
from guardrail.manifest import FILENAME, Manifest, Template, sha256_of
from guardrail_training import data, modeling
from guardrail_training.checkpoint import load_checkpoint, save_checkpoint, stop_on_signals
from guardrail_training.losses import token_cross_entropy
from guardrail_training.plan import encode_pairs, plan_passes
from guardrail_training.provenance import model_folder
from guardrail_training.records import data_folder
from guardrail_training.runlog import MetricLog, git_commit, package_versions, progress_bar, write_run

__all__ = ["SftReport", "SftSettings", "identity_of", "learning_rate", "run"]

TEMPLATE = "<|im_start|>user\nDetoxify: {text}<|im_end|>\n<|im_start|>assistant\n"
DEV_BATCH = 32
COUNTS = (
    "passes",
    "batch_size",
    "rank",
    "alpha",
    "max_tokens",
    "checkpoint_every",
    "evaluations_per_pass",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SftSettings:
    """Everything a run depends on; a recipe is this as TOML.

    ``base`` is a name that ``guardrail models`` knows, or a folder with config.json, safetensors and
    tokenizer; ``data`` is a folder with
    ``paradetox/{train,dev}.jsonl`` (None: GUARDRAIL_DATA, else the hub). ``share`` is the part of the rows to
    train on. ``warmup`` is the part of all steps over which the learning rate rises. ``dtype`` is auto,
    float32 or bfloat16. ``threads`` 0 leaves torch's own choice.
    """

    base: str = "smollm2-135m-instruct"
    out: str = "runs/sft"
    data: str | None = None
    name: str = "smollm2-paradetox"
    template: str = TEMPLATE
    share: float = 1.0
    passes: int = 2
    batch_size: int = 16
    learning_rate: float = 1e-3
    warmup: float = 0.05
    max_grad_norm: float = 1.0
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    targets: tuple[str, ...] = modeling.LINEAR_LAYERS
    max_tokens: int = 512
    dtype: str = "auto"
    seed: int = 0
    threads: int = 0
    checkpoint_every: int = 100
    evaluations_per_pass: int = 4

    def __post_init__(self) -> None:
        for key in COUNTS:
            if getattr(self, key) < 1:
                raise ConfigError(f"{key} must be at least 1, got {getattr(self, key)}")
        if self.learning_rate <= 0:
            raise ConfigError(f"learning_rate must be positive, got {self.learning_rate}")
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"warmup must be at least 0 and below 1, got {self.warmup}")


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
    write a checkpoint and return.
    """
    # 1. Everything that can be wrong, before anything is expensive.
    out, base = Path(settings.out), model_folder(settings.base)
    template = Template(settings.template)
    dtype = modeling.resolve_dtype(settings.dtype)
    tokenizer = modeling.load_tokenizer(base)
    rows = data.take_share(
        data.drop_copies(data.load_paradetox(settings.data, split="train")),
        settings.share,
        seed=settings.seed,
    )
    plan = plan_passes(
        rows,
        tokenizer=tokenizer,
        template=template,
        passes=settings.passes,
        batch_size=settings.batch_size,
        evaluations_per_pass=settings.evaluations_per_pass,
        max_tokens=settings.max_tokens,
        seed=settings.seed,
    )
    dev_pairs = data.draw_references(data.load_paradetox(settings.data, split="dev"), seed=0, pass_index=0)
    dev = encode_pairs(dev_pairs, tokenizer=tokenizer, template=template, max_tokens=settings.max_tokens)
    out.mkdir(parents=True, exist_ok=True)

    # 2. Frozen base, fresh adapter, optimizer; then the state of an earlier run, if there is one.
    if settings.threads:
        torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    model = modeling.add_lora(
        modeling.load_base(base, dtype=dtype),
        rank=settings.rank,
        alpha=settings.alpha,
        dropout=settings.dropout,
        targets=settings.targets,
    )
    parameters = modeling.trainable_parameters(model)
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
    fingerprint = _fingerprint(settings, rows)
    first = load_checkpoint(out, model=model, optimizer=optimizer, fingerprint=fingerprint)
    steps = plan.steps
    log = MetricLog(out, resumed_from=first)
    manifest = _manifest(settings, rows, base=base)
    facts = _facts(settings, rows=rows, base=base, steps=steps, dtype=dtype, fingerprint=fingerprint)
    write_run(out, settings=settings, facts=facts)

    # 3. Steps.
    dev_loss, step = None, first
    with stop_on_signals() as stop, progress_bar() as progress:
        task = progress.add_task("sft", total=steps, completed=first, loss=float("nan"))
        for step in range(first + 1, steps + 1):
            started = time.perf_counter()
            batch = modeling.collate(plan.batch(step), pad_id=tokenizer.pad_token_id)
            rate = learning_rate(step - 1, steps=steps, warmup=settings.warmup, peak=settings.learning_rate)
            for group in optimizer.param_groups:
                group["lr"] = rate
            model.train()
            with modeling.autocast(dtype):
                logits, targets = modeling.target_logits(model, batch)
            loss = token_cross_entropy(logits, targets)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
            norm = torch.nn.utils.clip_grad_norm_(parameters, settings.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            seconds = time.perf_counter() - started
            log.add(
                {"loss": loss.item(), "lr": rate, "grad_norm": norm.item(), "seconds": round(seconds, 3)},
                step=step,
            )
            progress.update(task, completed=step, loss=loss.item())

            # 4. Every part of a pass: the dev loss, and an adapter to choose from later.
            if step in plan.evaluate_after:
                dev_loss = mean_loss(model, dev, pad_id=tokenizer.pad_token_id, dtype=dtype)
                log.add({"dev_loss": dev_loss}, step=step)
                _keep_adapter(model, out / f"step-{step}", manifest=manifest, step=step, dev_loss=dev_loss)
            if stop.signal or step % settings.checkpoint_every == 0 or step == steps:
                save_checkpoint(out, step=step, model=model, optimizer=optimizer, fingerprint=fingerprint)
            if stop.signal:
                break
    log.close()
    return SftReport(step=step, steps=steps, dev_loss=dev_loss, stopped_by=stop.signal)


def mean_loss(model: Any, examples: Sequence[modeling.Example], *, pad_id: int, dtype: torch.dtype) -> float:
    """Mean negative log-likelihood in nats over all target tokens of the examples."""
    model.eval()
    ordered = sorted(examples, key=len)
    total, tokens = 0.0, 0
    with torch.inference_mode():
        for start in range(0, len(ordered), DEV_BATCH):
            batch = modeling.collate(ordered[start : start + DEV_BATCH], pad_id=pad_id)
            with modeling.autocast(dtype):
                logits, targets = modeling.target_logits(model, batch)
            total += token_cross_entropy(logits, targets).item() * len(targets)
            tokens += len(targets)
    return total / tokens


def _fingerprint(settings: SftSettings, rows: Sequence[data.Row]) -> str:
    # Where files lie and how often they are written changes no number.
    free = {"base", "out", "data", "threads", "checkpoint_every", "evaluations_per_pass"}
    decisive = {key: value for key, value in asdict(settings).items() if key not in free}
    content = json.dumps([decisive, [[row.toxic, *row.neutral] for row in rows]], sort_keys=True)
    return hashlib.sha256(content.encode("utf-8")).hexdigest()


def _facts(
    settings: SftSettings,
    *,
    rows: Sequence[data.Row],
    base: Path,
    steps: int,
    dtype: torch.dtype,
    fingerprint: str,
) -> dict[str, Any]:
    return {
        "rows": len(rows),
        "references": sum(len(row.neutral) for row in rows),
        "steps": steps,
        "computed_in": str(dtype).removeprefix("torch."),
        "torch_threads": torch.get_num_threads(),
        "fingerprint": fingerprint,
        "base_sha256": sha256_of(base / "model.safetensors"),
        "data_sha256": _data_sha256(settings),
    }


def _data_sha256(settings: SftSettings) -> dict[str, str]:
    folder = data_folder(settings.data)
    if folder is None:
        return {}
    return {split: sha256_of(folder / "paradetox" / f"{split}.jsonl") for split in ("train", "dev")}


def _manifest(settings: SftSettings, rows: Sequence[data.Row], *, base: Path) -> Manifest:
    return Manifest(
        kind="adapter",
        name=settings.name,
        version="0.1.0",
        licence="Apache-2.0",
        files={},
        **identity_of(base),
        template=settings.template,
        scripts=("Latin",),
        settings={
            key: value for key, value in asdict(settings).items() if key not in {"base", "out", "data"}
        },
        data=[
            {
                "name": "paradetox",
                "split": "train",
                "rows": len(rows),
                "sha256": _data_sha256(settings).get("train"),
            }
        ],
        versions=package_versions(),
        seed=settings.seed,
        git=git_commit(),
    )


def identity_of(base: Path) -> dict[str, Any]:
    """What an adapter's manifest says of the base it was trained on: ``trained_on``, ``compatible_bases``."""
    weights = sha256_of(base / "model.safetensors")
    # A converted base names the file it was converted from: that one is published, the conversion is not.
    origin = Manifest.load(base, verify=False).trained_on if (base / FILENAME).is_file() else None
    return {
        "trained_on": origin or weights,
        "compatible_bases": {weights: "measured"} if origin not in (None, weights) else {},
    }


def _keep_adapter(model: Any, folder: Path, *, manifest: Manifest, step: int, dev_loss: float) -> None:
    files = modeling.save_adapter(model, folder)
    replace(
        manifest,
        files={path.name: sha256_of(path) for path in files},
        metrics={"step": step, "dev_loss": round(dev_loss, 4)},
    ).save(folder)
