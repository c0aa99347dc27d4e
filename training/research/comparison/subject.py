"""A language model under measurement: plain, with an adapter, or decoded from the posterior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guardrail.rewriters.adapter import read_adapter
from guardrail_training import modeling
from guardrail_training.modeling.families import Family, family_of
from guardrail_training.modeling.stacked import merge
from guardrail_training.nado.auxiliary import load_auxiliary
from guardrail_training.nado.candidates import likely_tokens, over_candidates
from guardrail_training.nado.decoding import GuardedFamily
from guardrail_training.nado.guidance import Guidance
from guardrail_training.provenance import model_folder, weights_sha256
from guardrail_training.regularized.corpus import opening, text_ids
from guardrail_training.regularized.samples import padded
from guardrail_training.regularized.settings import RegularizedSettings
from guardrail_training.reinforcement.policy import token_logprobs
from guardrail_training.reinforcement.rollouts import PromptQuery, noise_for, sample

__all__ = ["ComparedModel", "load_subject"]

ROWS = 16  # texts in memory at a time


@dataclass(frozen=True, slots=True, eq=False)
class ComparedModel:
    """A causal language model with its tokenizer; with ``guidance``, the posterior of it."""

    model: Any
    tokenizer: Any
    guidance: Guidance | None = None

    def ids(self, text: str) -> list[int]:
        """The token ids of a text, control tokens in it split."""
        return list(text_ids(self.tokenizer, text))

    def opening_ids(self, text: str) -> list[int]:
        """The token ids of a text with which a sequence begins."""
        return [*opening(self.tokenizer), *self.ids(text)]

    @property
    def _family(self) -> Family:
        return family_of(self.model, pad_id=self.tokenizer.pad_token_id)

    @torch.no_grad()
    def continuations(
        self, queries: Sequence[PromptQuery], *, each: int, tokens: int, seed: int
    ) -> list[list[str]]:
        """``each`` drawn continuations of every query, at temperature 1; the same noise for every subject."""
        family = self._family if self.guidance is None else GuardedFamily(self._family, self.guidance)
        rows = [query for query in queries for _ in range(each)]
        seeds = [seed * 1_000_003 + row for row in range(len(rows))]
        drawn = sample(
            family,
            family.pad([query.ids for query in rows]),
            noise=noise_for(seeds, tokens=tokens),
            limits=torch.full((len(rows),), tokens),
            temperature=1.0,
            stop_id=self.tokenizer.eos_token_id,
            pad_id=self.tokenizer.pad_token_id,
        )
        texts = [
            self.tokenizer.decode(drawn.tokens(row), skip_special_tokens=True).strip()
            for row in range(len(rows))
        ]
        return [texts[row : row + each] for row in range(0, len(rows), each)]

    @torch.no_grad()
    def logprobs(self, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[Tensor]:
        """The log-probability of every token of each response after its prompt."""
        family = self._family
        found: list[Tensor] = [torch.empty(0)] * len(prompts)
        # Texts of like lengths together: the less padding.
        order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]) + len(responses[row]))
        for start in range(0, len(order), ROWS):
            rows = order[start : start + ROWS]
            asked = family.pad([prompts[row] for row in rows])
            answers = padded([responses[row] for row in rows], pad_id=self.tokenizer.pad_token_id)
            states = family.states(asked, answers.ids)
            mask, values = answers.mask, torch.zeros(answers.ids.shape)
            if self.guidance is None:
                values[mask] = token_logprobs(states[mask], answers.ids[mask], family.head, temperature=1.0)
            else:
                for place in range(len(rows)):  # the logits of one text at a time
                    values[place] = _guided(self.guidance, family, states[place], answers.ids[place])
            for row, own, kept in zip(rows, values, mask, strict=True):
                found[row] = own[kept]
        return found


def _guided(guidance: Guidance, family: Family, states: Tensor, taken: Tensor) -> Tensor:
    """The posterior's log-probabilities ``(time,)`` of one response's tokens."""
    logits = family.head(states)
    ids = likely_tokens(logits, count=guidance.candidates, taken=taken)
    log_q = guidance.over(states[None], ids[None], over_candidates(logits, ids)[None]).log_q[0]
    return log_q[:, :-1][ids == taken[:, None]]


def load_subject(settings: RegularizedSettings, *, folder: Path | None, is_guarded: bool) -> ComparedModel:
    """The base of a run: plain, with the adapter in ``folder`` merged, or guarded by its auxiliary model.

    In float32 whatever it was trained in, so that rows from different processors are measured alike.
    """
    base = model_folder(settings.base)
    model = modeling.load_base(base, dtype=torch.float32)
    tokenizer = modeling.load_ending_tokenizer(base, pad_token=settings.pad_token)
    if folder is None:
        return ComparedModel(model, tokenizer)
    if not is_guarded:
        merge(model, read_adapter(folder))
        return ComparedModel(model, tokenizer)
    auxiliary = load_auxiliary(folder, model=model, base_sha256=weights_sha256(base))
    guidance = Guidance(
        auxiliary,
        strength=settings.strength,
        max_log_ratio=settings.max_log_ratio,
        candidates=settings.candidates,
    )
    return ComparedModel(model, tokenizer, guidance)
