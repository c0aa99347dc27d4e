"""What the starting adapter says of the pairs: computed once, kept in the run's folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from guardrail_training.checkpoint import StopRequest
from guardrail_training.preference.pairs import Pair, read_pairs
from guardrail_training.reinforcement.learner import Learner

__all__ = ["FILENAME", "reference_logprobs"]

FILENAME = "reference.safetensors"


def reference_logprobs(
    learner: Learner,
    pairs: Sequence[Pair],
    batches: Sequence[Sequence[int]],
    *,
    pad_id: int,
    path: Path,
    fingerprint: str,
    stop: StopRequest,
) -> Tensor | None:
    """Sums of log-probabilities ``(pairs, 2)`` float32, chosen and rejected; None where a signal stopped it.

    ``learner`` still holds the starting adapter. ``batches`` are those of the first pass: in them the policy
    says the same to the bit before it has moved. A file of the same ``fingerprint`` is read in place of all
    that.
    """
    if path.is_file():
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("fingerprint") == fingerprint:
                kept: Tensor = file.get_tensor("logprobs")
                return kept
    logprobs = torch.zeros(len(pairs), 2)
    for batch in batches:
        with torch.no_grad():
            read = read_pairs(learner, [pairs[index] for index in batch], pad_id=pad_id)
        logprobs[batch] = torch.stack([read.chosen, read.rejected], dim=1)
        if stop.signal:
            return None
    part = path.with_suffix(".part")
    save_file({"logprobs": logprobs}, part, metadata={"fingerprint": fingerprint})
    part.replace(path)
    return logprobs
