"""Fine-tunes a language model on a mixture corpus while a regularizer holds it to a constraint.

Run it with ``guardrail-train regularized --recipe toxigen-regularized --data FOLDER``; the same command
continues an interrupted run from its last whole iteration. With the parallel schedule ``torchrun
--nproc_per_node=3`` runs sampling, auxiliary model and language model side by side.

    L = L_LM(mixture) + lambda * sum_i KL(q(. | x, y_<i) || p(. | x, y_<i)),    q held constant

with q the distribution closest to the language model in which no response breaks the constraint (Meng et al.
2024, arXiv 2410.05559; its auxiliary model is NADO, arXiv 2205.14219). docs/regularized.md has the equations
and what is known of the paper's settings. Left out: soft constraints E_q[C] >= r (the paper tries the hard
one alone), DiNADO's parameterisation, encoder-decoder models.

``run`` is the whole algorithm in steps, ``ModelParts`` the three branches of an iteration; ``samples`` draws
and asks the oracle, ``fitting`` fits the auxiliary model, ``posterior_targets`` teaches the language model.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from guardrail.errors import ConfigError, FailureError
from guardrail.manifest import sha256_of
from guardrail.rewriters.adapter import Adapter
from guardrail_training import modeling
from guardrail_training.modeling.stacked import merge, save_stacked
from guardrail_training.nado.auxiliary import Auxiliary, save_auxiliary
from guardrail_training.nado.decoding import GuardedFamily
from guardrail_training.nado.guidance import Guidance
from guardrail_training.processes import Processes
from guardrail_training.provenance import model_folder, weights_sha256
from guardrail_training.records import required_folder
from guardrail_training.regularized.corpus import CorpusMixture, CorpusPassage, load_mixture
from guardrail_training.regularized.fitting import distance, fit, quality
from guardrail_training.regularized.posterior_targets import (
    PosteriorTargets,
    TuneBatch,
    corpus_targets,
    sample_targets,
    tune_step,
)
from guardrail_training.regularized.samples import (
    LabelledSamples,
    PrefixLabels,
    collect,
    draw,
    keep_successes,
    oracle_labels,
    read_prefix_labels,
)
from guardrail_training.regularized.schedules import Schedule
from guardrail_training.regularized.settings import RegularizedSettings
from guardrail_training.reinforcement.policy import Learner
from guardrail_training.reinforcement.rollouts import PromptQuery, drawn
from guardrail_training.rewards.algebra import Reward
from guardrail_training.rewards.independence import independent_reward
from guardrail_training.run import (
    Callback,
    Report,
    Run,
    fingerprint_of,
    manifest_of,
    pad_token_of,
    starting_adapter,
)
from guardrail_training.sft import learning_rate

__all__ = ["PLAIN_TEMPLATE", "DualAscent", "ModelParts", "RegularizedSettings", "run"]

PLAIN_TEMPLATE = "{text}"
"""The template of a model that continues a text."""
HELD_OUT = 5  # every fifth prompt of the first samples
IN_MANIFEST = ("loss/language_model", "samples/failed")


def run(
    settings: RegularizedSettings, *, reward: Reward | None = None, callbacks: Sequence[Callback] = ()
) -> Report:
    """Trains, or continues, the run in ``settings.out`` and returns how it ended; a step is an iteration.

    ``reward`` takes the place of the settings' formula. Whatever can be wrong is an error before the first
    sample. SIGINT and SIGTERM finish the iteration, write a checkpoint and return. An auxiliary model that
    cannot tell successes from failures raises FailureError before it teaches anything.
    """
    # 1. Everything that can be wrong, before anything is expensive.
    device = modeling.resolve_device(settings.device)
    processes = Processes(device=device)
    if settings.method != "regularized" and processes.count > 1:
        raise ConfigError(f"method {settings.method} runs in one process, got {processes.count}")
    base, data = model_folder(settings.base), required_folder(settings.data)
    start = starting_adapter(settings.adapter, base=base)
    dtype = modeling.resolve_dtype(settings.dtype, device)
    tokenizer = modeling.load_ending_tokenizer(base, pad_token=pad_token_of(settings, start))
    mixture = load_mixture(data, settings, tokenizer=tokenizer)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    reward = independent_reward(settings.reward, reward, device=settings.device)
    if settings.method == "filtering":
        mixture = keep_successes(mixture, reward, settings=settings)

    # 2. A frozen base with the starting adapter in it and a fresh adapter on top: the language model.
    #    An auxiliary model reads the base's states and says how likely a prefix ends well.
    torch.manual_seed(settings.seed)
    learner = _learner(
        settings, base=base, start=start, pad_id=tokenizer.pad_token_id, dtype=dtype, device=device
    )
    auxiliary = _auxiliary(learner, settings)
    optimizer = _optimizer(learner, auxiliary, settings)
    control = DualAscent(
        rate=settings.dual_ascent,
        target=settings.toxic_target,
        memory=settings.toxic_memory,
        max_multiplier=settings.max_multiplier,
    )
    parts = ModelParts(
        learner,
        auxiliary,
        optimizer,
        mixture=mixture,
        reward=reward,
        tokenizer=tokenizer,
        settings=settings,
        control=control,
    )
    schedule: Schedule[LabelledSamples] = Schedule(
        parts,
        parallel=settings.overlaps,
        processes=processes,
        remembers=settings.memory > 0,
    )

    # 3. The run's folder; then the state of an earlier run, its samples among it, if there is one.
    course = Run(
        settings,
        manifest=manifest_of(
            settings,
            base=base,
            template=settings.template or PLAIN_TEMPLATE,
            data=_sources(settings, mixture, data=data),
            start=start,
            more={"reward": reward.formula},
        ),
        fingerprint=fingerprint_of(settings.decisive(), start, _content(mixture, reward)),
        processes=processes,
        best="samples/failed" if settings.draws else None,
        callbacks=callbacks,
    )
    count = modeling.count_parameters(learner)
    facts = {
        "guided_texts": len(mixture.guided),
        "general_texts": len(mixture.general),
        "queries": len(mixture.queries),
        "reward": reward.formula,
        "trainable_parameters": count.trainable,
        "parameters": count.total,
        "auxiliary_parameters": modeling.count_parameters(auxiliary).trainable,
    }
    files = _SampleFiles(Path(settings.out), settings)
    first = course.resume(
        nn.ModuleDict({"learner": learner, "auxiliary": auxiliary}),
        optimizer,
        control=control,
        facts=facts,
        steps_logged=settings.steps,
        around_state=lambda iteration: files.written(schedule.samples, iteration=iteration),
    )
    schedule.samples = files.read(iteration=first)
    base_sha256 = weights_sha256(base)

    def write(folder: Path) -> list[Path]:
        files = save_stacked(learner.model, folder, start=start)
        if settings.draws:
            save_auxiliary(auxiliary, folder, base_sha256=base_sha256)
        return files

    with course:
        # 4. Samples of the starting model, and an auxiliary model that has to know something about them.
        if settings.draws and first == 0:
            started = time.perf_counter()
            schedule.begin()
            seconds = round(time.perf_counter() - started, 3)
            course.log({**parts.metrics, "time/begin": seconds}, step=0)
            _require_knowledge(parts.metrics, settings)

        parts.on_step = course.show
        for iteration in course.steps(settings.iterations, shown=settings.all_steps):
            # 5. An iteration: the language model takes its steps under the posterior that the auxiliary
            #    model makes of it, new samples are drawn and labelled, and the auxiliary model is fitted to
            #    them, in the order that the schedule says. The regularizer's weights follow the failures.
            started = time.perf_counter()
            parts.forget()
            if settings.draws:
                schedule.run(iteration, is_last=iteration == settings.iterations)
                # The first sequential iteration and the last parallel one draw nothing.
                control.update(parts.metrics.get("samples/failed", course.metrics.get("samples/failed")))
            else:
                parts.tune(iteration, None)
            step = iteration * settings.steps
            seconds = (time.perf_counter() - started) / settings.steps
            course.log({**parts.metrics, "time/step": round(seconds, 3)}, step=step)

            # 6. Now and then models to choose from.
            if iteration == settings.iterations or iteration % settings.keep_every == 0:
                known = {name: course.metrics[name] for name in IN_MANIFEST if name in course.metrics}
                course.keep(write, step=step, metrics=known)
    return course.report("samples/failed")


class ModelParts:
    """Language model, auxiliary model and oracle as a schedule drives them; see ``schedules.Parts``.

    ``figures`` holds the last iteration's metrics by name; ``on_step`` gets every optimizer step of the
    language model and its loss.
    """

    def __init__(
        self,
        learner: Learner,
        auxiliary: Auxiliary,
        optimizer: torch.optim.Optimizer,
        *,
        mixture: CorpusMixture,
        reward: Reward,
        tokenizer: Any,
        settings: RegularizedSettings,
        control: DualAscent,
    ) -> None:
        self._learner, self._auxiliary, self._optimizer = learner, auxiliary, optimizer
        self._mixture, self._reward, self._tokenizer = mixture, reward, tokenizer
        self._settings, self._control = settings, control
        self._metrics: dict[str, dict[str, float]] = {"collect": {}, "tune": {}, "fit": {}}
        self.on_step: Callable[[int, float], object] = lambda step, loss: None

    @property
    def metrics(self) -> dict[str, float]:
        """What the branches last measured."""
        return {name: value for part in self._metrics.values() for name, value in part.items()}

    def forget(self) -> None:
        """Empties the metrics for a new iteration."""
        self._metrics = {"collect": {}, "tune": {}, "fit": {}}

    def collect(self, iteration: int) -> LabelledSamples:
        """Draws and labels, and asks the auxiliary model about samples that are new to it."""
        settings = self._settings
        samples = collect(
            self._learner,
            self._queries(iteration),
            reward=self._reward,
            tokenizer=self._tokenizer,
            settings=settings,
            iteration=iteration,
        )
        self._metrics["collect"] = {
            "samples/failed": 1 - samples.rate,
            "samples/length": float(samples.responses.lengths.float().mean()),
            "samples/tokens": float(samples.responses.lengths.sum()),
            **(self._asked(samples) if iteration else {}),
        }
        return samples

    def fit(self, iteration: int, samples_so_far: Sequence[LabelledSamples]) -> None:
        """Fits the auxiliary model; the first time it is then asked about samples that were held out."""
        settings = self._settings
        samples = _remembered(samples_so_far, memory=settings.memory)
        held_out: LabelledSamples | None = None
        known: PrefixLabels | None = None
        if iteration == 0:
            self._auxiliary.start_at(samples.rate)
            samples, held_out = _held_out(samples, group=settings.samples_per_prompt)
            known = self._known_prefix_labels()
        self._metrics["fit"] = fit(
            self._auxiliary,
            self._optimizer,
            samples,
            settings=settings,
            iteration=iteration,
            steps=settings.auxiliary_steps if iteration else settings.first_auxiliary_steps,
            prefix_labels=known,
        )
        if held_out is not None:
            self._metrics["fit"] |= self._asked(held_out) | self._guided(held_out)

    def _queries(self, iteration: int) -> list[PromptQuery]:
        """The prompts that an iteration draws for."""
        settings = self._settings
        count, seed = settings.prompts, settings.seed
        if iteration == 0:  # an order of its own, which no later iteration continues
            count, seed = settings.first_prompts, settings.seed + 1
        return drawn(self._mixture.queries, step=max(iteration, 1), count=count, seed=seed)

    def _known_prefix_labels(self) -> PrefixLabels | None:
        """What the oracle says of the known texts' prefixes; None without such texts."""
        if not self._mixture.known:
            return None
        return read_prefix_labels(
            self._learner,
            self._mixture.known,
            reward=self._reward,
            tokenizer=self._tokenizer,
            settings=self._settings,
        )

    def _guided(self, samples: LabelledSamples) -> dict[str, float]:
        """What the posterior is for held-out samples, by metric name.

        ``auxiliary/guided_label`` is the mean label of what it writes itself for their prompts; if that is
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
        labels = oracle_labels(self._reward, draws.answers, settings=self._settings)
        apart = distance(guidance, samples, max_prefix_weight=self._settings.max_prefix_weight)
        return {"auxiliary/guided_label": float(labels.mean()), **apart}

    def _asked(self, samples: LabelledSamples) -> dict[str, float]:
        return quality(self._auxiliary, samples, success_from=self._settings.success_from)

    def tune(self, iteration: int, samples: LabelledSamples | None) -> None:
        """Takes the iteration's optimizer steps; the posterior is that of its start."""
        settings = self._settings
        if not settings.tunes:
            return
        steps = range((iteration - 1) * settings.steps + 1, iteration * settings.steps + 1)
        # The posterior q that the regularizer pulls towards is computed once, at the iteration's start, and
        # held: KL(q || p) then has a fixed target while p takes its steps.
        mixed = [self._mixed(step) for step in steps]
        corpus = self._corpus_targets(mixed, iteration)
        answers = self._sample_targets(samples, iteration, steps)
        sums: dict[str, float] = {}
        for place, (step, texts) in enumerate(zip(steps, mixed, strict=True)):
            self._optimizer.param_groups[0]["lr"] = learning_rate(
                step - 1, steps=settings.all_steps, warmup=settings.warmup, peak=settings.learning_rate
            )
            metrics = tune_step(
                self._learner,
                self._optimizer,
                TuneBatch(
                    plain=[text for text in texts if not corpus or not self._is_taught(text)],
                    taught=corpus[place] if corpus else None,
                    drawn=answers[place] if answers else None,
                ),
                corpus_weight=settings.corpus_weight * self._control.multiplier,
                samples_weight=settings.samples_weight * self._control.multiplier,
                microbatch_size=settings.microbatch_size,
                max_grad_norm=settings.max_grad_norm,
            )
            for name, value in metrics.items():
                sums[name] = sums.get(name, 0.0) + value / settings.steps
            self.on_step(step, metrics["loss/language_model"])
        self._metrics["tune"] = sums | {
            "learning_rate": self._optimizer.param_groups[0]["lr"],
            "multiplier": self._control.multiplier,
        }

    def changed(self, branch: str) -> Any:
        """Weights, optimizer state and metrics of a branch."""
        parameters = self._of(branch)
        return (
            [parameter.detach() for parameter in parameters],
            [self._optimizer.state[parameter] for parameter in parameters],
            self._metrics[branch],
        )

    def adopt(self, branch: str, change: Any) -> None:
        """Takes over what another process changed."""
        weights, states, metrics = change
        with torch.no_grad():
            for parameter, weight, state in zip(self._of(branch), weights, states, strict=True):
                parameter.copy_(weight)
                self._optimizer.state[parameter] = state
        self._metrics[branch] = metrics

    def _of(self, branch: str) -> list[nn.Parameter]:
        models: dict[str, nn.Module] = {"tune": self._learner, "fit": self._auxiliary}
        return modeling.trainable_parameters(models[branch]) if branch in models else []

    def _mixed(self, step: int) -> list[CorpusPassage]:
        """The guided and the general texts of a step."""
        settings, mixture = self._settings, self._mixture
        rows = settings.guided_rows
        guided = drawn(mixture.guided, step=step, count=rows, seed=settings.seed)
        if rows == settings.batch_size:
            return guided
        general = drawn(mixture.general, step=step, count=settings.batch_size - rows, seed=settings.seed)
        return [*guided, *general]

    def _is_taught(self, text: CorpusPassage) -> bool:
        """Whether the regularizer acts on a corpus text."""
        return text.guided or not self._settings.adaptive

    def _corpus_targets(
        self, mixed: Sequence[Sequence[CorpusPassage]], iteration: int
    ) -> list[PosteriorTargets] | None:
        """Per step the posterior along the texts that the regularizer acts on."""
        settings = self._settings
        if settings.method != "regularized" or not settings.corpus_weight:
            return None
        texts = [[text for text in step if self._is_taught(text)] for step in mixed]
        every = corpus_targets(
            self._learner,
            self._guidance(),
            [passage for step in texts for passage in step],
            settings=settings,
            pad_id=self._tokenizer.pad_token_id,
            is_base=iteration == 1,
        )
        ends = torch.tensor([len(step) for step in texts]).cumsum(0).tolist()
        return [
            every.select(torch.arange(end - len(step), end)) for step, end in zip(texts, ends, strict=True)
        ]

    def _sample_targets(
        self, samples: LabelledSamples | None, iteration: int, steps: Sequence[int]
    ) -> list[PosteriorTargets] | None:
        """Per step the posterior along drawn responses, which take turns; unused ones are not read."""
        settings = self._settings
        if samples is None or not settings.samples_weight:
            return None
        # Neighbours answer the same prompt, which is then read once for all of them.
        count = min(settings.samples_batch, len(samples))
        turns = torch.stack([(step * count + torch.arange(count)) % len(samples) for step in steps])
        used, places = torch.unique(turns, return_inverse=True)
        every = sample_targets(
            self._learner,
            self._guidance(),
            samples.select(used),
            settings=settings,
            are_fresh=settings.schedule == "sequential" or iteration == 1,
        )
        return [every.select(turn) for turn in places]

    def _guidance(self) -> Guidance:
        settings = self._settings
        return Guidance(
            self._auxiliary,
            strength=settings.strength,
            max_log_ratio=settings.max_log_ratio,
            candidates=settings.candidates,
        )


