"""This project's side of the PPO benchmark; ``benchmarks.ppo`` starts it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from transformers import T5Config, T5ForConditionalGeneration

from benchmarks.ppo_workload import BATCH, MINIBATCH, PAD_ID, RANK, SHAPE, Workload, read_arguments
from benchmarks.side import serve
from guardrail_training import modeling
from guardrail_training.processes import Processes
from guardrail_training.reinforcement.policy import Learner
from guardrail_training.reinforcement.ppo import assess, rollout_metrics, update
from guardrail_training.reinforcement.rollouts import Responses, Rollout, noise_for, read_responses, sample
from guardrail_training.reinforcement.settings import PpoSettings
from guardrail_training.rewards.algebra import Answer, named

NEVER = -1
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
    """A learner and what it learns from."""

    def __init__(self, workload: Workload, *, layers: int, rows: int) -> None:
        torch.manual_seed(0)
        base = T5ForConditionalGeneration(T5Config(**SHAPE, num_layers=layers)).requires_grad_(False)
        adapted = modeling.add_lora(
            base, rank=RANK, alpha=SETTINGS.alpha, dropout=0.0, targets=SETTINGS.targets
        )
        self._learner = Learner(adapted, pad_id=PAD_ID, temperature=1.0, dtype=torch.float32, has_values=True)
        self._optimizer = torch.optim.AdamW(
            modeling.trainable_parameters(self._learner), lr=SETTINGS.learning_rate, weight_decay=0.0
        )
        self._settings = replace(SETTINGS, microbatch_size=rows)
        self._workload, self._steps = workload, 0

    def generate(self) -> int:
        """Draws responses of the workload's lengths."""
        workload = self._workload
        with self._learner.sampling() as family:
            drawn = sample(
                family,
                family.pad(workload.prompts),
                noise=noise_for(range(BATCH), tokens=max(workload.limits)),
                limits=torch.tensor(workload.limits),
                temperature=1.0,
                stop_id=NEVER,
                pad_id=PAD_ID,
            )
        return int(drawn.lengths.sum())

    def learn(self) -> int:
        """One step on the workload's responses: policy, reference, values, advantages, four updates."""
        self._steps += 1
        prompts = self._learner.family.pad(self._workload.prompts)
        responses = _padded(self._workload.responses)
        policy, reference = read_responses(
            self._learner, prompts, responses, rows_at_once=self._settings.microbatch_size
        )
        scored = named("score", lambda _: self._workload.scores)([Answer("", "", "")] * BATCH)
        rollout = Rollout(prompts, responses, policy, reference, scored)
        experience = assess(rollout, settings=self._settings, coefficient=SETTINGS.kl_coefficient)
        rollout_metrics(rollout, experience, coefficient=SETTINGS.kl_coefficient)
        moved = update(
            self._learner,
            self._optimizer,
            rollout,
            experience,
            settings=self._settings,
            step=self._steps,
            processes=Processes(),
        )
        assert moved.taken == BATCH // MINIBATCH
        return int(responses.lengths.sum())


def _padded(responses: Sequence[Sequence[int]]) -> Responses:
    longest = max(map(len, responses))
    ids = torch.tensor([[*response, *[PAD_ID] * (longest - len(response))] for response in responses])
    lengths = torch.tensor([len(response) for response in responses])
    return Responses(ids=ids, lengths=lengths, ended=torch.ones(len(responses), dtype=torch.bool))


def main() -> None:
    """Generates and learns when asked to."""
    arguments = read_arguments()
    training = GuardrailPpo(Workload.scaled(arguments.scale), layers=arguments.layers, rows=arguments.rows)
    serve({"generate": training.generate, "learn": training.learn})


if __name__ == "__main__":
    main()
