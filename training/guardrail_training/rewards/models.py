"""Scores that models give: our detector, closeness of meaning, fluency, any sequence classifier."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from guardrail.errors import ConfigError, ModelMissingError, UsageError
from guardrail.outcome import LABELS
from guardrail.protocols import Detector, Embedder, Verifier
from guardrail_training.metrics.fluency import surprise
from guardrail_training.rewards.algebra import Answer, Floats, Score

__all__ = [
    "Classified",
    "acceptable",
    "classify",
    "clean",
    "fluency",
    "load_classifier",
    "meaning",
    "sequence_classifier",
]

CPU = torch.device("cpu")
OUTPUTS = ("logit", "probability")
OVER = ("response", "query+response", "prompt+response")

COMMIT = re.compile(r"[0-9a-f]{40}")
CLASSIFIER_BATCH = 16
MAX_TOKENS = 512  # tokens, special ones among them
MIN_SHARE = 1e-4  # a logit stays within 9.3 of 0


def acceptable(verifier: Verifier) -> Score:
    """The probability, 0..1, that a reader accepts the response as a rewrite of the query."""

    def score(answers: Sequence[Answer]) -> Floats:
        found = verifier.verify([a.query for a in answers], [a.response for a in answers])
        return np.asarray(found, dtype=np.float32)

    return score


def clean(detector: Detector, *, label: str, output: str) -> Score:
    """How sure the detector is that the response is free of ``label``: a probability, or its logit.

    The logit still tells answers apart where probabilities are nearly equal.
    """
    _require_known(output, OUTPUTS, setting="output of clean")
    _require_known(label, LABELS, setting="label of clean")

    def score(answers: Sequence[Answer]) -> Floats:
        verdicts = detector.detect([answer.response for answer in answers])
        shares = 1 - np.array([verdict.scores[label] for verdict in verdicts], dtype=np.float64)
        if output == "probability":
            return shares.astype(np.float32)
        shares = shares.clip(MIN_SHARE, 1 - MIN_SHARE)
        return np.asarray(np.log(shares / (1 - shares)), dtype=np.float32)

    return score


def meaning(embedder: Embedder) -> Score:
    """The cosine of the embeddings of query and response, negative ones taken as 0: 0..1."""

    def score(answers: Sequence[Answer]) -> Floats:
        texts = list(dict.fromkeys(text for a in answers for text in (a.query, a.response)))
        place = {text: row for row, text in enumerate(texts)}
        rows = np.asarray(embedder.embed(texts), dtype=np.float64)
        left, right = (
            rows[[place[text] for text in side]]
            for side in ([a.query for a in answers], [a.response for a in answers])
        )
        return np.asarray((left * right).sum(axis=1).clip(0, 1), dtype=np.float32)

    return score


def fluency(model: Any, tokenizer: Any) -> Score:
    """1 if a causal language model finds the response no more surprising per token than the query.

    Otherwise the ratio of the two perplexities, 0..1; 0 for an empty response. Relative to the query, because
    perplexity depends more on the subject than on the writing.
    """

    def score(answers: Sequence[Answer]) -> Floats:
        of = {
            side: surprise(model, tokenizer, [getattr(answer, side) for answer in answers])
            for side in ("query", "response")
        }
        means = {side: found.nats / np.maximum(found.tokens, 1) for side, found in of.items()}
        ratio = np.exp(np.minimum(0.0, means["query"] - means["response"]))
        return np.where(of["response"].tokens > 0, ratio, 0.0).astype(np.float32)

    return score


def load_classifier(
    folder_or_id: str,
    *,
    revision: str | None = None,
    device: torch.device = CPU,
    dtype: torch.dtype = torch.float32,
) -> tuple[Any, Any]:
    """A sequence classifier and its tokenizer, from a folder, or by hub id at a pinned commit.

    Only safetensors are read, no code of the model runs, nothing is downloaded. Raises UsageError for a hub
    id without a full commit hash, ModelMissingError if the files are not there.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    if not Path(folder_or_id).is_dir() and not COMMIT.fullmatch(revision or ""):
        raise UsageError(
            f"{folder_or_id!r} is not a folder; to take it from the hub's cache, pin revision= to a commit "
            "hash of 40 hexadecimal digits"
        )
    pinned = {"revision": revision, "local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder_or_id, **pinned)
        model = AutoModelForSequenceClassification.from_pretrained(
            folder_or_id, use_safetensors=True, dtype=dtype, **pinned
        )
    except (OSError, ValueError) as error:
        raise ModelMissingError(
            f"{folder_or_id!r} has no classifier in safetensors on this machine; check the path, or fetch it"
        ) from error
    return model.requires_grad_(False).eval().to(device), tokenizer


def sequence_classifier(model: Any, tokenizer: Any, *, label: str, output: str, over: str) -> Score:
    """A classifier's logit or probability of its class ``label``.

    It reads the response, or query or prompt and response joined as they stand; what is longer than it can
    read is cut at the start, so that the response stays. Probabilities are shares of a softmax, or sigmoids
    where the classifier says that its labels do not exclude each other or there is only one. Raises
    ConfigError if the class is not there.
    """
    _require_known(output, OUTPUTS, setting="output of a classifier")
    _require_known(over, OVER, setting="over of a classifier")
    column = _column(model.config.id2label, label)

    def score(answers: Sequence[Answer]) -> Floats:
        found = classify(model, tokenizer, [_joined(answer, over) for answer in answers])
        return (found.logits if output == "logit" else found.probabilities)[:, column]

    return score


@dataclass(frozen=True, slots=True, eq=False)
class Classified:
    """A classifier's classes, and for each text its logits and probabilities, both ``(texts, classes)``."""

    labels: tuple[str, ...]
    logits: Floats
    probabilities: Floats


def classify(model: Any, tokenizer: Any, texts: Sequence[str]) -> Classified:
    """Logits and probabilities of all classes; ``sequence_classifier`` says what of a long text is read and
    what the probabilities are shares of."""
    longest = min(tokenizer.model_max_length, _window(model), MAX_TOKENS)
    tokenizer.truncation_side = "left"
    # A classifier without a padding token cannot take rows of different lengths.
    has_padding = tokenizer.pad_token is not None
    size, rows = CLASSIFIER_BATCH if has_padding else 1, []
    for start in range(0, len(texts), size):
        part = list(texts[start : start + size])
        inputs = tokenizer(
            part, truncation=True, max_length=longest, padding=has_padding, return_tensors="pt"
        )
        with torch.no_grad():
            rows.append(model(**inputs.to(model.device)).logits.float().cpu())
    logits = torch.cat(rows)
    is_multi_label = model.config.problem_type == "multi_label_classification" or model.config.num_labels == 1
    probabilities = logits.sigmoid() if is_multi_label else logits.softmax(dim=1)
    labels = tuple(model.config.id2label[place] for place in range(logits.shape[1]))
    return Classified(labels, logits.numpy(), probabilities.numpy())


def _window(model: Any) -> int:
    """How many tokens the classifier has positions for."""
    positions = getattr(model.config, "max_position_embeddings", None) or MAX_TOKENS
    # The RoBERTa family counts positions from the padding's index on, and its embeddings alone know one.
    padding = getattr(getattr(model.base_model, "embeddings", None), "padding_idx", None)
    return int(positions if padding is None else positions - padding - 1)


def _column(id2label: dict[int, str], label: str) -> int:
    columns = [column for column, name in id2label.items() if name == label]
    if not columns:
        raise ConfigError(
            f"the classifier has no class {label!r}; its classes are {sorted(id2label.values())}"
        )
    return columns[0]


def _require_known(value: str, known: Sequence[str], *, setting: str) -> None:
    if value not in known:
        raise ConfigError(f"{setting} must be one of {', '.join(known)}, got {value!r}")


def _joined(answer: Answer, over: str) -> str:
    if over == "response":
        return answer.response
    return (answer.query if over == "query+response" else answer.prompt) + answer.response
