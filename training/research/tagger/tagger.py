"""Trains the edit tagger: one encoder that says of each word whether it stays, goes or becomes a phrase.

    python -m research tagger --base minilm-l6-v2 --data DIR --out DIR

It learns from the pairs of a rewriter's adapter (``python -m research rewriter-data``), aligned word by word:
the hand-written ones, ParaDetox cleaned, and texts in which all is kept. A share of the hand-written sources
is held out. ``start`` continues from a detector's encoder, which knows what is hostile.

Steps: 1. gather the pairs, hold sources out, count the phrases; 2. draw every pass; 3. AdamW with warm-up and
linear decay on cross-entropy of the words' tags; 4. export as 8-bit ONNX with its manifest, and measure on
held-out pairs (``release``).
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
from research.tagger.batches import UNTAGGED, TaggerBatch, encode, pad
from research.tagger.examples import TaggedExamples, gather
from research.tagger.network import TaggerNetwork
from research.tagger.settings import TaggerSettings, course

__all__ = ["TaggerSettings", "run", "tagger_loss", "train"]


def run(settings: TaggerSettings) -> Path:
    """Trains, exports, measures; returns the folder with ``model.onnx`` and ``manifest.json``.

    Interrupted, it saves and exits; the same settings continue the run.
    """
    from research.tagger.release import release

    settings = replace(settings, base=str(model_folder(settings.base)))
    examples = gather(settings)
    network = train(settings, examples)
    save_model(network, str(Path(settings.out) / "network.safetensors"))
    return release(network, settings, examples)


def tagger_loss(logits: Tensor, batch: TaggerBatch) -> Tensor:
    """Cross-entropy of the tags, weighted by text, over the number of tagged words."""
    entropy = nn.functional.cross_entropy(
        logits.transpose(1, 2), batch.tags, reduction="none", ignore_index=UNTAGGED
    )  # (batch, time)
    return (entropy.sum(1) * batch.weight).sum() / (batch.tags != UNTAGGED).sum()


def train(settings: TaggerSettings, examples: TaggedExamples) -> TaggerNetwork:
    """The trained network; continues from a checkpoint in ``out`` that has the same settings."""
    # 1. Everything random follows from the seed and the position.
    torch.manual_seed(settings.seed)
    torch.set_num_threads(settings.threads)
    out = Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    network = TaggerNetwork.from_base(
        settings.base, tags=len(examples.labels), start=settings.start, dropout=settings.dropout
    )

    # 2. Every row and every step, before the first of them.
    rows = encode(
        examples.train,
        load_tokenizer(settings.base),
        labels=examples.labels,
        max_tokens=settings.max_tokens,
    )
    steps = [
        group
        for number in range(settings.passes)
        for group in batches(rows, tokens=settings.tokens_per_batch, seed=settings.seed * 1000 + number)
    ]
    total = min(len(steps), settings.max_steps or len(steps))

    # 3. The steps, from where a checkpoint left off.
    def loss_of(number: int) -> tuple[dict[str, Tensor], int]:
        torch.manual_seed(settings.seed * 1_000_003 + number)  # dropout, however often it was interrupted
        batch = pad([rows[place] for place in steps[number - 1]])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=uses_bfloat16(settings.dtype)):
            logits = network(batch.input_ids, batch.attention_mask)
        return {"loss": tagger_loss(logits, batch)}, len(batch.weight)

    take_steps(
        network,
        loss_of,
        name="tagger",
        unit="texts",
        settings=settings,
        rates=[learning_rate(place, total=len(steps), warmup=settings.warmup) for place in range(total)],
        fingerprint=_fingerprint(settings, examples),
        facts={"rows": len(rows), "examples": examples.counts()},
    )
    return network.eval()


def _fingerprint(settings: TaggerSettings, examples: TaggedExamples) -> str:
    """The settings and texts that decide the course of training, in one hash."""
    digest = hashlib.sha256(json.dumps(course(settings), sort_keys=True).encode())
    for example in examples.train:
        digest.update(json.dumps([example.source, example.labels, example.weight]).encode())
    return digest.hexdigest()
