"""This project's side of the SFT benchmark; ``benchmarks.sft`` starts it."""

from __future__ import annotations

import torch

from benchmarks.sft_workload import SETTINGS, model_and_tokenizer, read_arguments, rows
from benchmarks.side import serve
from guardrail.manifest import Template
from guardrail_training import modeling
from guardrail_training.modeling.quantised import make_optimizer
from guardrail_training.processes import Processes
from guardrail_training.sft import accumulate
from guardrail_training.supervised.network import TargetLoss
from guardrail_training.supervised.plan import ExampleEncoder, plan_passes


class GuardrailSft:
    """A model, and the plan of one pass over the rows: the steps of ``guardrail_training.sft.run``."""

    def __init__(self, *, dtype: str, batches: int) -> None:
        model, tokenizer = model_and_tokenizer(dtype)
        self._network = TargetLoss(model, pad_id=tokenizer.pad_token_id, dtype=modeling.resolve_dtype(dtype))
        self._parameters = modeling.trainable_parameters(model)
        self._optimizer = make_optimizer(
            SETTINGS.optimizer,
            self._parameters,
            rate=SETTINGS.learning_rate,
            weight_decay=SETTINGS.weight_decay,
            device=torch.device("cpu"),
        )
        template = Template(SETTINGS.template)
        self._plan = plan_passes(
            rows(batches),
            encoding=ExampleEncoder(tokenizer, template, SETTINGS.max_tokens, seed=SETTINGS.seed),
            passes=1,
            batch_size=SETTINGS.batch_size,
            evaluations_per_pass=1,
        )

    def train(self) -> int:
        """One pass; how many tokens it read, without padding."""
        tokens = 0
        for step in range(1, self._plan.steps + 1):
            batch = self._plan.batch(step)
            accumulate(self._network, batch, microbatch_size=None, processes=Processes())
            torch.nn.utils.clip_grad_norm_(self._parameters, SETTINGS.max_grad_norm)
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
            tokens += sum(map(len, batch))
        return tokens


def main() -> None:
    """Trains a pass when asked to."""
    arguments = read_arguments()
    serve({"train": GuardrailSft(dtype=arguments.dtype, batches=arguments.batches).train})


if __name__ == "__main__":
    main()
