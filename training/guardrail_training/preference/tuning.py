"""Tunes an adapter on its own candidates: DPO or ORPO on the best and the worst of them by a reward.

Run it with ``guardrail-train preference --recipe dpo-rewriter --data FOLDER --out runs/dpo``; the same
command continues an interrupted run, in either stage. First the starting adapter rewrites each sentence
several times, and ``<out>/pairs.jsonl`` receives the best and the worst of it; copied into another run's
folder, that file serves another method on the same pairs. Then the adapter itself is trained further: the
result has its rank and its size.

DPO is Rafailov et al. 2023 (arXiv 2305.18290), ORPO is Hong et al. 2024 (arXiv 2403.07691); best and worst of
own candidates is how the winners of TextDetox 2024 tuned their rewriter (arXiv 2407.05449). Left out: diverse
beam search (samples differ as well), a second copy of the model (the reference's numbers are computed once),
rounds of new candidates from the tuned policy (start a second run from its adapter).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from guardrail.errors import ConfigError
from guardrail.manifest import Template, sha256_of
from guardrail.rewriters.adapter import Adapter
from guardrail_training import modeling
from guardrail_training.checkpoint import StopRequest, stop_on_signals
from guardrail_training.data import bucketed_batches, drop_copies, load_paradetox
from guardrail_training.modeling import EncodedExample, encode_example, resume_adapter, save_adapter
from guardrail_training.preference.candidates import (
    FILENAME,
    CandidateComparison,
    ParallelSentence,
    compare_missing,
    draw_sentences,
    pairs_of,
    read_comparisons,
    read_own_pairs,
)
from guardrail_training.preference.losses import PairLogprobs, dpo_objective, orpo_objective
from guardrail_training.preference.settings import PreferenceSettings
from guardrail_training.processes import Processes
from guardrail_training.provenance import SHIPPED, model_folder, weights_sha256
from guardrail_training.records import data_folder
from guardrail_training.reinforcement.policy import Learner
from guardrail_training.rewards.algebra import Reward
from guardrail_training.rewards.independence import independent_reward
from guardrail_training.run import (
    Callback,
    DivergedError,
    Report,
    Run,
    clip_gradients,
    fingerprint_of,
    manifest_of,
    pad_token_of,
    starting_adapter,
)
from guardrail_training.sft import learning_rate

__all__ = ["PreferencePair", "PreferenceSettings", "encode_comparisons", "plan_batches", "read_pairs", "run"]

REFERENCE = "reference.safetensors"
IN_MANIFEST = ("rewards/accuracies", "rewards/margins")


def run(
    settings: PreferenceSettings, *, reward: Reward | None = None, callbacks: Sequence[Callback] = ()
) -> Report:
    """Tunes, or continues, the run in ``settings.out`` and returns how it ended.

    ``reward`` takes the place of the settings' formula. Whatever can be wrong with data, models and settings
    is an error before the first candidate; TrainingRowError, before the first step, if no pair comes of
    them. SIGINT and SIGTERM finish the batch, keep the state and return; before the first step the report
    has no steps yet. DivergedError for a gradient that is not finite: checkpoint and adapters are those of
    the steps before.
    """
    # 1. Everything that can be wrong, before anything is expensive.
    device = modeling.resolve_device(settings.device)
    processes = Processes(device=device)
    if processes.count > 1:
        raise ConfigError(f"preference tuning runs in one process, got {processes.count}; start one")
    out, base = Path(settings.out), model_folder(settings.base)
    start = starting_adapter(settings.adapter or SHIPPED / "rewriter", base=base)
    assert start is not None  # there is always one
    dtype = modeling.resolve_dtype(settings.dtype, device)
    tokenizer = modeling.load_ending_tokenizer(base, pad_token=pad_token_of(settings, start))
    pad_id: int = tokenizer.pad_token_id
    identity = weights_sha256(base)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    pairing: _Drawing | _Own = (
        _own_pairs(settings, tokenizer=tokenizer, start=start)
        if settings.pairs
        else _drawing(settings, reward=reward, start=start, tokenizer=tokenizer, identity=identity, out=out)
    )
    more = pairing.described

    # 2. The starting adapter on its base, to be trained further.
    torch.manual_seed(settings.seed)
    learner = Learner(
        resume_adapter(modeling.load_base(base, dtype=dtype, device=device), start),
        pad_id=pad_id,
        temperature=1.0,
        dtype=dtype,
        has_values=False,
    )
    out.mkdir(parents=True, exist_ok=True)

    # 3. A user's own pairs; or candidates for every sentence: the best and the worst of each are its pair.
    with stop_on_signals() as stop:
        comparisons = pairing.complete(learner, tokenizer=tokenizer, settings=settings, stop=stop)
        counts = {"sentences": pairing.done, "pairs": 0}
        if comparisons is None:  # a signal came before all sentences were compared
            return Report(step=0, steps=0, metrics=counts, stopped_by=stop.signal)
        del reward, pairing  # their models take memory that training can use
        pairs = encode_comparisons(comparisons, tokenizer=tokenizer, template=start.template)
        counts["pairs"] = len(pairs)
        batches = plan_batches(
            pairs, passes=settings.passes, batch_size=settings.batch_size, seed=settings.seed
        )
        fingerprint = fingerprint_of(
            settings.of_steps(),
            start,
            [identity, *([each.query, each.chosen, each.rejected] for each in comparisons)],
        )

        # 4. What the reference says of the pairs, while the learner still is the reference.
        reference = None
        if settings.method == "dpo":
            reference = _reference_logprobs(
                learner,
                pairs,
                batches[: len(batches) // settings.passes],
                pad_id=pad_id,
                path=out / REFERENCE,
                fingerprint=fingerprint,
                stop=stop,
            )
            if reference is None:  # a signal came before it was whole
                return Report(step=0, steps=len(batches), metrics=counts, stopped_by=stop.signal)

    # 5. The run's folder; then the state of an earlier run, if there is one.
    parameters = modeling.trainable_parameters(learner)
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=0.0)
    course = Run(
        settings,
        manifest=manifest_of(
            settings,
            base=base,
            template=start.template.literal,
            data=[_source(settings, rows=len(pairs))],
            start=start,
            more=more,
        ),
        fingerprint=fingerprint,
        processes=processes,
        callbacks=callbacks,
    )
    facts = {
        "pairs": len(pairs),
        "mean_margin": sum(each.margin for each in comparisons) / len(comparisons),
        "steps": len(batches),
    }
    course.resume(learner, optimizer, facts=facts)

    with course:
        for step in course.steps(len(batches)):
            # 6. A step: what the policy says of both responses to each prompt of a batch, and the gradient
            #    that makes the chosen more probable than the rejected, measured against the reference (DPO)
            #    or by the odds, with the likelihood of the chosen added (ORPO). The formulas are in
            #    ``losses``; a pair that the policy already orders well has next to no gradient.
            started = time.perf_counter()
            rate = learning_rate(
                step - 1, steps=len(batches), warmup=settings.warmup, peak=settings.learning_rate
            )
            for group in optimizer.param_groups:
                group["lr"] = rate
            batch = batches[step - 1]
            policy = read_pairs(learner, [pairs[index] for index in batch], pad_id=pad_id)
            if reference is None:
                objective, metrics = orpo_objective(policy, beta=settings.beta)
            else:
                objective, metrics = dpo_objective(
                    policy,
                    reference_chosen=reference[batch, 0],
                    reference_rejected=reference[batch, 1],
                    beta=settings.beta,
                    nll_weight=settings.nll_weight,
                )
            objective.backward()  # type: ignore[no-untyped-call]  # torch leaves backward untyped
            norm = clip_gradients(
                parameters, settings.max_grad_norm, error=partial(_diverged, step=step, out=out)
            )
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            metrics = {"loss": objective.item(), **metrics, "lr": rate, "grad_norm": norm}
            course.log({**metrics, "seconds": round(time.perf_counter() - started, 3)}, step=step)

            # 7. Now and then an adapter to choose from.
            if step == len(batches) or step % settings.keep_every == 0:
                course.keep(
                    partial(save_adapter, learner.model),
                    step=step,
                    metrics={name: metrics[name] for name in IN_MANIFEST},
                )
    course.metrics |= counts
    return course.report("sentences", "pairs", "loss")


@dataclass(slots=True)
class _Own:
    """A user's own pairs."""

    pairs: list[CandidateComparison]

    @property
    def done(self) -> int:
        """Prompts that have a pair."""
        return len(self.pairs)

    @property
    def described(self) -> dict[str, Any]:
        """What a manifest says of them apart from the file: nothing."""
        return {}

    def complete(
        self, learner: Learner, *, tokenizer: Any, settings: PreferenceSettings, stop: StopRequest
    ) -> list[CandidateComparison] | None:
        """The pairs, which are complete."""
        return self.pairs


