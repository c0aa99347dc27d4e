"""Compares what a run's adapter writes with what the model wrote before, on the same prompts and noise.

    guardrail-train evaluate generation --checkpoints runs/ppo --data DIR
        --set prompts=dialogsum/dev.jsonl --set field=dialogue --set reference=summary

Rows: the bare base (zero-shot), the adapter that training started from if there was one, the trained one. Of
each the mean and deviation of reward and toxicity, ROUGE if there are references, lengths; of the trained
one the relative change of toxicity. ``guardrail-train report`` shows them and every sample.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from guardrail.manifest import sha256_of
from guardrail.protocols import Embedder
from guardrail_training import modeling
from guardrail_training.evaluation.generation.comparison import (
    Changes,
    GenerationComparison,
    GenerationSystem,
    write_comparison,
)
from guardrail_training.evaluation.generation.measures import (
    load_encoder,
    load_toxicity,
    relative_change,
    rouge,
    similarity,
    smallest_reduction,
    spread_of,
)
from guardrail_training.evaluation.generation.models import Compared, compared_models
from guardrail_training.evaluation.generation.responses import Response, respond
from guardrail_training.evaluation.generation.samples import Sample, SampledResponse, write_samples
from guardrail_training.evaluation.generation.settings import MEASURED, SAMPLES, TABLES, GenerationSettings
from guardrail_training.evaluation.generation.tables import comparison_tables
from guardrail_training.records import TrainingRowError, read_records, required_folder
from guardrail_training.reinforcement.rollouts import PromptQuery, load_queries
from guardrail_training.reinforcement.settings import PpoSettings
from guardrail_training.rewards.algebra import Answer, Reward, Score
from guardrail_training.rewards.formula import read_formula
from guardrail_training.runlog import git_commit, package_versions, progress_bar

__all__ = ["GenerationSettings", "run"]

RESPONSE_TOKENS, TEMPERATURE = 60, 1.0
PLACES = frozenset({"run", "adapter", "data", "out"})


@dataclass(frozen=True, slots=True)
class ReferencedQuery:
    """A query with the references of its row."""

    query: PromptQuery
    references: tuple[str, ...]


def run(
    settings: GenerationSettings, *, reward: Reward | None = None, toxicity: Mapping[str, Score] | None = None
) -> Path:
    """Measures and writes generation.json, generation.md and samples.jsonl; returns the path of the first.

    ``reward`` and ``toxicity`` take the place of the settings' formulas and judges. Whatever can be wrong is
    an error before the first response.
    """
    # 1. Everything that can be wrong.
    models = compared_models(settings)
    tokenizer = modeling.load_ending_tokenizer(models.base, pad_token=models.pad_token)
    file = required_folder(settings.data) / settings.prompts
    asked = _asked(settings, file=file, models=models, tokenizer=tokenizer)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    formula = settings.reward or models.settings.get("reward") or PpoSettings().reward
    reward = reward or read_formula(formula, device=settings.device)
    toxicity = toxicity or load_toxicity(settings.judges)
    encoder = load_encoder(settings.encoder) if settings.encoder else None

    # 2. Responses of every model, and what they are worth.
    answered, systems = dict[str, list[SampledResponse]](), []
    with progress_bar("reward") as progress:
        task = progress.add_task("generation", total=len(asked) * len(models.titles), reward=float("nan"))
        for name, title in models.titles.items():
            responses = respond(
                models.load(name),
                [each.query for each in asked],
                tokenizer=tokenizer,
                tokens=settings.response_tokens or models.settings.get("response_tokens") or RESPONSE_TOKENS,
                temperature=settings.temperature or models.settings.get("temperature") or TEMPERATURE,
                batch_size=settings.batch_size,
                seed=settings.seed,
                min_tokens=_min_tokens(settings, models),
                keeps_special=settings.keeps_special_tokens,
                advance=partial(progress.advance, task),
            )
            answered[name], terms = _scored(asked, responses, reward=reward, toxicity=toxicity)
            systems.append(
                _system(
                    name,
                    title,
                    asked=asked,
                    outputs=answered[name],
                    terms=terms,
                    encoder=encoder,
                    seed=settings.seed,
                )
            )
            progress.update(task, reward=systems[-1].reward.mean.value)

    # 3. The table and the samples.
    changes = _changes(answered[models.before], answered["trained"], seed=settings.seed)
    comparison = GenerationComparison(
        before=models.before,
        after="trained",
        reward=reward.formula,
        systems=tuple(systems),
        changes=changes,
        counted=smallest_reduction({judge: change.mean for judge, change in changes.items()}),
        settings={key: value for key, value in asdict(settings).items() if key not in PLACES},
        seed=settings.seed,
        versions=package_versions(),
        git=git_commit(),
        data={settings.prompts: sha256_of(file)},
        models=models.sha256,
    )
    out = Path(settings.out or settings.run)
    out.mkdir(parents=True, exist_ok=True)
    samples = _samples(asked, answered)
    write_samples(out / SAMPLES, samples)
    write_comparison(out / MEASURED, comparison)
    (out / TABLES).write_text(comparison_tables(comparison, samples), encoding="utf-8")
    return out / MEASURED


def _min_tokens(settings: GenerationSettings, models: Compared) -> int:
    if settings.min_response_tokens is not None:
        return settings.min_response_tokens
    return int(models.settings.get("min_response_tokens") or 0)


def _asked(
    settings: GenerationSettings, *, file: Path, models: Compared, tokenizer: Any
) -> list[ReferencedQuery]:
    queries = load_queries(
        file,
        field=settings.field,
        template=models.template,
        tokenizer=tokenizer,
        min_characters=settings.min_characters,
        max_characters=settings.max_characters,
        max_tokens=settings.max_prompt_tokens,
    )
    if 0 < settings.limit < len(queries):
        places = random.Random(f"generation-{settings.seed}").sample(range(len(queries)), settings.limit)
        queries = tuple(queries[place] for place in sorted(places))
    references = _references(file, field=settings.reference) if settings.reference else {}
    return [ReferencedQuery(query=query, references=references.get(query.row, ())) for query in queries]


def _references(file: Path, *, field: str) -> dict[int, tuple[str, ...]]:
    found = {}
    for record in read_records(file, fields={field: (str, list)}):
        content = record[field]
        texts = tuple(content) if isinstance(content, list) else (content,)
        if not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise TrainingRowError(
                f"{file} row {record.number}: field {field!r} must be a text or a list of texts, none empty"
            )
        found[record.number] = texts
    return found


def _scored(
    asked: Sequence[ReferencedQuery],
    responses: Sequence[Response],
    *,
    reward: Reward,
    toxicity: Mapping[str, Score],
) -> tuple[list[SampledResponse], dict[str, list[float]]]:
    """The outputs of one model, and the terms of their rewards."""
    answers = [
        Answer(query=each.query.text, prompt=each.query.prompt, response=response.text)
        for each, response in zip(asked, responses, strict=True)
    ]
    scored = reward(answers)
    judged = {name: np.asarray(score(answers), dtype=np.float64) for name, score in toxicity.items()}
    outputs = [
        SampledResponse(
            response=response.text,
            tokens=response.tokens,
            ended=response.ended,
            reward=float(scored.total[place]),
            toxicity={name: float(values[place]) for name, values in judged.items()},
        )
        for place, response in enumerate(responses)
    ]
    return outputs, {name: values.tolist() for name, values in scored.terms.items()}


def _system(
    name: str,
    title: str,
    *,
    asked: Sequence[ReferencedQuery],
    outputs: Sequence[SampledResponse],
    terms: Mapping[str, Sequence[float]],
    encoder: Embedder | None,
    seed: int,
) -> GenerationSystem:
    references = [each.references for each in asked]
    said = [output.response for output in outputs]
    closeness = rouge(said, references, seed=seed) if all(references) else {}
    if encoder is not None and all(references):
        closeness["similarity"] = similarity(encoder, said, references, seed=seed)
    return GenerationSystem(
        name=name,
        title=title,
        n=len(outputs),
        reward=spread_of([output.reward for output in outputs], seed=seed),
        terms={term: spread_of(values, seed=seed).mean for term, values in terms.items()},
        toxicity={
            judge: spread_of([output.toxicity[judge] for output in outputs], seed=seed)
            for judge in outputs[0].toxicity
        },
        rouge=closeness,
        tokens=spread_of([output.tokens for output in outputs], seed=seed),
        ended=float(np.mean([output.ended for output in outputs])),
    )


def _changes(
    before: Sequence[SampledResponse], after: Sequence[SampledResponse], *, seed: int
) -> dict[str, Changes]:
    found = {}
    for judge in before[0].toxicity:
        first, second = ([output.toxicity[judge] for output in side] for side in (before, after))
        mean, std = (relative_change(first, second, figure=figure, seed=seed) for figure in (np.mean, np.std))
        found[judge] = Changes(mean=mean, std=std)
    return found


def _samples(
    asked: Sequence[ReferencedQuery], answered: Mapping[str, Sequence[SampledResponse]]
) -> list[Sample]:
    return [
        Sample(
            row=each.query.row,
            query=each.query.text,
            references=each.references,
            outputs={name: outputs[place] for name, outputs in answered.items()},
        )
        for place, each in enumerate(asked)
    ]
