"""Any sequence classifier of the transformers library as a detector."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from guardrail.detectors.windows import buckets, split_runs
from guardrail.errors import ConfigError, MissingExtraError, ModelMissingError, UsageError
from guardrail.outcome import LABELS, Verdict

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["TransformersDetector"]

_COMMIT = re.compile(r"[0-9a-f]{40}")
_MAX_WINDOW = 512

Scores = npt.NDArray[np.float32]


class TransformersDetector:
    """Detector over a classifier and its tokenizer, which must be a fast one.

    ``labels`` maps the classifier's label names to labels of verdicts; names left out are ignored, several
    may share one (the highest counts). Without it the names that are labels already are used. Scores are
    sigmoids for multi-label models and for a single output, otherwise softmax shares. A text is flagged if
    any score is at least ``threshold``. Long texts are read in overlapping windows whose highest scores
    count; there are no spans. Raises ConfigError if no label is left, MissingExtraError without torch.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        labels: Mapping[str, str] | None = None,
        threshold: float = 0.5,
    ) -> None:
        self._torch = _imported("torch")
        self._model: Any = model.eval()
        self._tokenizer: Any = tokenizer
        self._columns = _columns(model.config.id2label, labels)
        self._threshold = threshold
        self._is_multi_label = (
            model.config.problem_type == "multi_label_classification" or len(model.config.id2label) == 1
        )
        positions = getattr(model.config, "max_position_embeddings", None) or _MAX_WINDOW
        # Two fewer: the RoBERTa family counts positions from the padding index on.
        self._window = min(tokenizer.model_max_length, positions - 2, _MAX_WINDOW)

    @classmethod
    def load(
        cls,
        folder_or_id: str | Path,
        *,
        revision: str | None = None,
        labels: Mapping[str, str] | None = None,
        threshold: float = 0.5,
        local_files_only: bool = True,
    ) -> TransformersDetector:
        """The detector of a folder, or of a hub id at a pinned commit.

        Only safetensors are read and no code from the model runs. Nothing is downloaded unless
        ``local_files_only=False``. Raises UsageError for a hub id without a full commit hash,
        ModelMissingError if the files are not there.
        """
        transformers = _imported("transformers")
        if not Path(folder_or_id).is_dir() and not _COMMIT.fullmatch(revision or ""):
            raise UsageError(
                f"{str(folder_or_id)!r} is not a folder; to load it from a hub, pin revision= to a commit "
                "hash of 40 hexadecimal digits"
            )
        pinned = {"revision": revision, "local_files_only": local_files_only, "trust_remote_code": False}
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder_or_id, **pinned)
            model = transformers.AutoModelForSequenceClassification.from_pretrained(
                folder_or_id, use_safetensors=True, dtype="float32", **pinned
            )
        except OSError as error:
            raise ModelMissingError(
                f"{str(folder_or_id)!r} has no classifier in safetensors on this machine; "
                "check the path, or allow its download with local_files_only=False"
            ) from error
        return cls(model, tokenizer, labels=labels, threshold=threshold)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that verdicts have scores of."""
        return tuple(dict.fromkeys(label for _, label in self._columns))

    def detect(self, texts: Sequence[str]) -> list[Verdict]:
        """One verdict per text, in order."""
        if not texts:
            return []
        windows = self._tokenizer(
            [split_runs(text)[0] for text in texts],
            truncation=True,
            max_length=self._window,
            stride=self._window // 4,
            return_overflowing_tokens=True,
        )
        firsts = np.searchsorted(windows.pop("overflow_to_sample_mapping"), np.arange(len(texts)))
        highest = np.maximum.reduceat(self._scores(windows), firsts)  # (texts, outputs)
        return [self._verdict(row) for row in highest]

    def _scores(self, windows: Mapping[str, Sequence[Any]]) -> Scores:
        lengths = [len(ids) for ids in windows["input_ids"]]
        scores = np.zeros((len(lengths), self._model.config.num_labels), dtype=np.float32)
        for bucket in buckets(lengths):
            # A classifier without a padding token cannot take rows of different lengths.
            for rows in [bucket] if self._tokenizer.pad_token else [[row] for row in bucket]:
                scores[rows] = self._pass(
                    {key: [values[row] for row in rows] for key, values in windows.items()}
                )
        return scores

    def _pass(self, rows: Mapping[str, Sequence[Any]]) -> Scores:
        torch = self._torch
        if self._tokenizer.pad_token:
            padded = self._tokenizer.pad(rows, return_tensors="pt")
        else:
            padded = {key: torch.tensor(values) for key, values in rows.items()}
        with torch.inference_mode():
            logits = self._model(
                **{key: values.to(self._model.device) for key, values in padded.items()}
            ).logits
        shares = logits.sigmoid() if self._is_multi_label else logits.softmax(dim=-1)
        return np.asarray(shares.float().cpu().numpy())

    def _verdict(self, scores: Scores) -> Verdict:
        by_label: dict[str, float] = {}
        for column, label in self._columns:
            by_label[label] = max(by_label.get(label, 0.0), float(scores[column]))
        return Verdict(scores=by_label, flagged=max(by_label.values()) >= self._threshold)


def _columns(id2label: Mapping[int, str], labels: Mapping[str, str] | None) -> list[tuple[int, str]]:
    """Pairs of an output's number and the label it counts for."""
    names = {name: column for column, name in id2label.items()}
    chosen = {name: name for name in names if name in LABELS} if labels is None else labels
    unknown = sorted(set(chosen) - set(names))
    if unknown or not chosen:
        raise ConfigError(
            f"labels= must map names that the classifier has ({sorted(names)}), got {sorted(chosen)}"
        )
    return [(names[name], label) for name, label in chosen.items()]


def _imported(name: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise MissingExtraError(feature="TransformersDetector", extra="torch") from error