def _own_pairs(settings: PreferenceSettings, *, tokenizer: Any, start: Adapter) -> _Own:
    template, max_tokens = start.template, settings.max_tokens
    return _Own(read_own_pairs(settings.pairs, tokenizer=tokenizer, template=template, max_tokens=max_tokens))


@dataclass(slots=True)
class _Drawing:
    """What candidates are drawn for and ranked by, and the comparisons that an earlier run has made."""

    sentences: tuple[ParallelSentence, ...]
    comparisons: dict[int, CandidateComparison]
    reward: Reward
    fingerprint: str

    @property
    def done(self) -> int:
        """Sentences that have been compared."""
        return sum(sentence.number in self.comparisons for sentence in self.sentences)

    @property
    def described(self) -> dict[str, Any]:
        """What a manifest says of the ranking."""
        return {"reward": self.reward.formula}

    def complete(
        self, learner: Learner, *, tokenizer: Any, settings: PreferenceSettings, stop: StopRequest
    ) -> list[CandidateComparison] | None:
        """Compares what no earlier run has; the pairs, None if a signal stopped it."""
        compare_missing(
            learner,
            self.sentences,
            self.comparisons,
            reward=self.reward,
            tokenizer=tokenizer,
            settings=settings,
            fingerprint=self.fingerprint,
            stop=stop,
        )
        if stop.signal:
            return None
        numbers = [sentence.number for sentence in self.sentences]
        return pairs_of(numbers, self.comparisons, margin=settings.margin)


