"""This project's side of the PPO benchmark; ``benchmarks.ppo`` starts it."""

from __future__ import annotations

from dataclasses import replace

import torch
from transformers import T5Config, T5ForConditionalGeneration

from benchmarks.ppo_workload import BATCH, MINIBATCH, PAD_ID, RANK, SHAPE, Workload, read_arguments
from benchmarks.side import serve
from guardrail_training import modeling
from guardrail_training.processes import Processes
from guardrail_training.reinforcement.policy import Learner
from guardrail_training.reinforcement.ppo import assess, rollout_metrics, update
from guardrail_training.reinforcement.rollouts import (
    Rollout,
    SamplingRecorder,
    noise_for,
    old_readings,
    sample,
)
from guardrail_training.reinforcement.settings import PpoSettings
from guardrail_training.rewards.algebra import Answer, named

NEVER = -1
SOFTENED = 0.05
SETTINGS = PpoSettings(
    batch_size=BATCH,
    minibatch_size=MINIBATCH,
    epochs=1,
    target_kl=0.0,  # every mini-batch is learned from
    learning_rate=1.41e-5,
    rank=RANK,
    alpha=RANK,
    targets=("q", "v"),
    dtype="float32",
)


class GuardrailPpo:
    """A learner and what it learns from; a step is ``generate``, ``score`` and ``update``, in this order."""

    def __init__(
        self,
        workload: Workload,
        *,
        layers: int,
        rows: int,
        dtype: str = "float32",
        old_logprobs: str = "sampled",
    ) -> None:
        torch.manual_seed(0)
        base = T5ForConditionalGeneration(T5Config(**SHAPE, num_layers=layers)).requires_grad_(False)
        with torch.no_grad():
            # Random weights are sure of every token; so little that rounding could change a probability.
            base.lm_head.weight.mul_(SOFTENED)
        base = base.to(getattr(torch, dtype))
        modeling.fuse_activations(base)
        adapted = modeling.add_lora(
            base, rank=RANK, alpha=SETTINGS.alpha, dropout=0.0, targets=SETTINGS.targets
        )
        self.learner = Learner(
            adapted, pad_id=PAD_ID, temperature=1.0, dtype=getattr(torch, dtype), has_values=True
        )
        self._optimizer = torch.optim.AdamW(
            modeling.trainable_parameters(self.learner), lr=SETTINGS.learning_rate, weight_decay=0.0
        )
        self.settings = replace(SETTINGS, microbatch_size=rows, old_logprobs=old_logprobs, dtype=dtype)
        self._workload, self._step = workload, 0
        self._prompts = self.learner.family.pad(workload.prompts)

    def generate(self) -> int:
        """Draws responses of the workload's lengths."""
        workload = self._workload
        tokens = max(workload.limits)
        self._witness = (
            SamplingRecorder(self.learner, rows=BATCH, tokens=tokens)
            if self.settings.old_logprobs == "sampled"
            else None
        )
        with self.learner.sampling() as family:
            self._responses = sample(
                family,
                self._prompts,
                noise=noise_for(range(BATCH), tokens=tokens),
                limits=torch.tensor(workload.limits),
                temperature=1.0,
                stop_id=NEVER,
                pad_id=PAD_ID,
                recorder=self._witness,
            )
        return int(self._responses.lengths.sum())

    def score(self) -> int:
        """Policy, reference, values and advantages of what was drawn."""
        self._step += 1
        policy, reference, gap = old_readings(
            self.learner,
            self._prompts,
            self._responses,
            recorder=self._witness,
            rows_at_once=self.settings.microbatch_size,
            step=self._step,
            processes=Processes(),
        )
        self.gap = gap
        scored = named("score", lambda _: self._workload.scores)([Answer("", "", "")] * BATCH)
        self.rollout = Rollout(self._prompts, self._responses, policy, reference, scored, gap)
        coefficient = SETTINGS.kl_coefficient
        self._experience = assess(self.rollout, settings=self.settings, coefficient=coefficient)
        rollout_metrics(self.rollout, self._experience, coefficient=coefficient)
        return int(self._responses.lengths.sum())

    def update(self) -> int:
        """Four updates from it."""
        moved = update(
            self.learner,
            self._optimizer,
            self.rollout,
            self._experience,
            settings=self.settings,
            step=self._step,
            processes=Processes(),
        )
        assert moved.taken == BATCH // MINIBATCH
        return int(self._responses.lengths.sum())

    def learn(self) -> int:
        """All that trl's ``step`` does."""
        self.score()
        return self.update()


def main() -> None:
    """Generates and learns when asked to."""
    asked = read_arguments()
    training = GuardrailPpo(
        Workload.scaled(asked.scale),
        layers=asked.layers,
        rows=asked.rows,
        dtype=asked.dtype,
        old_logprobs=asked.old_logprobs,
    )
    serve({"generate": training.generate, "learn": training.learn})


if __name__ == "__main__":
    main()
