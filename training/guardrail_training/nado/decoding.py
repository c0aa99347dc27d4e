"""Decoding from the posterior: guarded generation without fine-tuning.

guarded = GuardedDecoding(guidance, model=model)
with guarded.attached():
    model.generate(**inputs, do_sample=True, logits_processor=LogitsProcessorList([guarded]))
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from guardrail.errors import UsageError
from guardrail_training.modeling.families import Continuation, Family, Prompts
from guardrail_training.nado.guidance import Guidance

__all__ = ["GuardedDecoding", "GuardedFamily"]


class GuardedFamily:
    """A family whose next tokens follow the posterior, for this package's own sampler.

    The family's states must be the base's: an adapter has to be off.
    """

    def __init__(self, family: Family, guidance: Guidance) -> None:
        self._family, self._guidance = family, guidance
        self.pad, self.states = family.pad, family.states

    def begin(self, prompts: Prompts) -> Continuation:
        """Reads the prompts; what is remembered of each row are its states since ``(rows, time, width)``."""
        return _Remembered(self._family.begin(prompts))

    def head(self, states: Tensor) -> Tensor:
        """log q over the vocabulary."""
        return self._guidance.logits(states, self._family.head(states[:, -1]))


class _Remembered:
    """A continuation whose ``states`` ``(rows, time, width)`` are all since the prompt's end."""

    def __init__(self, under_way: Continuation) -> None:
        self._under_way = under_way
        self.states = under_way.states[:, None]

    def keep(self, rows: Tensor) -> None:
        self._under_way.keep(rows)
        self.states = self.states[rows]

    def advance(self, tokens: Tensor) -> None:
        self._under_way.advance(tokens)
        self.states = torch.cat([self.states, self._under_way.states[:, None]], dim=1)


class GuardedDecoding(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped here
    """Puts the posterior in the place of the logits of ``model.generate``.

    It reads the states that go into the model's output layer, so it costs no forward pass; ``model`` is the
    base that the auxiliary model was trained on, without adapter. Sampling, greedy and beam search work;
    assisted decoding, which reads several tokens at a time, does not.
    """

    def __init__(self, guidance: Guidance, *, model: Any) -> None:
        self._guidance, self._output = guidance, model.get_output_embeddings()
        self._latest: Tensor | None = None  # (rows, width)
        self._read: _Rows | None = None

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Listens to the model's output layer while inside."""

        def note(_layer: Any, arguments: tuple[Tensor, ...]) -> None:
            self._latest = arguments[0][:, -1]

        handle = self._output.register_forward_pre_hook(note)
        try:
            yield
        finally:
            handle.remove()
            self._latest = self._read = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """log q ``(rows, vocabulary)``."""
        if self._latest is None or len(self._latest) != len(scores):
            raise UsageError("guarded decoding is not attached: generate inside 'with guarded.attached()'")
        self._read = _Rows.after(self._read, input_ids, self._latest)
        return self._guidance.logits(self._read.states, scores.to(torch.float32))


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Tokens of rows so far ``(rows, time)``, and the states since the prompt's end."""

    ids: Tensor
    states: Tensor

    @classmethod
    def after(cls, before: _Rows | None, ids: Tensor, states: Tensor) -> _Rows:
        """Rows one token on, each after the earlier row that it continues: beams change places."""
        if before is None or ids.shape[1] != before.ids.shape[1] + 1:
            return cls(ids, states[:, None])
        continues = (ids[:, None, :-1] == before.ids).all(dim=2)  # (rows, rows before)
        if not bool(continues.any(dim=1).all()):
            return cls(ids, states[:, None])
        earlier = before.states[continues.int().argmax(dim=1)]
        return cls(ids, torch.cat([earlier, states[:, None]], dim=1))
