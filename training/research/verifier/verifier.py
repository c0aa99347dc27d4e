"""Trains the verifier: one encoder that reads a sentence and its rewrite and says whether that is acceptable.

    python -m research verifier --base minilm-l6-v2 --data DIR --out DIR

It learns from references (acceptable), from candidates with a made fault and from references that a rule
refuses (not acceptable), and from outputs of a rewriter that readers rated, which weigh most. A part of the
sources is held out of all four. ``start`` goes on from a detector's encoder, which knows what is hostile.

Steps: 1. gather the candidates, hold sources out; 2. draw every pass; 3. AdamW with warm-up and linear decay
on cross-entropy of "acceptable", and of what is wrong where that is known; 4. calibrate, fix the threshold on
held-out candidates, export as 8-bit ONNX with its manifest (``release``).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_model
from torch import Tensor, nn

from guardrail_training.provenance import model_folder
from research.detection.batches import batches, load_tokenizer
from research.detection.optimiser import learning_rate, take_steps, uses_bfloat16
from research.verifier.batches import UNKNOWN, Batch, Row, encode, pad
from research.verifier.examples import Example, Examples, gather
from research.verifier.network import VerifierNetwork
from research.verifier.settings import VerifierSettings, course

__all__ = ["VerifierSettings", "run", "train", "verifier_loss"]


def run(settings: VerifierSettings) -> Path:
    """Trains, calibrates, exports; returns the folder with ``model.onnx`` and ``manifest.json``.

    Interrupted, it saves and exits; the same settings continue the run.
    """
    from research.verifier.release import release

    settings = replace(settings, base=str(model_folder(settings.base)))
    examples = gather(settings)
    network = train(settings, examples)
    save_model(network, str(Path(settings.out) / "network.safetensors"))
    return release(network, settings, examples)


def verifier_loss(logits: Tensor, batch: Batch, *, fault_weight: float) -> dict[str, Tensor]:
    """Weighted cross-entropy of "acceptable" and of the known faults; their sum under ``loss``."""
    known = batch.targets != UNKNOWN  # (batch, 1 + faults)
    entropy = nn.functional.binary_cross_entropy_with_logits(
        logits, batch.targets.clamp(min=0.0), reduction="none"
    )
    entropy = entropy * known * batch.weight[:, None]
    acceptable = entropy[:, 0].sum() / batch.weight.sum()
    faults = entropy[:, 1:].sum() / batch.weight.sum()
    return {"loss": acceptable + fault_weight * faults, "acceptable": acceptable, "faults": faults}


def train(settings: VerifierSettings, examples: Examples) -> VerifierNetwork:
    """The trained network; continues from a checkpoint in ``out`` that has the same settings."""
    # 1. Everything random follows from the seed and the position.
    torch.manual_seed(settings.seed)
    torch.set_num_threads(settings.threads)
    out = Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    network = VerifierNetwork.from_base(settings.base, start=settings.start)

    # 2. Every row and every step, before the first of them.
    rows = encode(examples.train, load_tokenizer(settings.base), max_tokens=settings.max_tokens)
    steps = _steps(rows, settings)
    total = min(len(steps), settings.max_steps or len(steps))

    # 3. The steps, from where a checkpoint left off.
    def loss_of(number: int) -> tuple[dict[str, Tensor], int]:
        batch = pad([rows[place] for place in steps[number - 1]])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=uses_bfloat16(settings.dtype)):
            logits = network(batch.input_ids, batch.attention_mask, batch.kind_ids)
        return verifier_loss(logits, batch, fault_weight=settings.fault_weight), len(batch.weight)

    take_steps(
        network,
        loss_of,
        name="verifier",
        unit="pairs",
        settings=settings,
        rates=[learning_rate(place, total=len(steps), warmup=settings.warmup) for place in range(total)],
        fingerprint=_fingerprint(settings, examples.train),
        facts={"rows": len(rows), "examples": examples.counts()},
    )
    return network.eval()


def _steps(rows: list[Row], settings: VerifierSettings) -> list[list[int]]:
    """The rows of every step of all passes; a rated one stands in each pass ``rated_repeats`` times."""
    places = [
        place for place, row in enumerate(rows) for _ in range(settings.rated_repeats if row.is_rated else 1)
    ]
    repeated = [rows[place] for place in places]
    return [
        [places[place] for place in group]
        for number in range(settings.passes)
        for group in batches(repeated, tokens=settings.tokens_per_batch, seed=settings.seed * 1000 + number)
    ]


def _fingerprint(settings: VerifierSettings, examples: tuple[Example, ...]) -> str:
    """The settings and candidates that decide the course of training, in one hash."""
    chosen = course(settings)
    del chosen["precision"], chosen["threshold"]  # come after it
    digest = hashlib.sha256(json.dumps(chosen, sort_keys=True).encode())
    for example in examples:
        digest.update(
            json.dumps([example.source, example.candidate, example.origin, example.weight]).encode()
        )
    return digest.hexdigest()
