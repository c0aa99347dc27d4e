"""Trains the detector: one encoder for labels, toxic tokens and the embedding of the original.

    guardrail-train detector --data DIR --out DIR

Steps: 1. load the sources, hold a slice of train out; 2. draw a pass; 3. AdamW with warm-up and linear decay on
masked multi-label cross-entropy over vote shares + (1 - cosine) to the original encoder's embedding + token
cross-entropy on marked spans; 4. calibrate and fix the threshold on the slice; 5. export as 8-bit ONNX with its manifest.
The dev files are read once, at the end, for figures.
"""

from __future__ import annotations

import json
import math
import os
import platform
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from guardrail_training import corpora
from guardrail_training.detector_batches import Batch, Encoded, batches, encode, load_tokenizer, pad
from guardrail_training.detector_network import DetectorNetwork, Reading, mean_embedding
from guardrail_training.hard_negatives import Templates
from guardrail_training.mixture import draw_pass

__all__ = ["DetectorSettings", "detector_loss", "run", "train"]

LABEL_WEIGHTS = (1.0, 0.4, 0.4, 0.6, 0.4, 0.4)  # toxicity decides; the others describe
TEMPLATES_HELD_OUT = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorSettings:
    """Settings of one run; the defaults made the shipped detector."""

    base: Path  # folder of all-MiniLM-L6-v2: model.safetensors, tokenizer.json
    out: Path = Path("runs/detector/shipped")  # where model.onnx and its manifest go
    run: Path = Path("runs/detector")  # checkpoints and metrics
    data: Path | None = None  # folder of sources; GUARDRAIL_DATA, then the hub, by default
    seed: int = 20
    share: float = 1.0  # of the rows of a pass
    passes: int = 1
    tokens_per_batch: int = 2048
    max_tokens: int = 112
    lr: float = 1.5e-4
    head_lr: float = 1e-3
    weight_decay: float = 0.01
    warmup: float = 0.06  # of all steps
    distillation: float = 2.0  # weight of 1 - cosine
    distilled: float = 0.35  # share of each batch that the teacher reads
    token_weight: float = 0.3
    templates: bool = True
    dtype: str = "auto"  # auto | float32 | bfloat16
    checkpoint_every: int = 200
    max_steps: int | None = None  # stop early, for measuring throughput
    threads: int = 2
    export: bool = True


def run(settings: DetectorSettings) -> Path:
    """Trains, calibrates, exports; returns the folder with ``model.onnx`` and ``manifest.json``."""
    network = train(settings)
    if not settings.export:
        return settings.run
    from guardrail_training.detector_release import release

    return release(network, settings)


def detector_loss(reading: Reading, batch: Batch, teacher: Tensor, settings: DetectorSettings) -> dict[str, Tensor]:
    """The parts of the loss and their sum under ``loss``. ``teacher`` is (n, 384) for the first n rows."""
    known = ~batch.labels.isnan()  # (batch, labels)
    scale = known * batch.weight[:, None] * torch.tensor(LABEL_WEIGHTS)
    entropy = nn.functional.binary_cross_entropy_with_logits(
        reading.logits, batch.labels.nan_to_num(), reduction="none"
    )
    labels = (entropy * scale).sum() / batch.weight.sum()
    marked = batch.marks < 2  # (batch, time)
    token = nn.functional.binary_cross_entropy_with_logits(reading.token_logits, batch.marks.clamp(max=1), reduction="none")
    tokens = (token * marked).sum() / marked.sum().clamp(min=1)
    distance = (1 - (reading.embedding[: len(teacher)] * teacher).sum(-1)).mean()
    loss = labels + settings.token_weight * tokens + settings.distillation * distance
    return {"loss": loss, "labels": labels, "tokens": tokens, "distance": distance}