@dataclass(slots=True)
class DualAscent:
    """A multiplier of the regularizer's weights.

    After each iteration it becomes ``multiplier * exp(rate * (failures - target))``, with ``failures`` the
    share of failed samples of decay ``memory``, and stays between ``1 / max_multiplier`` and
    ``max_multiplier``. A ``rate`` of 0 leaves it alone.
    """

    rate: float
    target: float
    memory: float
    max_multiplier: float
    multiplier: float = 1.0
    failures: float | None = None

    def update(self, failed: float | None) -> None:
        """Takes notice of the share of failures in the last samples; None if none are known."""
        if failed is None:
            return
        before = failed if self.failures is None else self.failures
        self.failures = self.memory * before + (1 - self.memory) * failed
        grown = self.multiplier * math.exp(self.rate * (self.failures - self.target))
        self.multiplier = min(max(grown, 1 / self.max_multiplier), self.max_multiplier)

    def state_dict(self) -> dict[str, float]:
        """What a checkpoint has to keep."""
        state = {"multiplier": self.multiplier}
        return state if self.failures is None else state | {"failures": self.failures}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Puts back what ``state_dict`` gave."""
        self.multiplier, self.failures = state["multiplier"], state.get("failures")


class _SampleFiles:
    """The samples that a state depends on, in files of their own: they are large, most stay as they are."""

    def __init__(self, out: Path, settings: RegularizedSettings) -> None:
        self._out, self._settings = out, settings

    def read(self, *, iteration: int) -> list[LabelledSamples]:
        """Those of the state after an iteration."""
        drawn = self._drawn_until(iteration) if iteration and self._settings.draws else 0
        return [
            LabelledSamples.of(load_file(path)) for path in map(self._path, range(drawn)) if path.is_file()
        ]

    @contextmanager
    def written(self, samples: Sequence[LabelledSamples], *, iteration: int) -> Iterator[None]:
        """Writes those that the state after an iteration needs; once it is there, earlier ones go."""
        drawn = self._drawn_until(iteration)
        numbers = range(drawn - len(samples), drawn)
        for number, part in zip(numbers, samples, strict=True):
            # Those of iterations before the last checkpoint are there already.
            if number >= iteration - 1 or not self._path(number).is_file():
                state = {name: value.contiguous() for name, value in part.state_dict().items()}
                save_file(state, self._path(number))
        yield
        needed = set(map(self._path, numbers))
        for path in self._out.glob("samples-*.safetensors"):
            if samples and path not in needed:
                path.unlink()

    def _drawn_until(self, iteration: int) -> int:
        """How often samples were drawn when an iteration is over; the last parallel one draws none."""
        settings = self._settings
        return min(iteration, settings.iterations - 1) + 1 if settings.overlaps else iteration

    def _path(self, number: int) -> Path:
        return self._out / f"samples-{number}.safetensors"


def _content(mixture: CorpusMixture, reward: Reward) -> Iterator[object]:
    """What a run's numbers depend on apart from its settings."""
    yield [reward.formula, sorted(reward.models)]
    for passage in (*mixture.guided, *mixture.general, *mixture.known):
        yield [passage.prompt, passage.response]
    for query in mixture.queries:
        yield query.ids


