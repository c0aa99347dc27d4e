"""Which examples a run sees, in which order: a function of rows and seed alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from guardrail.manifest import Template
from guardrail_training.data import Pair, Row, bucketed_batches, draw_references
from guardrail_training.modeling import Example, encode_example
from guardrail_training.records import TrainingRowError

__all__ = ["Plan", "encode_pairs", "plan_passes"]


@dataclass(frozen=True, slots=True)
class Plan:
    """The encoded examples of every pass, and the batches over them in training order.

    ``batches`` holds (pass, indices into that pass's examples); ``evaluate_after`` holds steps, from 1.
    """

    examples: tuple[tuple[Example, ...], ...]
    batches: tuple[tuple[int, tuple[int, ...]], ...]
    evaluate_after: frozenset[int]

    @property
    def steps(self) -> int:
        """How many optimizer steps the run takes."""
        return len(self.batches)

    def batch(self, step: int) -> list[Example]:
        """The examples of step ``step``, from 1."""
        pass_index, indices = self.batches[step - 1]
        return [self.examples[pass_index][index] for index in indices]


def plan_passes(
    rows: Sequence[Row],
    *,
    tokenizer: Any,
    template: Template,
    passes: int,
    batch_size: int,
    evaluations_per_pass: int,
    max_tokens: int,
    seed: int,
) -> Plan:
    """Everything the run will see; raises TrainingRowError where no row, or too long a row, is left."""
    if not rows:
        raise TrainingRowError("no row is left to train on: every reference copies its source")
    examples: list[tuple[Example, ...]] = []
    batches: list[tuple[int, tuple[int, ...]]] = []
    evaluate_after: set[int] = set()
    for pass_index in range(passes):
        pairs = draw_references(rows, seed=seed, pass_index=pass_index)
        encoded = encode_pairs(pairs, tokenizer=tokenizer, template=template, max_tokens=max_tokens)
        lengths = [len(example) for example in encoded]
        cut = bucketed_batches(lengths, batch_size=batch_size, seed=seed, pass_index=pass_index)
        evaluate_after |= {
            len(batches) + math.ceil(len(cut) * part / evaluations_per_pass)
            for part in range(1, evaluations_per_pass + 1)
        }
        batches += [(pass_index, tuple(indices)) for indices in cut]
        examples.append(encoded)
    return Plan(examples=tuple(examples), batches=tuple(batches), evaluate_after=frozenset(evaluate_after))


def encode_pairs(
    pairs: Sequence[Pair], *, tokenizer: Any, template: Template, max_tokens: int
) -> tuple[Example, ...]:
    """One example per pair; more than ``max_tokens`` ids are an error, because nothing is cut silently."""
    examples = []
    for pair in pairs:
        example = encode_example(tokenizer, template, source=pair.source, target=pair.target)
        if len(example) > max_tokens:
            raise TrainingRowError(
                f"row {pair.number}: {len(example)} tokens are more than max_tokens = {max_tokens}; "
                "raise max_tokens or remove the row"
            )
        examples.append(example)
    return tuple(examples)
