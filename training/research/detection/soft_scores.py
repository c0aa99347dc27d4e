"""Scores that a larger network gives the training texts, for the shipped one to learn from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_model

from research.detection import corpora
from research.detection.augment import Marked
from research.detection.batches import batches, encode, load_tokenizer, pad
from research.detection.hard_negatives import Templates
from research.detection.labelled import TRAINED
from research.detection.mixture import TEMPLATES_HELD_OUT, DetectionExample, draw_passes
from research.detection.network import DetectorNetwork
from research.detection.settings import DetectorSettings

__all__ = ["SoftScores", "read_scores", "score_texts", "training_scores"]

# Sources whose labels are noisy, or answer another question than ours.
SCORED = (
    "implicit_hate",
    "gab_hate",
    "dynahate",
    "hatemoji_build",
    "sbic",
    "edos",
    "online_misogyny",
    "convabuse",
    "diasafety",
    "stormfront",
    "everyday",
    "own",
    "rewrites",
)
OWN = ("everyday_", "own_", "rewrites_", "template_")


class SoftScores:
    """Scores per label in the order of ``TRAINED`` by text; texts are known by a hash."""

    def __init__(self, rows: dict[str, np.ndarray[Any, Any]]) -> None:
        self._rows = rows

    @classmethod
    def load(cls, path: str | Path) -> SoftScores:
        """From a file that ``save`` wrote."""
        with np.load(path, allow_pickle=False) as file:
            return cls(dict(zip(file["keys"].tolist(), file["scores"].astype(np.float32), strict=True)))

    def save(self, path: str | Path) -> None:
        """Writes one compressed file without pickles."""
        scores = np.stack(list(self._rows.values())).astype(np.float16)
        np.savez_compressed(path, keys=np.array(list(self._rows)), scores=scores)

    def blend(self, example: DetectionExample, *, share: float) -> DetectionExample:
        """The example with labels moved by ``share`` to its text's scores, and unknown labels filled in.

        Sentences of this project keep their own labels, whose twins differ in a word.
        """
        row = self._rows.get(_key(example.origin)) if example.origin else None
        if row is None:
            return example
        kept = 0.15 if example.source.startswith(OWN) else share
        labels = tuple(
            float(score) if label is None else (1 - kept) * label + kept * float(score)
            for label, score in zip(example.labels, row, strict=True)
        )
        return replace(example, labels=labels)


def read_scores(base: str | Path, network: str | Path, texts: Sequence[str], *, threads: int) -> SoftScores:
    """The scores of ``texts`` by a trained network, ``network.safetensors`` on the encoder ``base``."""
    torch.set_num_threads(threads)
    loaded = DetectorNetwork.from_base(base)
    load_model(loaded, str(network))
    scores = score_texts(loaded.eval(), base, texts)
    return SoftScores({_key(text): row for text, row in zip(texts, scores, strict=True)})


@torch.inference_mode()
def score_texts(
    network: DetectorNetwork, base: str | Path, texts: Sequence[str], *, max_tokens: int = 96
) -> np.ndarray[Any, Any]:
    """Probabilities (texts, labels) in the order of ``TRAINED``, uncalibrated."""
    nothing = (None,) * len(TRAINED)
    rows = encode(
        [DetectionExample(Marked.of(text, None), nothing, 1.0, "") for text in texts],
        load_tokenizer(base),
        max_tokens=max_tokens,
    )
    scores = np.zeros((len(texts), len(TRAINED)), np.float32)
    for places in batches(rows, tokens=4096, seed=None):
        batch = pad([rows[place] for place in places])
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=torch.cpu._is_avx512_bf16_supported()):
            logits = network(batch.input_ids, batch.attention_mask, batch.case_ids).logits
        scores[places] = logits.sigmoid().numpy()
    return scores


def _key(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]


def training_scores(settings: DetectorSettings, *, base: str | Path, network: str | Path) -> SoftScores:
    """The scores of every text that a training with these settings draws, in all its passes."""
    texts = [
        text
        for text in corpora.training_texts(settings.data, without=settings.without)
        if corpora.fold(text.key) >= corpora.HELD_OUT
    ]
    templates = Templates.load().split(held_out=TEMPLATES_HELD_OUT)[0] if settings.templates else None
    scored = {text.text for text in texts if text.key.split(":")[0] in SCORED}
    drawn: dict[str, None] = {}
    for examples in draw_passes(texts, templates, settings):
        drawn.update({example.origin: None for example in examples if example.origin in scored})
    return read_scores(base, network, list(drawn), threads=settings.threads)
