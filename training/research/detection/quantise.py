"""Export of the network to one ONNX file in float or 8 bits, and what the smaller file costs.

Three 8-bit forms were measured (``training/LOG.md``): weights only, static activation scales, and a scale per
token. The last is the default: nearly as close as weights only, as fast as static, and, unlike dynamic
quantisation over a batch, a function of the text alone.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from research.detection.detector_graph import build
from research.detection.onnx_graph import Builder, Precision, Ranges, Weights

__all__ = [
    "ExportCost",
    "ExportSession",
    "ModelOutputs",
    "Row",
    "activation_ranges",
    "arrays",
    "export",
    "measure_cost",
]

Floats = npt.NDArray[np.float32]
TOKENS_PER_PASS = 4096


@dataclass(frozen=True, slots=True, eq=False)
class ModelOutputs:
    """What a model says of texts, in their order."""

    logits: Floats  # (texts, labels)
    embedding: Floats  # (texts, 384)


@dataclass(frozen=True, slots=True)
class ExportCost:
    """An 8-bit file against the float32 one: times in milliseconds on this machine, so ratios count."""

    size_ratio: float
    alone_ms: float
    alone_ms_float: float
    batch_ms: float  # per text, in length buckets
    batch_ms_float: float
    alone_to_batch: float  # largest change of a logit or of an embedding's number
    logit_change: float  # mean magnitude, 8 bits against float
    embedding_cosine: float  # lowest


def arrays(network: nn.Module) -> dict[str, Floats]:
    """The network's weights by name."""
    return {name: tensor.detach().float().numpy() for name, tensor in network.state_dict().items()}


@dataclass(frozen=True, slots=True)
class Row:
    """Token ids with special ones, and their letter cases (of a pair: kinds), if the network reads these."""

    ids: Sequence[int]
    cases: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.ids)


class OnEncoder(Protocol):
    """A network on an encoder."""

    @property
    def encoder(self) -> Any: ...
    def __call__(self, input_ids: Tensor, attention_mask: Tensor, /, *added_ids: Tensor) -> Any: ...


def activation_ranges(network: OnEncoder, rows: Sequence[Row]) -> dict[str, Floats]:
    """The largest magnitude of each input channel of each linear layer, over tokenised texts."""
    found: dict[str, Floats] = {}

    def note(name: str, states: Tensor) -> None:
        top = states.detach().abs().flatten(0, -2).amax(0).numpy()
        found[name] = np.maximum(found.get(name, np.zeros_like(top)), top)

    hooks = []
    for number, layer in enumerate(network.encoder.encoder.layer):
        watched = {
            "qkv": layer.attention.self.query,
            "mix": layer.attention.output.dense,
            "wide": layer.intermediate.dense,
            "narrow": layer.output.dense,
        }
        for part, module in watched.items():
            name = f"layer{number}/{part}"
            hooks.append(module.register_forward_hook(lambda _, given, __, name=name: note(name, given[0])))
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor([list(row.ids)])
            network(ids, torch.ones_like(ids), *(torch.tensor([list(row.cases)]) for _ in row.cases[:1]))
    for hook in hooks:
        hook.remove()
    return found


def export(
    weights: Weights,
    path: str | Path,
    *,
    precision: Precision,
    ranges: Ranges | None = None,
    build: Builder = build,
) -> Path:
    """Writes the network of these weights as ONNX; a detector unless another builder is given."""
    model = build(weights, precision=precision, ranges=ranges)
    onnx.checker.check_model(model)
    Path(path).write_bytes(model.SerializeToString())
    return Path(path)


class ExportSession:
    """Runs an exported file over token ids in length buckets."""

    def __init__(self, path: str | Path, *, threads: int = 2) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session: Any = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    def read(self, rows: Sequence[Row], *, together: int = 64) -> ModelOutputs:
        """Answers for each row, in order."""
        order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
        logits: dict[int, Floats] = {}
        embedding: dict[int, Floats] = {}
        start = 0
        while start < len(order):
            size = min(
                together, max(1, TOKENS_PER_PASS // len(rows[order[min(start + together, len(order)) - 1]]))
            )
            places = order[start : start + size]
            answer = self.run([rows[place] for place in places])
            logits.update(zip(places, answer.logits, strict=True))
            embedding.update(zip(places, answer.embedding, strict=True))
            start += size
        return ModelOutputs(
            *(np.stack([found[place] for place in range(len(rows))]) for found in (logits, embedding))
        )

    def run(self, rows: Sequence[Row]) -> ModelOutputs:
        """One pass over rows padded to the longest."""
        ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
        mask, cases = np.zeros_like(ids), np.zeros_like(ids)
        for place, row in enumerate(rows):
            ids[place, : len(row)] = row.ids
            mask[place, : len(row)] = 1
            cases[place, : len(row)] = row.cases
        given = {"input_ids": ids, "attention_mask": mask, "case_ids": cases}
        return ModelOutputs(*self._session.run(["logits", "embedding"], given))


def measure_cost(
    small: Path, large: Path, rows: Sequence[Row], *, threads: int = 2, repeats: int = 5
) -> ExportCost:
    """Compares two exported files on the same rows. Times are the best of ``repeats``."""
    sessions = {path: ExportSession(path, threads=threads) for path in (small, large)}
    typical = sorted(rows, key=len)[len(rows) // 2]
    alone, batch = {}, {}
    for path, session in sessions.items():
        alone[path] = _best(lambda s=session: s.run([typical]), repeats=10 * repeats)
        batch[path] = _best(lambda s=session: s.read(rows), repeats=repeats) / len(rows)
    many = {path: session.read(rows, together=32) for path, session in sessions.items()}
    single = [sessions[small].run([row]) for row in rows]
    change = max(
        float(
            np.abs(np.concatenate([getattr(one, name) for one in single]) - getattr(many[small], name)).max()
        )
        for name in ("logits", "embedding")
    )
    return ExportCost(
        size_ratio=small.stat().st_size / large.stat().st_size,
        alone_ms=1e3 * alone[small],
        alone_ms_float=1e3 * alone[large],
        batch_ms=1e3 * batch[small],
        batch_ms_float=1e3 * batch[large],
        alone_to_batch=change,
        logit_change=float(np.abs(many[small].logits - many[large].logits).mean()),
        embedding_cosine=float((many[small].embedding * many[large].embedding).sum(1).min()),
    )


def _best(work: Any, *, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)