def _drawing(
    settings: PreferenceSettings,
    *,
    reward: Reward | None,
    start: Adapter,
    tokenizer: Any,
    identity: str,
    out: Path,
) -> _Drawing:
    rows = drop_copies(load_paradetox(settings.data, split="train"))
    sentences = draw_sentences(rows, tokenizer=tokenizer, template=start.template, settings=settings)
    reward = independent_reward(settings.reward, reward, device=settings.device)
    fingerprint = fingerprint_of(
        settings.of_ranking(),
        start,
        [
            [reward.formula, *sorted(reward.models), identity],
            *([row.number, row.source, *row.references] for row in rows),
        ],
    )
    return _Drawing(sentences, read_comparisons(out / FILENAME, fingerprint=fingerprint), reward, fingerprint)


def _source(settings: PreferenceSettings, *, rows: int) -> dict[str, Any]:
    """What the manifest says of the pairs."""
    if settings.pairs:
        path = Path(settings.pairs)
        return {"name": path.name, "rows": rows, "sha256": sha256_of(path)}
    folder = data_folder(settings.data)
    sha256 = sha256_of(folder / "paradetox" / "train.jsonl") if folder else None
    return {"name": "paradetox", "split": "train", "rows": rows, "sha256": sha256}


def _diverged(*, step: int, out: Path) -> DivergedError:
    return DivergedError(
        f"step {step}: the gradient is not finite; lower learning_rate or beta and start anew in another "
        f"--out, with pairs.jsonl copied there from {out}"
    )


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """One prompt with the response that is better and the one that is worse."""

    chosen: EncodedExample
    rejected: EncodedExample

    def __len__(self) -> int:
        return max(len(self.chosen), len(self.rejected))


def encode_comparisons(
    comparisons: Iterable[CandidateComparison], *, tokenizer: Any, template: Template
) -> tuple[PreferencePair, ...]:
    """The pair of each comparison, both responses ending in the end-of-text token."""
    return tuple(
        PreferencePair(
            *(
                encode_example(tokenizer, template, source=comparison.query, target=response)
                for response in (comparison.chosen, comparison.rejected)
                if response is not None
            )
        )
        for comparison in comparisons
    )


def plan_batches(
    pairs: Sequence[PreferencePair], *, passes: int, batch_size: int, seed: int
) -> list[list[int]]:
    """The indices of each step's pairs, similar lengths together, each pair once in every pass."""
    lengths = [len(pair) for pair in pairs]
    return [
        batch
        for pass_index in range(passes)
        for batch in bucketed_batches(lengths, batch_size=batch_size, seed=seed, pass_index=pass_index)
    ]


def read_pairs(learner: Learner, pairs: Sequence[PreferencePair], *, pad_id: int) -> PairLogprobs:
    """What the policy says of both responses to each prompt, with gradients where they are enabled."""
    examples = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
    responses = pad_sequence(
        [torch.tensor(example.target) for example in examples], batch_first=True, padding_value=pad_id
    )  # (2 * pairs, time)
    lengths = torch.tensor([len(example.target) for example in examples])
    mask = torch.arange(responses.shape[1]) < lengths[:, None]
    prompts = learner.family.pad([example.prompt for example in examples])
    sums = learner.read(prompts, responses, mask).logprobs.sum(dim=1)
    count = len(pairs)
    return PairLogprobs(sums[:count], sums[count:], lengths[:count], lengths[count:])


def _reference_logprobs(
    learner: Learner,
    pairs: Sequence[PreferencePair],
    batches: Sequence[Sequence[int]],
    *,
    pad_id: int,
    path: Path,
    fingerprint: str,
    stop: StopRequest,
) -> Tensor | None:
    """Sums of log-probabilities ``(pairs, 2)`` float32, chosen and rejected; None if a signal stopped it.

    ``learner`` still holds the starting adapter. ``batches`` are those of the first pass: in them the policy
    says the same to the bit before it has moved. A file of the same ``fingerprint`` is read in place of all
    that.
    """
    if path.is_file():
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("fingerprint") == fingerprint:
                earlier: Tensor = file.get_tensor("logprobs")
                return earlier
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
