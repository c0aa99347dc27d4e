"""The three branches of an iteration on real models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from guardrail_training.modeling import trainable_parameters
from guardrail_training.nado.auxiliary import Auxiliary
from guardrail_training.nado.decoding import GuardedFamily
from guardrail_training.nado.guidance import Guidance
from guardrail_training.regularized.control import DualAscent
from guardrail_training.regularized.corpus import Mixture, Passage
from guardrail_training.regularized.fitting import fit
from guardrail_training.regularized.lessons import Lessons, corpus_lessons, sample_lessons
from guardrail_training.regularized.opinions import Opinions, read_opinions
from guardrail_training.regularized.quality import distance, quality
from guardrail_training.regularized.samples import Samples, collect, draw, opinions
from guardrail_training.regularized.settings import RegularizedSettings
from guardrail_training.regularized.tuning import Batch, tune_step
from guardrail_training.reinforcement.learner import Learner
from guardrail_training.reinforcement.queries import Query, drawn
from guardrail_training.rewards.algebra import Reward
from guardrail_training.sft import learning_rate

__all__ = ["ModelParts"]

HELD_OUT = 5  # every fifth prompt of the first samples


class ModelParts:
    """Language model, auxiliary model and oracle as a schedule drives them; see ``schedules.Parts``.

    ``figures`` holds the last iteration's by metric name; ``on_step`` is told of every optimizer step of the
    language model and its loss.
    """

    def __init__(
        self,
        learner: Learner,
        auxiliary: Auxiliary,
        optimizer: torch.optim.Optimizer,
        *,
        mixture: Mixture,
        reward: Reward,
        tokenizer: Any,
        settings: RegularizedSettings,
        control: DualAscent,
        dtype: torch.dtype,
    ) -> None:
        self._learner, self._auxiliary, self._optimizer = learner, auxiliary, optimizer
        self._mixture, self._reward, self._tokenizer = mixture, reward, tokenizer
        self._settings, self._control, self._dtype = settings, control, dtype
        self._figures: dict[str, dict[str, float]] = {"collect": {}, "tune": {}, "fit": {}}
        self.on_step: Callable[[int, float], object] = lambda step, loss: None

    @property
    def figures(self) -> dict[str, float]:
        """What the branches last measured."""
        return {name: value for part in self._figures.values() for name, value in part.items()}

    def forget(self) -> None:
        """Begins an iteration's figures."""
        self._figures = {"collect": {}, "tune": {}, "fit": {}}

    def collect(self, iteration: int) -> Samples:
        """Draws and labels, and asks the auxiliary model about samples that are new to it."""
        settings = self._settings
        samples = collect(
            self._learner,
            self._queries(iteration),
            reward=self._reward,
            tokenizer=self._tokenizer,
            settings=settings,
            iteration=iteration,
            dtype=self._dtype,
        )
        self._figures["collect"] = {
            "samples/failed": 1 - samples.rate,
            "samples/length": float(samples.responses.lengths.float().mean()),
            "samples/tokens": float(samples.responses.lengths.sum()),
            **(self._asked(samples) if iteration else {}),
        }
        return samples

    def fit(self, iteration: int, samples_so_far: Sequence[Samples]) -> None:
        """Fits the auxiliary model; the first time it is then asked about samples that were held out."""
        settings = self._settings
        samples = _remembered(samples_so_far, memory=settings.memory)
        held_out: Samples | None = None
        known: Opinions | None = None
        if iteration == 0:
            self._auxiliary.start_at(samples.rate)
            samples, held_out = _held_out(samples, group=settings.samples_per_prompt)
            known = self._opinions()
        self._figures["fit"] = fit(
            self._auxiliary,
            self._optimizer,
            samples,
            settings=settings,
            iteration=iteration,
            steps=settings.auxiliary_steps if iteration else settings.first_auxiliary_steps,
            opinions=known,
        )
        if held_out is not None:
            self._figures["fit"] |= self._asked(held_out) | self._guided(held_out)

    def _queries(self, iteration: int) -> list[Query]:
        """The prompts that an iteration draws for."""
        settings = self._settings
        count, seed = settings.prompts, settings.seed
        if iteration == 0:  # an order of its own, which no later iteration goes on with
            count, seed = settings.first_prompts, settings.seed + 1
        return drawn(self._mixture.queries, step=max(iteration, 1), count=count, seed=seed)

    def _opinions(self) -> Opinions | None:
        """What the oracle says of the known texts' prefixes; None without such texts."""
        if not self._mixture.known:
            return None
        return read_opinions(
            self._learner,
            self._mixture.known,
            reward=self._reward,
            tokenizer=self._tokenizer,
            settings=self._settings,
            dtype=self._dtype,
        )

    def _guided(self, samples: Samples) -> dict[str, float]:
        """What the posterior is for held-out samples, by metric name.

        ``auxiliary/guided_label`` is the mean label of what it writes itself for their prompts; where that is
        no higher than ``auxiliary/label`` there is nothing to teach.
        """
        guidance = self._guidance()
        queries = self._queries(0)
        held_out = queries[HELD_OUT - 1 :: HELD_OUT] or queries
        with self._learner.sampling() as family, self._learner.as_reference():
            draws = draw(
                GuardedFamily(family, guidance),
                held_out,
                tokenizer=self._tokenizer,
                settings=self._settings,
                iteration=0,
            )
        labels = opinions(self._reward, draws.answers, settings=self._settings)
        apart = distance(guidance, samples, most_prefix_weight=self._settings.most_prefix_weight)
        return {"auxiliary/guided_label": float(labels.mean()), **apart}

    def _asked(self, samples: Samples) -> dict[str, float]:
        return quality(self._auxiliary, samples, success_from=self._settings.success_from)

    def tune(self, iteration: int, samples: Samples | None) -> None:
        """Takes the iteration's optimizer steps; the posterior is that of its start."""
        settings = self._settings
        if not settings.tunes:
            return
        steps = range((iteration - 1) * settings.steps + 1, iteration * settings.steps + 1)
        mixed = [self._mixed(step) for step in steps]
        corpus = self._corpus_lessons(mixed, iteration)
        answers = self._sample_lessons(samples, iteration, steps)
        sums: dict[str, float] = {}
        for place, (step, texts) in enumerate(zip(steps, mixed, strict=True)):
            self._optimizer.param_groups[0]["lr"] = learning_rate(
                step - 1, steps=settings.all_steps, warmup=settings.warmup, peak=settings.learning_rate
            )
            found = tune_step(
                self._learner,
                self._optimizer,
                Batch(
                    plain=[text for text in texts if not corpus or not self._is_taught(text)],
                    taught=corpus[place] if corpus else None,
                    drawn=answers[place] if answers else None,
                ),
                corpus_weight=settings.corpus_weight * self._control.multiplier,
                samples_weight=settings.samples_weight * self._control.multiplier,
                microbatch_size=settings.microbatch_size,
                max_grad_norm=settings.max_grad_norm,
                dtype=self._dtype,
            )
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + value / settings.steps
            self.on_step(step, found["loss/language_model"])
        self._figures["tune"] = sums | {
            "learning_rate": self._optimizer.param_groups[0]["lr"],
            "multiplier": self._control.multiplier,
        }

    def changed(self, branch: str) -> Any:
        """Weights, optimizer state and figures of a branch."""
        parameters = self._of(branch)
        return (
            [parameter.detach() for parameter in parameters],
            [self._optimizer.state[parameter] for parameter in parameters],
            self._figures[branch],
        )

    def adopt(self, branch: str, change: Any) -> None:
        """Takes over what another process changed."""
        weights, states, figures = change
        with torch.no_grad():
            for parameter, weight, state in zip(self._of(branch), weights, states, strict=True):
                parameter.copy_(weight)
                self._optimizer.state[parameter] = state
        self._figures[branch] = figures

    def _of(self, branch: str) -> list[nn.Parameter]:
        models: dict[str, nn.Module] = {"tune": self._learner, "fit": self._auxiliary}
        return trainable_parameters(models[branch]) if branch in models else []

    def _mixed(self, step: int) -> list[Passage]:
        """The guided and the general texts of a step."""
        settings, mixture = self._settings, self._mixture
        rows = settings.guided_rows
        guided = drawn(mixture.guided, step=step, count=rows, seed=settings.seed)
        if rows == settings.batch_size:
            return guided
        general = drawn(mixture.general, step=step, count=settings.batch_size - rows, seed=settings.seed)
        return [*guided, *general]

    def _is_taught(self, text: Passage) -> bool:
        """Whether the regularizer acts on a corpus text."""
        return text.guided or not self._settings.adaptive

    def _corpus_lessons(self, mixed: Sequence[Sequence[Passage]], iteration: int) -> list[Lessons] | None:
        """Per step the posterior along the texts that the regularizer acts on."""
        settings = self._settings
        if settings.method != "regularized" or not settings.corpus_weight:
            return None
        texts = [[text for text in step if self._is_taught(text)] for step in mixed]
        every = corpus_lessons(
            self._learner,
            self._guidance(),
            [passage for step in texts for passage in step],
            settings=settings,
            pad_id=self._tokenizer.pad_token_id,
            is_base=iteration == 1,
            dtype=self._dtype,
        )
        ends = torch.tensor([len(step) for step in texts]).cumsum(0).tolist()
        return [
            every.select(torch.arange(end - len(step), end)) for step, end in zip(texts, ends, strict=True)
        ]

    def _sample_lessons(
        self, samples: Samples | None, iteration: int, steps: Sequence[int]
    ) -> list[Lessons] | None:
        """Per step the posterior along drawn responses, which take turns; unused ones are not read."""
        settings = self._settings
        if samples is None or not settings.samples_weight:
            return None
        # Neighbours answer the same prompt, which is then read once for all of them.
        count = min(settings.samples_batch, len(samples))
        turns = torch.stack([(step * count + torch.arange(count)) % len(samples) for step in steps])
        used, places = torch.unique(turns, return_inverse=True)
        every = sample_lessons(
            self._learner,
            self._guidance(),
            samples.select(used),
            settings=settings,
            are_fresh=settings.schedule == "sequential" or iteration == 1,
            dtype=self._dtype,
        )
        return [every.select(turn) for turn in places]

    def _guidance(self) -> Guidance:
        settings = self._settings
        return Guidance(
            self._auxiliary,
            strength=settings.strength,
            most_log_ratio=settings.most_log_ratio,
            candidates=settings.candidates,
        )


def _remembered(samples_so_far: Sequence[Samples], *, memory: float) -> Samples:
    """All samples so far that still count something, less the older they are."""
    counting = samples_so_far if memory else samples_so_far[-1:]
    ages = range(len(counting) - 1, -1, -1)
    return Samples.joined(
        [replace(part, weights=part.weights * memory**age) for part, age in zip(counting, ages, strict=True)]
    )


def _held_out(samples: Samples, *, group: int) -> tuple[Samples, Samples]:
    """Samples to fit to, and those of every fifth prompt; all twice where there are fewer prompts."""
    prompts = torch.arange(len(samples)) // group
    held: Tensor = prompts % HELD_OUT == HELD_OUT - 1
    if not bool(held.any()):
        return samples, samples
    return samples.select((~held).nonzero()[:, 0]), samples.select(held.nonzero()[:, 0])
