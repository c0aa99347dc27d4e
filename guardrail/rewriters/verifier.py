"""The default verifier: one small encoder in ONNX that reads source and candidate together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from guardrail.detectors.session import open_session, open_tokenizer, sigmoid
from guardrail.detectors.windows import buckets
from guardrail.errors import ManifestError
from guardrail.manifest import Manifest, is_number
from guardrail.rewriters.pairs import PairTokens, tokens_of_pair

__all__ = ["LABEL", "OnnxVerifier"]

SHIPPED = Path(__file__).parent.parent / "shipped" / "verifier"
MODEL, TOKENIZER, LABEL = "model.onnx", "tokenizer.json", "acceptable"
_WINDOW = 512

Floats = npt.NDArray[np.float32]


class OnnxVerifier:
    """Verifier over a model folder.

    The folder holds ``tokenizer.json``, the manifest that pins all files, and ``model.onnx``, which takes
    ``input_ids``, ``attention_mask`` and ``kind_ids`` (``guardrail.rewriters.pairs``) and gives ``logits``
    (batch, 1). A pair that is too long to be read is not acceptable: its probability is 0. ``threshold`` is
    the probability from which the maker of the model takes a candidate. ``threads`` and ``spinning`` are
    those of the detector. Raises ManifestError before anything is opened if a file is missing or altered,
    ModelFileError if one cannot be read.
    """

    def __init__(self, folder: str | Path, *, threads: int | None = None, spinning: bool = False) -> None:
        self.manifest = Manifest.load(folder)
        _require(self.manifest, folder)
        self.threshold = float(self.manifest.threshold or 0.0)
        self._slope, self._offset = (self.manifest.calibration[LABEL][name] for name in "ab")
        self._max_tokens = int(self.manifest.settings.get("window", _WINDOW))
        self._tokenizer = open_tokenizer(Path(folder) / TOKENIZER)
        self._pad = self._tokenizer.token_to_id("[PAD]")
        self._session = open_session(Path(folder) / MODEL, threads=threads, spinning=spinning)

    @classmethod
    def shipped(cls, *, threads: int | None = None, spinning: bool = False) -> OnnxVerifier:
        """The verifier inside this package."""
        return cls(SHIPPED, threads=threads, spinning=spinning)

    def verify(self, sources: Sequence[str], candidates: Sequence[str]) -> list[float]:
        """For each candidate the probability, 0..1, that it is acceptable; each pair is judged alone."""
        logits = self.logits(sources, candidates)
        shown = np.where(np.isfinite(logits), logits, np.float32(0.0))
        calibrated = sigmoid(np.float32(self._slope) * shown + np.float32(self._offset))
        probabilities: list[float] = np.where(np.isfinite(logits), calibrated, np.float32(0.0)).tolist()
        return probabilities

    def logits(self, sources: Sequence[str], candidates: Sequence[str]) -> Floats:
        """Shape (n,), float32: what the model says before calibration; minus infinity of what is too long."""
        logits = np.full(len(candidates), -np.inf, dtype=np.float32)
        rows: dict[int, PairTokens] = {}
        for place, (source, candidate) in enumerate(zip(sources, candidates, strict=True)):
            row = tokens_of_pair(self._tokenizer, source, candidate, max_tokens=self._max_tokens)
            if row is not None:
                rows[place] = row
        places = list(rows)
        for bucket in buckets([len(row) for row in rows.values()]):
            bucket_places = [places[each] for each in bucket]
            logits[bucket_places] = self._pass([rows[place] for place in bucket_places])
        return logits

    def _pass(self, rows: Sequence[PairTokens]) -> Floats:
        """The logits of rows of similar length, (batch,), in one call of the model."""
        ids = np.full((len(rows), max(map(len, rows))), self._pad, dtype=np.int64)  # (batch, time)
        mask, kinds = np.zeros_like(ids), np.zeros_like(ids)
        for place, row in enumerate(rows):
            ids[place, : len(row)], kinds[place, : len(row)] = row.ids, row.kinds
            mask[place, : len(row)] = 1
        given = {"input_ids": ids, "attention_mask": mask, "kind_ids": kinds}
        logits: Floats = self._session.run(["logits"], given)[0][:, 0]
        return logits


def _require(manifest: Manifest, folder: str | Path) -> None:
    """Raises ManifestError unless the manifest is a verifier's with all that a probability needs."""
    lacking = [name for name in (MODEL, TOKENIZER) if name not in manifest.files]
    if manifest.kind != "verifier" or lacking:
        raise ManifestError(f"{folder} is not a complete verifier: kind {manifest.kind!r}, lacking {lacking}")
    line = manifest.calibration.get(LABEL, {})
    usable = {
        "threshold": is_number(manifest.threshold, 0.0, 1.0),
        "window": is_number(manifest.settings.get("window", _WINDOW), 8, math.inf),
        f"calibration of {LABEL}": all(is_number(line.get(name), -math.inf, math.inf) for name in "ab"),
    }
    if unusable := [name for name, holds in usable.items() if not holds]:
        raise ManifestError(f"{folder} has a manifest without a usable number for {unusable}; fetch it again")
