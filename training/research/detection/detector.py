"""Trains the detector: one encoder for labels, toxic tokens and the embedding of the original.

    python -m research detector --base DIR --data DIR --out DIR

A larger encoder, trained first in the same way (``distillation=0 export=false``), lends its scores with
``soft``: they take the place of labels that a source lacks and soften those it has (Hinton et al. 2015).

Steps: 1. load the sources, hold a slice of train out; 2. draw every pass, and a shorter last phase at a low
rate that weighs the embedding more; 3. AdamW with warm-up and linear decay on masked multi-label
cross-entropy over vote shares + (1 - cosine) to the original encoder's embedding + token cross-entropy on
marked spans + ranking of twins; 4. calibrate and fix the thresholds on the slice, export as 8-bit ONNX with
its manifest (``release``). The dev files are read once, at the end, for figures.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, load_model, save_model
from torch import Tensor, nn

from guardrail_training.provenance import model_folder
from research.detection import corpora
from research.detection.batches import DetectionBatch, Encoded, batches, encode, load_tokenizer, pad
from research.detection.hard_negatives import Templates
from research.detection.labelled import TRAINED
from research.detection.mixture import TEMPLATES_HELD_OUT, draw_passes
from research.detection.network import DetectorNetwork, NetworkOutput, mean_embedding
from research.detection.optimiser import learning_rate, take_steps, uses_bfloat16
from research.detection.settings import DetectorSettings, course
from research.detection.soft_scores import SoftScores

__all__ = ["DetectorSettings", "average", "detector_loss", "run", "train"]

LABEL_WEIGHTS = {
    "toxicity": 1.0,  # it decides, and so does incivility; the others describe
    "insult": 0.3,
    "obscene": 0.3,
    "identity_attack": 0.5,
    "threat": 0.4,
    "sexual_explicit": 0.3,
    "incivility": 1.0,
    "hate": 0.4,
    "sexism": 0.3,
}
RANKED = ("toxicity", "incivility")  # labels by which twins are ranked
TWINS_APART = 0.5  # difference in a label from which one twin has to rank above the other


def run(settings: DetectorSettings) -> Path:
    """Trains, calibrates, exports; returns the folder with ``model.onnx`` and ``manifest.json``.

    Interrupted, it saves and exits; the same settings continue the run.
    """
    settings = replace(settings, base=str(model_folder(settings.base)))
    network = train(settings)
    save_model(network, str(Path(settings.out) / "network.safetensors"))
    if not settings.export:
        return Path(settings.out)
    from research.detection.release import release

    return release(network, settings)


@dataclass(frozen=True, slots=True)
class Step:
    """One update: its rows, its share of the peak learning rate, and what the teacher is worth."""

    rows: list[int]
    rate: float
    distillation: float
    distilled: float


def detector_loss(
    reading: NetworkOutput,
    batch: DetectionBatch,
    teacher: Tensor,
    *,
    distillation: float,
    token_weight: float,
    pair_weight: float = 0.0,
) -> dict[str, Tensor]:
    """The parts of the loss, their sum under ``loss``; ``teacher`` (n, width) is for the first n rows."""
    known = ~batch.labels.isnan()  # (batch, labels)
    scale = known * batch.weight[:, None] * torch.tensor([LABEL_WEIGHTS[label] for label in TRAINED])
    entropy = nn.functional.binary_cross_entropy_with_logits(
        reading.logits, batch.labels.nan_to_num(), reduction="none"
    )
    labels = (entropy * scale).sum() / batch.weight.sum()
    marked = batch.marks < 2  # (batch, time)
    entropy = nn.functional.binary_cross_entropy_with_logits(
        reading.token_logits, batch.marks.clamp(max=1), reduction="none"
    )
    tokens = (entropy * marked).sum() / marked.sum().clamp(min=1)
    distance = (1 - (reading.embedding[: len(teacher)] * teacher).sum(-1)).sum() / max(1, len(teacher))
    twins = twin_loss(reading.logits, batch)
    loss = labels + token_weight * tokens + distillation * distance + pair_weight * twins
    return {"loss": loss, "labels": labels, "tokens": tokens, "distance": distance, "twins": twins}


def twin_loss(logits: Tensor, batch: DetectionBatch) -> Tensor:
    """Mean of ``softplus(lower - higher)`` over twins that differ in toxicity or incivility."""
    twins = (batch.pair[:, None] == batch.pair) & (batch.pair > 0)  # (batch, batch)
    parts = []
    for label in RANKED:
        place = TRAINED.index(label)
        shares = batch.labels[:, place]
        above = twins & (shares[:, None] - shares >= TWINS_APART)  # False if a label is masked
        higher, lower = above.nonzero(as_tuple=True)
        parts.append(nn.functional.softplus(logits[lower, place] - logits[higher, place]))
    every = torch.cat(parts)
    return every.sum() / max(1, len(every))


def train(settings: DetectorSettings) -> DetectorNetwork:
    """The trained network; continues from a checkpoint in ``out`` that has the same settings."""
    # 1. Everything random follows from the seed and the position.
    torch.manual_seed(settings.seed)
    torch.set_num_threads(settings.threads)
    out = Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    network = _network(settings)
    original = DetectorNetwork.from_base(settings.base).encoder.eval().requires_grad_(False)

    # 2. Every row and every step, before the first of them.
    rows, steps, main = _schedule(settings)
    total = min(len(steps), settings.max_steps or len(steps))

    # 3. The steps, from where a checkpoint left off.
    def loss_of(number: int) -> tuple[dict[str, Tensor], int]:
        step = steps[number - 1]
        batch = pad([rows[place] for place in step.rows])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=uses_bfloat16(settings.dtype)):
            target = _original_embedding(original, batch, share=step.distilled)
            reading = network(batch.input_ids, batch.attention_mask, batch.case_ids)
        losses = detector_loss(
            reading,
            batch,
            target,
            distillation=step.distillation,
            token_weight=settings.token_weight,
            pair_weight=settings.pair_weight,
        )
        return losses, len(batch.weight)

    def keep_main_phase(number: int) -> None:
        if number == main < total:
            torch.save(dict(network.named_parameters()), out / "main.pt")

    take_steps(
        network,
        loss_of,
        name="detector",
        unit="texts",
        settings=settings,
        rates=[step.rate for step in steps[:total]],
        fingerprint=_fingerprint(settings, rows=len(rows)),
        facts={"rows": len(rows)},
        after=keep_main_phase,
    )

    # 4. The first phase ranks a little better, the last has the embedding: their average keeps most of both.
    if main < total:
        average(network, torch.load(out / "main.pt", weights_only=True), share=settings.averaged)
    if settings.blend:
        average(network, load_file(settings.blend), share=1 - settings.blended)
    return network.eval()


def _network(settings: DetectorSettings) -> DetectorNetwork:
    network = DetectorNetwork.from_base(settings.base)
    if settings.start:
        load_model(network, settings.start)
    if not settings.token_embeddings:
        network.encoder.embeddings.word_embeddings.requires_grad_(False)
    return network


@torch.no_grad()
def average(network: nn.Module, earlier: Mapping[str, Tensor], *, share: float) -> None:
    """Moves the network to ``share`` of itself plus the rest of earlier weights (Wortsman et al. 2022)."""
    for name, parameter in network.named_parameters():
        parameter.lerp_(earlier[name], 1 - share)


def _schedule(settings: DetectorSettings) -> tuple[list[Encoded], list[Step], int]:
    """All rows; the steps over them, passes and a last phase that settles the embedding; where it begins."""
    tokenizer = load_tokenizer(settings.base)
    texts = corpora.training_texts(settings.data, without=settings.without)
    texts = [text for text in texts if corpora.fold(text.key) >= corpora.HELD_OUT]
    scores = SoftScores.load(settings.soft) if settings.soft else None
    templates = Templates.load().split(held_out=TEMPLATES_HELD_OUT)[0] if settings.templates else None
    rows: list[Encoded] = []

    phases: list[list[list[int]]] = []
    for number, drawn in enumerate(draw_passes(texts, templates, settings)):
        if scores:
            drawn = [scores.blend(example, share=settings.soft_share) for example in drawn]
        encoded = encode(drawn, tokenizer, max_tokens=settings.max_tokens)
        groups = batches(encoded, tokens=settings.tokens_per_batch, seed=settings.seed * 1000 + number)
        phases.append([[len(rows) + place for place in group] for group in groups])
        rows.extend(encoded)
    *whole, last = phases
    main = [group for phase in whole for group in phase]
    steps = [
        *_steps(main, settings, peak=1.0, teacher=(settings.distillation, settings.distilled)),
        *_steps(
            last,
            settings,
            peak=settings.last_lr / settings.lr,
            teacher=(settings.last_distillation, settings.last_distilled),
        ),
    ]
    return rows, steps, len(main)


def _steps(
    plan: Sequence[list[int]], settings: DetectorSettings, *, peak: float, teacher: tuple[float, float]
) -> list[Step]:
    rates = (learning_rate(place, total=len(plan), warmup=settings.warmup) for place in range(len(plan)))
    return [Step(group, peak * rate, *teacher) for group, rate in zip(plan, rates, strict=True)]


@torch.no_grad()
def _original_embedding(original: Any, batch: DetectionBatch, *, share: float) -> Tensor:
    """What the untouched encoder makes of the first ``share`` of a batch, (n, width); n may be 0."""
    count = round(share * len(batch.weight)) if share == 0 else max(1, round(share * len(batch.weight)))
    ids, mask = batch.input_ids[:count], batch.attention_mask[:count]
    if not count:
        return torch.zeros(0, original.config.hidden_size)
    states = original(input_ids=ids, attention_mask=mask).last_hidden_state
    return mean_embedding(states.float(), mask)


def _fingerprint(settings: DetectorSettings, *, rows: int) -> str:
    """The settings that decide the course of training, in one hash; a blend comes after it."""
    decisive = {**course(settings), "rows": rows}
    del decisive["blend"], decisive["blended"]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()
