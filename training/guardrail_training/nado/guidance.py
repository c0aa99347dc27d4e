"""The posterior that an auxiliary model and a language model make together, for teaching and decoding."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from guardrail_training.nado.auxiliary import Auxiliary
from guardrail_training.nado.candidates import likely_tokens, over_candidates
from guardrail_training.nado.posterior import expected_success, posterior
from guardrail_training.nado.success import from_logits

__all__ = ["Guidance", "Guided"]

ROWS = 32  # responses in memory at a time


@dataclass(frozen=True, slots=True, eq=False)
class Guided:
    """log q ``(rows, time, candidates + 1)``, and log R of the prefix before each token ``(rows, time)``."""

    log_q: Tensor
    log_success: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Guidance:
    """How an auxiliary model is turned into a posterior.

    ``strength`` is the power of R, ``max_log_ratio`` bounds what one token can gain or lose, ``candidates``
    is how many next tokens are told apart.
    """

    auxiliary: Auxiliary
    strength: float
    max_log_ratio: float
    candidates: int

    @torch.no_grad()
    def over(self, states: Tensor, ids: Tensor, log_p: Tensor) -> Guided:
        """The posterior along responses over given candidates.

        ``states`` ``(rows, time, width)`` are the base's, ``ids`` ``(rows, time, candidates)``, and ``log_p``
        is the language model ``(rows, time, candidates + 1)``.
        """
        cut = (torch.split(tensor, ROWS) for tensor in (states, ids, log_p))
        parts = [self._part(*part) for part in zip(*cut, strict=True)]
        return Guided(
            log_q=torch.cat([part.log_q for part in parts]),
            log_success=torch.cat([part.log_success for part in parts]),
        )

    def _part(self, states: Tensor, ids: Tensor, log_p: Tensor) -> Guided:
        log_success = from_logits(self.auxiliary(states, ids)).log_success.flatten(0, 1)
        log_p = log_p.flatten(0, 1)
        return Guided(
            log_q=self._posterior(log_p, log_success).view(*ids.shape[:2], -1),
            log_success=expected_success(log_p, log_success).view(ids.shape[:2]),
        )

    @torch.no_grad()
    def logits(self, states: Tensor, logits: Tensor) -> Tensor:
        """log q over the whole vocabulary ``(rows, vocabulary)``, for drawing the next token.

        ``states`` ``(rows, time, width)`` are the base's from the prompt's end on, ``logits`` its last ones.
        Beyond the candidates all tokens keep their shares of the tail.
        """
        ids = likely_tokens(logits, count=self.candidates)
        log_success = from_logits(self.auxiliary.last(states, ids)).log_success
        log_p = over_candidates(logits, ids)
        log_q = self._posterior(log_p, log_success)
        # If the bound binds, what is left for the tail is not what it had; nan if there is no tail.
        tail = (log_q[:, -1:] - log_p[:, -1:]).nan_to_num()
        return (logits.float().log_softmax(dim=1) + tail).scatter(1, ids, log_q[:, :-1])

    def _posterior(self, log_p: Tensor, log_success: Tensor) -> Tensor:
        return posterior(log_p, log_success, strength=self.strength, max_log_ratio=self.max_log_ratio)
