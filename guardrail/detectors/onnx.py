"""The default detector: one small encoder in ONNX that scores, marks words and embeds in one pass."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from guardrail.detectors import languages
from guardrail.detectors.density import is_dense, max_tokens, thinned
from guardrail.detectors.normalise import second_reading
from guardrail.detectors.reading import Normalised
from guardrail.detectors.recent import Recent
from guardrail.detectors.scripts import has_foreign_letters_only, is_unreadable
from guardrail.detectors.session import open_session, open_tokenizer, sigmoid
from guardrail.detectors.windows import Encoding, Window, buckets, encode, windows
from guardrail.errors import ManifestError
from guardrail.manifest import Manifest, is_number
from guardrail.outcome import Span, Verdict

__all__ = ["OnnxDetector"]

SHIPPED = Path(__file__).parent.parent / "shipped" / "detector"
MODEL, TOKENIZER = "model.onnx", "tokenizer.json"
_WINDOW = 256
_SPAN_THRESHOLD = 0.5
_REMEMBERED = 512
# Below this share of the lowest score that flags, a text adds nothing to what its neighbours say.
_CLEAR_SHARE = 1 / 3

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """What the encoder says of one window: per label, of the whole, per token."""

    logits: Floats  # (labels,)
    embedding: Floats  # (dimensions,)
    token_logits: Floats  # (tokens,)


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """One way to read a text: as it stands (``normal`` is None), or with obfuscation undone."""

    normal: Normalised | None
    encoding: Encoding

    def shown(self, text: str) -> str:
        """The characters that are read for a text."""
        return text if self.normal is None else self.normal.text


@dataclass(frozen=True, slots=True, eq=False)
class _Readings:
    """How a text is read; ``is_language`` is false if no way to read it finds words enough."""

    ways: Sequence[_Reading]
    is_language: bool
    is_unsupported: bool


class OnnxDetector:
    """Detector and embedder over a model folder.

    The folder holds ``tokenizer.json``, the manifest that pins all files, and ``model.onnx``, which takes
    ``input_ids``, ``attention_mask`` and, if it has that input, ``case_ids`` (each token's letter case), and
    gives ``logits`` (batch, labels), ``embedding`` (batch, dimensions) and ``token_logits`` (batch, time).

    Args:
        folder: The model folder.
        threads: Maximum threads of a pass; None: as many as physical cores.
        spinning: Threads wait for work in a loop: a little faster on a quiet machine, at the price of more
            processor time (``python -m benchmarks.spinning``).

    Raises:
        ManifestError: If a file is missing or altered; nothing is opened then.
        ModelFileError: If a file cannot be read.
    """

    def __init__(self, folder: str | Path, *, threads: int | None = None, spinning: bool = False) -> None:
        self.manifest = Manifest.load(folder)
        _require(self.manifest, folder)
        self._threshold = float(self.manifest.threshold or 0.0)
        self._span_threshold = float(self.manifest.settings.get("span_threshold", _SPAN_THRESHOLD))
        self._presets = self.manifest.settings.get("presets", {})
        lowest = min(self._threshold, *_limits(self._presets)) if self._presets else self._threshold
        self._clear_below = float(self.manifest.settings.get("clear_threshold", _CLEAR_SHARE * lowest))
        self._tokenizer = open_tokenizer(Path(folder) / TOKENIZER)
        self._cls, self._sep, self._pad, self._unknown = (
            self._tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]", "[PAD]", "[UNK]")
        )
        self._window = int(self.manifest.settings.get("window", _WINDOW)) - 2
        self._session = open_session(Path(folder) / MODEL, threads=threads, spinning=spinning)
        self._inputs = [each.name for each in self._session.get_inputs()]
        calibration = [self.manifest.calibration[label] for label in self.manifest.labels]
        self._slopes = np.array([c["a"] for c in calibration], dtype=np.float32)
        self._offsets = np.array([c["b"] for c in calibration], dtype=np.float32)
        self._recent = Recent(_REMEMBERED)

    @classmethod
    def shipped(cls, *, threads: int | None = None, spinning: bool = False) -> OnnxDetector:
        """The detector inside this package."""
        return cls(SHIPPED, threads=threads, spinning=spinning)

    def detect(self, texts: Sequence[str]) -> list[Verdict]:
        """One verdict per text; scores are calibrated, the maximum over windows and over both readings."""
        readings = {text: self._readings(text) for text in texts}  # a text that comes twice is read once
        reads = iter(self._read([way.encoding for of_text in readings.values() for way in of_text.ways]))
        verdicts = {}
        for text, of_text in readings.items():
            judged = [(way, next(reads)) for way in of_text.ways]
            if judged and judged[0][0].normal is None:
                self._recent[text] = _pooled(judged[0][1])
            verdicts[text] = self._verdict(text, of_text, judged)
        return [verdicts[text] for text in texts]

    def embed(self, texts: Sequence[str]) -> Floats:
        """Shape (n, dimensions), float32, unit length; what ``detect`` has just read is not read again."""
        found = {text: self._recent.get(text) for text in texts}
        missing = [text for text, row in found.items() if row is None]
        reads = self._read([self._thinned(encode(self._tokenizer, text), text) for text in missing])
        for text, of_text in zip(missing, reads, strict=True):
            self._recent[text] = found[text] = _pooled(of_text)
        rows = [row for text in texts if (row := found[text]) is not None]
        return np.stack(rows) if rows else np.zeros((0, self._dimensions), dtype=np.float32)

    @property
    def _dimensions(self) -> int:
        return int(next(o.shape[-1] for o in self._session.get_outputs() if o.name == "embedding"))

    def _readings(self, text: str) -> _Readings:
        """The text as it stands and with obfuscation undone; only the latter if both are too much to read.

        A way to read it is left out if it shows letters, but none that the model knows.
        """
        scripts = self.manifest.scripts
        plain = last = encode(self._tokenizer, text)
        normal, shown = second_reading(text), text
        ways = [_Reading(None, self._thinned(plain, text))]
        if normal is not None:
            shown, last = normal.text, encode(self._tokenizer, normal.text)
            if not np.array_equal(last.ids, plain.ids):
                undone = _Reading(normal, self._thinned(last, shown))
                both = len(ways[0].encoding) + len(undone.encoding)
                ways = [undone] if both > max_tokens(text, scripts=scripts) else [*ways, undone]
        return _Readings(
            [way for way in ways if not has_foreign_letters_only(way.shown(text), scripts)],
            is_language=not (
                is_dense(plain, text, scripts=scripts) and is_dense(last, shown, scripts=scripts)
            ),
            is_unsupported=is_unreadable(shown, last, scripts=scripts, unknown_id=self._unknown)
            or all(self._is_foreign(way) for way in dict.fromkeys((text, shown))),
        )

    def _is_foreign(self, text: str) -> bool:
        known = self.manifest.languages
        return bool(known) and languages.shipped().is_foreign(text, known=known)

    def _thinned(self, encoding: Encoding, text: str) -> Encoding:
        return thinned(encoding, text, scripts=self.manifest.scripts)

    def _read(self, encodings: Sequence[Encoding]) -> list[list[tuple[Window, _Read]]]:
        """For each encoding its windows, each with what the encoder says of it."""
        every = [w for owner, e in enumerate(encodings) for w in windows(e, owner=owner, size=self._window)]
        answers: dict[int, _Read] = {}
        for bucket in buckets([len(w) + 2 for w in every]):
            rows = [(encodings[every[i].owner], every[i]) for i in bucket]
            answers.update(zip(bucket, self._pass(rows), strict=True))
        grouped: list[list[tuple[Window, _Read]]] = [[] for _ in encodings]
        for index, window in enumerate(every):
            grouped[window.owner].append((window, answers[index]))
        return grouped

    def _pass(self, rows: Sequence[tuple[Encoding, Window]]) -> Iterator[_Read]:
        """One call of the model for windows of similar length."""
        shape = (len(rows), max(len(window) for _, window in rows) + 2)  # (batch, time)
        ids = np.full(shape, self._pad, dtype=np.int64)
        mask, cases = np.zeros_like(ids), np.zeros_like(ids)
        for i, (encoding, window) in enumerate(rows):
            part = slice(window.start, window.end)
            ids[i, : len(window) + 2] = (self._cls, *encoding.ids[part], self._sep)
            mask[i, : len(window) + 2] = 1
            cases[i, 1 : len(window) + 1] = encoding.cases[part]
        given = {"input_ids": ids, "attention_mask": mask, "case_ids": cases}
        logits, embeddings, token_logits = self._session.run(
            ["logits", "embedding", "token_logits"], {name: given[name] for name in self._inputs}
        )
        for i, (_, window) in enumerate(rows):
            # A copy, or a remembered row would keep the whole batch alive.
            yield _Read(logits[i], embeddings[i].copy(), token_logits[i, 1 : len(window) + 1])

    def _verdict(
        self,
        text: str,
        readings: _Readings,
        judged: Sequence[tuple[_Reading, Sequence[tuple[Window, _Read]]]],
    ) -> Verdict:
        scores = np.zeros(len(self.manifest.labels), dtype=np.float32)
        spans: list[Span] = []
        for reading, reads in judged:
            if len(reading.encoding):
                logits = np.stack([read.logits for _, read in reads])  # (windows, labels)
                scores = np.maximum(scores, sigmoid(self._slopes * logits + self._offsets).max(axis=0))
                spans += self._spans(reading, reads)
        by_label = dict(zip(self.manifest.labels, map(float, scores), strict=True))
        # Two weak witnesses for one strong: from a lower score on, a marked word decides.
        kind = "marked" if spans else "alone"
        presets = {
            name: any(by_label[label] >= limits[kind] for label, limits in thresholds.items())
            for name, thresholds in self._presets.items()
        }
        highest = float(scores.max())
        is_flagged = any(presets.values()) if presets else highest >= self._threshold
        is_faint = highest < self._clear_below or not readings.is_language
        return Verdict(
            scores=by_label,
            flagged=is_flagged,
            presets=presets,
            spans=tuple(_joined(spans, text)),
            unsupported=readings.is_unsupported,
            clear=is_faint and not spans and not is_flagged,
        )

    def _spans(self, reading: _Reading, reads: Sequence[tuple[Window, _Read]]) -> Iterator[Span]:
        """The words with a token at or above the span threshold, in offsets of the original text."""
        encoding = reading.encoding
        scores = np.zeros(len(encoding), dtype=np.float32)
        for window, read in reads:
            part = scores[window.start : window.end]
            np.maximum(part, sigmoid(read.token_logits), out=part)
        words = np.unique(encoding.words[scores >= self._span_threshold])
        firsts = np.searchsorted(encoding.words, words, side="left")
        lasts = np.searchsorted(encoding.words, words, side="right") - 1
        for first, last in zip(firsts, lasts, strict=True):
            start, end = int(encoding.starts[first]), int(encoding.ends[last])
            yield reading.normal.original(start, end) if reading.normal else Span(start, end)


def _require(manifest: Manifest, folder: str | Path) -> None:
    """Raises ManifestError unless the manifest is a detector's with all that a verdict needs."""
    lacking = [name for name in (MODEL, TOKENIZER) if name not in manifest.files]
    lacking += [f"calibration of {label}" for label in manifest.labels if label not in manifest.calibration]
    lacking += [name for name in ("labels", "scripts") if not getattr(manifest, name)]
    lacking += ["threshold"] if manifest.threshold is None else []
    if manifest.kind != "detector" or lacking:
        raise ManifestError(f"{folder} is not a complete detector: kind {manifest.kind!r}, lacking {lacking}")
    if unusable := list(_unusable(manifest)):
        raise ManifestError(f"{folder} has a manifest without a usable number for {unusable}; fetch it again")


def _unusable(manifest: Manifest) -> Iterator[str]:
    """Names of the numbers that are none, or out of range: with these every text might pass."""
    shares = {name: manifest.settings.get(name, 0.0) for name in ("span_threshold", "clear_threshold")}
    for name, share in {"threshold": manifest.threshold, **shares}.items():
        if not is_number(share, 0.0, 1.0):
            yield name
    yield from _unusable_presets(manifest)
    if not is_number(manifest.settings.get("window", _WINDOW), 3, math.inf):
        yield "window"
    for label in manifest.labels:
        line = manifest.calibration[label]
        if not all(is_number(line.get(name), -math.inf, math.inf) for name in "ab"):
            yield f"calibration of {label}"


def _unusable_presets(manifest: Manifest) -> Iterator[str]:
    """Presets without two thresholds in 0..1 for labels that the model has."""
    presets = manifest.settings.get("presets", {})
    if not isinstance(presets, dict):
        yield "presets"
        return
    for name, thresholds in presets.items():
        is_usable = isinstance(thresholds, dict) and bool(thresholds)
        if not is_usable or not all(
            label in manifest.labels and isinstance(limits, dict) and _are_thresholds(limits)
            for label, limits in thresholds.items()
        ):
            yield f"preset {name}"


def _limits(presets: Mapping[str, Any]) -> Iterator[float]:
    """Every threshold of every preset."""
    for thresholds in presets.values():
        for limits in thresholds.values():
            yield from limits.values()


def _are_thresholds(limits: Mapping[str, Any]) -> bool:
    return all(is_number(limits.get(kind), 0.0, 1.0) for kind in ("alone", "marked"))


def _pooled(reads: Sequence[tuple[Window, _Read]]) -> Floats:
    """The mean of the windows' embeddings weighted by their lengths, at unit length again."""
    weights = np.array([max(len(window), 1) for window, _ in reads], dtype=np.float32)
    mean = weights @ np.stack([read.embedding for _, read in reads])
    return np.asarray(mean / np.linalg.norm(mean), dtype=np.float32)


def _joined(spans: Iterable[Span], text: str) -> Iterator[Span]:
    """Spans in order, those that overlap or have only white space between them as one."""
    current: Span | None = None
    for span in sorted(spans, key=lambda s: (s.start, s.end)):
        if current and (span.start <= current.end or text[current.end : span.start].isspace()):
            current = Span(current.start, max(current.end, span.end))
            continue
        if current:
            yield current
        current = span
    if current:
        yield current