def train(settings: DetectorSettings) -> DetectorNetwork:
    """The trained network; continues from ``run/checkpoint.pt`` where there is one of the same settings."""
    # 1. Everything random follows from the seed and the position.
    torch.manual_seed(settings.seed)
    torch.set_num_threads(settings.threads)
    settings.run.mkdir(parents=True, exist_ok=True)
    tokenizer = load_tokenizer(settings.base)
    network = DetectorNetwork.from_base(settings.base)
    teacher = DetectorNetwork.from_base(settings.base).encoder.eval().requires_grad_(False)

    # 2. One plan of batches for all passes.
    texts = [t for t in corpora.load(settings.data, part="train") if corpora.fold(t.key) >= corpora.HELD_OUT]
    templates, _ = Templates.load().split(held_out=TEMPLATES_HELD_OUT)
    rows: list[Encoded] = []
    plan: list[list[int]] = []
    for number in range(settings.passes):
        seed = settings.seed * 1000 + number
        drawn = draw_pass(
            texts, templates, seed=seed, share=settings.share, without_templates=not settings.templates
        )
        encoded = encode(drawn, tokenizer, max_tokens=settings.max_tokens)
        groups = batches(encoded, tokens=settings.tokens_per_batch, seed=seed)
        plan += [[place + len(rows) for place in group] for group in groups]
        rows += encoded
    total = min(len(plan), settings.max_steps or len(plan))

    # 3. Optimiser, schedule, and where a checkpoint left off.
    optimizer = _optimizer(network, settings)
    warm = max(1, round(settings.warmup * total))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, max(0.02, (total - step) / max(1, total - warm)))
    )
    first = _resume(network, optimizer, schedule, settings)
    _describe_run(settings, steps=total, rows=len(rows))
    network.train()

    # 4. The steps.
    started, seen = time.monotonic(), 0
    with _stop_on_signal() as stopped, _progress(total, first) as advance, _Metrics(settings.run) as metrics:
        for step in range(first, total):
            batch = pad([rows[place] for place in plan[step]], plan[step])
            count = max(1, round(settings.distilled * len(batch.positions)))
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=_bfloat16(settings)):
                with torch.no_grad():
                    ids, mask = batch.input_ids[:count], batch.attention_mask[:count]
                    target = mean_embedding(teacher(input_ids=ids, attention_mask=mask).last_hidden_state.float(), mask)
                reading = network(batch.input_ids, batch.attention_mask)
            parts = detector_loss(reading, batch, target, settings)
            parts["loss"].backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            seen += len(batch.positions)
            values = {name: float(part.detach()) for name, part in parts.items()}
            if not math.isfinite(values["loss"]):
                raise FloatingPointError(f"the loss is {values['loss']} at step {step}; lower lr or use dtype=float32")
            rate = seen / (time.monotonic() - started)
            metrics.write(step, {**values, "lr": schedule.get_last_lr()[0], "texts_per_second": rate})
            advance(values["loss"])
            if (step + 1) % settings.checkpoint_every == 0 or stopped() or step + 1 == total:
                _save(network, optimizer, schedule, settings, step + 1)
            if stopped():
                raise SystemExit(f"stopped after step {step + 1} of {total}; the same command continues")
    return network.eval()


def _optimizer(network: DetectorNetwork, settings: DetectorSettings) -> torch.optim.Optimizer:
    """AdamW with a higher rate for the new layers and no decay on vectors."""
    groups: dict[tuple[bool, bool], list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        groups.setdefault((name.startswith("encoder."), parameter.dim() > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": settings.lr if encoder else settings.head_lr,
                "weight_decay": settings.weight_decay if matrix else 0.0,
            }
            for (encoder, matrix), parameters in groups.items()
        ],
        fused=True,
    )


def _bfloat16(settings: DetectorSettings) -> bool:
    if settings.dtype != "auto":
        return settings.dtype == "bfloat16"
    supported: bool = torch.cpu._is_avx512_bf16_supported()
    return supported


def _save(
    network: nn.Module, optimizer: torch.optim.Optimizer, schedule: Any, settings: DetectorSettings, step: int
) -> None:
    """Writes the checkpoint whole or not at all."""
    state = {
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "rng": torch.get_rng_state(),
        "step": step,
        "settings": _fingerprint(settings),
    }
    partial = settings.run / "checkpoint.pt.partial"
    torch.save(state, partial)
    os.replace(partial, settings.run / "checkpoint.pt")


def _resume(network: nn.Module, optimizer: torch.optim.Optimizer, schedule: Any, settings: DetectorSettings) -> int:
    path = settings.run / "checkpoint.pt"
    if not path.is_file():
        return 0
    state = torch.load(path, weights_only=True)
    if state["settings"] != _fingerprint(settings):
        raise ValueError(f"{path} is from other settings; choose another run folder or remove it")
    network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    torch.set_rng_state(state["rng"])
    step: int = state["step"]
    return step


def _fingerprint(settings: DetectorSettings) -> str:
    """The settings that decide the course of training."""
    aside = {"out", "run", "data", "base", "checkpoint_every", "threads", "export"}
    return json.dumps({key: value for key, value in asdict(settings).items() if key not in aside}, sort_keys=True)


def _describe_run(settings: DetectorSettings, **counts: int) -> None:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    description = {
        "settings": {key: str(value) if isinstance(value, Path) else value for key, value in asdict(settings).items()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "git": commit,
        **counts,
    }
    (settings.run / "run.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")


class _Metrics:
    """Appends to ``metrics.jsonl``, and to TensorBoard where it is installed."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / "metrics.jsonl").open("a", encoding="utf-8")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self._board = None
        else:
            self._board = SummaryWriter(str(folder))  # type: ignore[no-untyped-call]  # untyped in torch

    def __enter__(self) -> _Metrics:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()  # type: ignore[no-untyped-call]  # untyped in torch

    def write(self, step: int, values: dict[str, float]) -> None:
        self._file.write(json.dumps({"step": step, **{key: round(value, 6) for key, value in values.items()}}) + "\n")
        if step % 20 == 0:
            self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)  # type: ignore[no-untyped-call]  # untyped in torch


@contextmanager
def _progress(total: int, first: int) -> Iterator[Any]:
    columns = (TextColumn("detector"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[loss]:.4f}"))
    with Progress(*columns) as bar:
        task = bar.add_task("", total=total, completed=first, loss=0.0)
        yield lambda loss: bar.update(task, advance=1, loss=loss)


@contextmanager
def _stop_on_signal() -> Iterator[Any]:
    """Answers whether an interrupt has come, so that a step is finished and saved first."""
    received: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        received.append(number)

    old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