def _sources(settings: RegularizedSettings, mixture: CorpusMixture, *, data: Path) -> list[Mapping[str, Any]]:
    rows = {settings.guided: len(mixture.guided), settings.general: len(mixture.general)}
    if settings.draws and settings.known_texts:
        rows |= dict.fromkeys(settings.known_texts, settings.known_rows // len(settings.known_texts))
    return [
        {"name": name, "rows": count, "sha256": sha256_of(data / name)}
        for name, count in rows.items()
        if name
    ]


def _remembered(samples_so_far: Sequence[LabelledSamples], *, memory: float) -> LabelledSamples:
    """All samples so far that still count something, less the older they are."""
    counting = samples_so_far if memory else samples_so_far[-1:]
    ages = range(len(counting) - 1, -1, -1)
    return LabelledSamples.joined(
        [replace(part, weights=part.weights * memory**age) for part, age in zip(counting, ages, strict=True)]
    )


def _held_out(samples: LabelledSamples, *, group: int) -> tuple[LabelledSamples, LabelledSamples]:
    """Samples to fit to, and those of every fifth prompt; all twice if there are fewer prompts."""
    prompts = torch.arange(len(samples)) // group
    held: Tensor = prompts % HELD_OUT == HELD_OUT - 1
    if not bool(held.any()):
        return samples, samples
    return samples.select((~held).nonzero()[:, 0]), samples.select(held.nonzero()[:, 0])


def _learner(
    settings: RegularizedSettings,
    *,
    base: Path,
    start: Adapter | None,
    pad_id: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Learner:
    model = modeling.load_base(base, dtype=dtype, device=device)
    if model.config.is_encoder_decoder:
        raise ConfigError(f"{type(model).__name__} is not a causal language model, which regularized needs")
    if start is not None:
        merge(model, start)
    adapted = modeling.add_lora(
        model, rank=settings.rank, alpha=settings.alpha, dropout=0.0, targets=settings.targets
    )
    # Drawn at another temperature they are weighed back: what is scored is always temperature 1.
    return Learner(adapted, pad_id=pad_id, temperature=1.0, dtype=dtype, has_values=False)


def _auxiliary(learner: Learner, settings: RegularizedSettings) -> Auxiliary:
    base: Any = learner.model.get_base_model()
    return Auxiliary(
        base.get_input_embeddings().weight,
        hidden=settings.auxiliary_hidden,
        blocks=settings.auxiliary_blocks,
        rank=settings.auxiliary_rank,
    ).to(base.device)


def _optimizer(
    learner: Learner, auxiliary: Auxiliary, settings: RegularizedSettings
) -> torch.optim.Optimizer:
    """One optimizer for both: parameters without gradient stay as they are, state included."""
    return torch.optim.AdamW(
        [
            {"params": modeling.trainable_parameters(learner), "lr": settings.learning_rate},
            {"params": list(auxiliary.parameters()), "lr": settings.auxiliary_learning_rate},
        ],
        weight_decay=0.0,
    )


def _require_knowledge(metrics: Mapping[str, float], settings: RegularizedSettings) -> None:
    if not settings.min_auc:
        return
    auc = metrics.get("auxiliary/auc_100")
    if auc is None:
        raise FailureError(
            "the oracle calls all held-out responses successes, or all failures: there is nothing to learn "
            "from; choose other prompts or another success_from, or draw for more first_prompts"
        )
    if auc < settings.min_auc:
        raise FailureError(
            f"the auxiliary model orders held-out responses with an AUC of {auc:.2f}, below min_auc = "
            f"{settings.min_auc:g}: it would teach noise; raise first_prompts or first_auxiliary_steps"
        )
