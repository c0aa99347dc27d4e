"""Which examples a run sees, in which order: a function of rows and seed alone."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass
from typing import Any

from guardrail.manifest import Template
from guardrail_training.data import DrawnPair, Rows, SourceRow, bucketed_batches, draw_reference
from guardrail_training.modeling import EncodedExample, encode_example
from guardrail_training.records import TrainingRowError

__all__ = ["ExampleEncoder", "Plan", "plan_passes"]


@dataclass(frozen=True, slots=True)
class ExampleEncoder:
    """How a row becomes an example: tokenizer, template, the reference drawn by ``seed``."""

    tokenizer: Any
    template: Template
    max_tokens: int
    seed: int

    def example(self, row: SourceRow, *, pass_index: int) -> EncodedExample:
        """The example of a row in a pass; more than ``max_tokens`` ids are an error: nothing is cut."""
        return self.encode(draw_reference(row, seed=self.seed, pass_index=pass_index))

    def encode(self, pair: DrawnPair) -> EncodedExample:
        """The example of a pair; raises TrainingRowError as ``example`` does."""
        example = encode_example(self.tokenizer, self.template, source=pair.source, target=pair.target)
        if len(example) > self.max_tokens:
            raise TrainingRowError(
                f"row {pair.number}: {len(example)} tokens are more than max_tokens = {self.max_tokens}; "
                "raise max_tokens or remove the row"
            )
        return example


@dataclass(frozen=True, slots=True)
class Plan:
    """The batches of every pass in training order; their examples are encoded when they are asked for.

    ``batches`` holds (pass, indices of rows); ``evaluate_after`` holds steps, from 1.
    """

    rows: Rows
    encoding: ExampleEncoder
    batches: tuple[tuple[int, tuple[int, ...]], ...]
    evaluate_after: frozenset[int]

    @property
    def steps(self) -> int:
        """How many optimizer steps the run takes."""
        return len(self.batches)

    def batch(self, step: int) -> list[EncodedExample]:
        """The examples of step ``step``, from 1."""
        pass_index, indices = self.batches[step - 1]
        return [self.encoding.example(self.rows[index], pass_index=pass_index) for index in indices]


def plan_passes(
    rows: Rows,
    *,
    encoding: ExampleEncoder,
    passes: int,
    batch_size: int,
    evaluations_per_pass: int,
    max_steps: int | None = None,
) -> Plan:
    """Everything the run will see, every row encoded once per pass for its length.

    Raises TrainingRowError for a row that is too long. A run ends with an evaluation.
    """
    batches: list[tuple[int, tuple[int, ...]]] = []
    evaluate_after: set[int] = set()
    for pass_index, lengths in enumerate(_lengths(rows, encoding, passes=passes)):
        cut = bucketed_batches(lengths, batch_size=batch_size, seed=encoding.seed, pass_index=pass_index)
        evaluate_after |= {
            len(batches) + math.ceil(len(cut) * part / evaluations_per_pass)
            for part in range(1, evaluations_per_pass + 1)
        }
        batches += [(pass_index, tuple(indices)) for indices in cut]
    batches = batches[:max_steps]
    evaluated = {step for step in evaluate_after if step < len(batches)} | {len(batches)}
    return Plan(rows=rows, encoding=encoding, batches=tuple(batches), evaluate_after=frozenset(evaluated))


def _lengths(rows: Rows, encoding: ExampleEncoder, *, passes: int) -> list[array[int]]:
    """The tokens of each row in each pass; the rows are gone through once."""
    lengths = [array("l") for _ in range(passes)]
    for row in rows:
        drawn = [draw_reference(row, seed=encoding.seed, pass_index=number) for number in range(passes)]
        known = {pair: len(encoding.encode(pair)) for pair in dict.fromkeys(drawn)}
        for each, pair in zip(lengths, drawn, strict=True):
            each.append(known[pair])
    return lengths
