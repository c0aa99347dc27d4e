"""Responses with their scores, one JSON line per prompt."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from guardrail_training.records import FileRecord, TrainingRowError, read_records

__all__ = ["Sample", "SampledResponse", "read_samples", "write_samples"]


@dataclass(frozen=True, slots=True)
class SampledResponse:
    """One model's response; ``tokens`` counts its end where it came, ``toxicity`` is by judge, 0..1."""

    response: str = field(repr=False)
    tokens: int
    ended: bool
    reward: float
    toxicity: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Sample:
    """A prompt's text, its references if there are any, and the outputs by model; ``row`` is its place in the
    file, from 1."""

    row: int
    query: str = field(repr=False)
    references: tuple[str, ...] = field(repr=False)
    outputs: Mapping[str, SampledResponse]

    def gain(self, before: str, after: str) -> float:
        """How much higher the reward of one model's response is than another's."""
        return self.outputs[after].reward - self.outputs[before].reward


def write_samples(path: str | Path, samples: Iterable[Sample]) -> None:
    """Writes the samples in their order."""
    lines = [json.dumps(asdict(sample)) + "\n" for sample in samples]
    Path(path).write_text("".join(lines), encoding="utf-8")


def read_samples(path: str | Path) -> list[Sample]:
    """The samples of a file; TrainingRowError names the first row that ``write_samples`` did not write."""
    fields: dict[str, type | tuple[type, ...]] = {
        "row": int,
        "query": str,
        "references": list,
        "outputs": dict,
    }
    return [_sample(record, Path(path)) for record in read_records(path, fields=fields)]


def _sample(record: FileRecord, path: Path) -> Sample:
    references, outputs = record["references"], record["outputs"]
    if not all(isinstance(reference, str) for reference in references):
        raise TrainingRowError(f"{path} row {record.number}: field 'references' must hold texts")
    if not outputs:
        raise TrainingRowError(f"{path} row {record.number}: field 'outputs' must hold at least one output")
    return Sample(
        row=record["row"],
        query=record["query"],
        references=tuple(references),
        outputs={name: _output(each, where=f"{path} row {record.number}") for name, each in outputs.items()},
    )


def _output(content: Any, *, where: str) -> SampledResponse:
    kinds: dict[str, type | tuple[type, ...]] = {
        "response": str,
        "tokens": int,
        "ended": bool,
        "reward": (int, float),
        "toxicity": dict,
    }
    given = content if isinstance(content, dict) else {}
    for name, kind in kinds.items():
        if not isinstance(given.get(name), kind):
            raise TrainingRowError(f"{where}: an output has no {name!r}; run 'evaluate generation' again")
    if not all(isinstance(value, (int, float)) for value in given["toxicity"].values()):
        raise TrainingRowError(f"{where}: an output's 'toxicity' must hold numbers")
    return SampledResponse(**{name: given[name] for name in kinds})
