"""Measures how close any models' rewrites come to references: tables and a bar figure, models side by side.

    guardrail-train evaluate rewriter --dev FILE --model T5=FOLDER --model Phi-2=BASE,ADAPTER

Decoder-only and encoder-decoder models, with an adapter or without. Overlap alone says nothing about
detoxification, so the input as it is, and the shipped word list's deletions, stand alongside the models.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from guardrail.errors import ConfigError, MissingExtraError
from guardrail.manifest import Template, sha256_of
from guardrail.rewriters.adapter import Adapter, read_adapter
from guardrail_training.data import SourceColumns, read_rows
from guardrail_training.evaluation.systems import COPY, DELETE, Sentences, copied, deleted
from guardrail_training.evaluation.tables import interval, table
from guardrail_training.metrics.overlap import corpus_bleu, overlap
from guardrail_training.metrics.statistics import Mean, bootstrap_mean
from guardrail_training.provenance import model_folder, plain, weights_sha256
from guardrail_training.records import TrainingRowError
from guardrail_training.runlog import git_commit, package_versions, progress_bar
from guardrail_training.settings import DATA, MODEL, OUTPUT, setting

__all__ = ["FIGURE", "MEASURED", "TABLES", "ModelScores", "ModelsSettings", "run"]

MEASURED, TABLES, FIGURE, OUTPUTS = "overlap.json", "overlap.md", "overlap.png", "overlap.jsonl"
COLD = 1e-4  # the temperature at which the likeliest token has all the probability
MEASURES = {
    "bleu": "BLEU, sentences",
    "corpus_bleu": "BLEU, corpus",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "chrf": "chrF",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelsSettings:
    """Which models rewrite what."""

    dev: str = setting("", "File of sentences and references.", group=DATA)
    source: str = setting("toxic", "Its field with the text.", group=DATA)
    target: str = setting("neutral", "Its field with a reference, or a list of them.", group=DATA)
    model: tuple[str, ...] = setting(
        (), "NAME=BASE or NAME=BASE,ADAPTER: folders, or a base's known name; repeatable.", group=MODEL
    )
    template: str = setting(
        "{text}", "Prompt of models without an adapter, {text} for the text.", group=MODEL
    )
    pad_token: str = setting("", "What to pad with if a tokenizer does not say.", group=MODEL)
    tokens: int = setting(64, "Longest rewrite.", group=MODEL, min=1)
    limit: int = setting(0, "Only the first so many rows; 0: all.", group=DATA, min=0)
    batch_size: int = setting(16, "Sentences at a time.", group=OUTPUT, min=1)
    device: str = setting("auto", "Where models compute.", group=OUTPUT)
    dtype: str = setting("float32", "What they compute in: auto, float32 or bfloat16.", group=OUTPUT)
    seed: int = setting(13, "Of the intervals.", group=OUTPUT)
    out: str = setting("runs/overlap", "Folder that receives tables, figure and outputs.", group=OUTPUT)

    def __post_init__(self) -> None:
        if not self.dev:
            raise ConfigError("evaluate rewriter needs --dev: a file of sentences and references")
        if not self.model:
            raise ConfigError("evaluate rewriter needs a model: --model NAME=BASE or NAME=BASE,ADAPTER")
        names = [entry.partition("=")[0].strip() for entry in self.model]
        for entry, name in zip(self.model, names, strict=True):
            if not name or not entry.partition("=")[2].strip():
                raise ConfigError(f"model needs NAME=BASE or NAME=BASE,ADAPTER, got {entry!r}")
            if names.count(name) > 1 or name in (COPY, DELETE):
                raise ConfigError(f"model: another row is called {name!r}; choose another name")


@dataclass(frozen=True, slots=True)
class _OpenedModel:
    name: str
    base: Path
    adapter: Adapter | None


@dataclass(frozen=True, slots=True)
class ModelScores:
    """One row of the table; ``corpus_bleu`` has no interval."""

    system: str
    n: int
    bleu: Mean
    corpus_bleu: float
    rouge1: Mean
    rouge2: Mean
    rougeL: Mean  # noqa: N815  the measure's published name
    chrf: Mean


def run(settings: ModelsSettings) -> Path:
    """Measures; writes JSON, Markdown, a figure and all outputs, and returns the path of the JSON.

    Whatever can be wrong with models, adapters or rows is an error before the first rewrite.
    """
    models = [_model(entry) for entry in settings.model]
    rows = read_rows(settings.dev, columns=SourceColumns(source=settings.source, target=settings.target))
    sentences = Sentences.of(rows[: settings.limit] if settings.limit else rows)
    if not all(sentences.references):
        raise TrainingRowError(f"{settings.dev}: a row has no reference")
    from guardrail.detectors.lexicon import Lexicon

    outputs = {
        COPY: copied(sentences).outputs,
        DELETE: deleted(sentences, lexicon=Lexicon.shipped()).outputs,
    }
    outputs |= {model.name: _rewrites(model, sentences, settings=settings) for model in models}
    scores = [_scores(name, outputs[name], sentences, seed=settings.seed) for name in outputs]
    out = Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    content = {
        "rows": scores,
        "dev": {Path(settings.dev).name: sha256_of(settings.dev)},
        "models": {model.name: _identity(model) for model in models},
        "seed": settings.seed,
        "versions": package_versions(),
        "git": git_commit(),
    }
    (out / MEASURED).write_text(json.dumps(plain(content), indent=1) + "\n", encoding="utf-8")
    (out / TABLES).write_text(f"# Overlap with references\n\n{_table(scores)}", encoding="utf-8")
    with (out / OUTPUTS).open("w", encoding="utf-8") as file:
        for name, texts in outputs.items():
            for row, text in zip(sentences.rows, texts, strict=True):
                file.write(json.dumps({"system": name, "row": row, "output": text}) + "\n")
    _draw(scores, out / FIGURE)
    return out / MEASURED


def _model(entry: str) -> _OpenedModel:
    name, _, places = (part.strip() for part in entry.partition("="))
    base, _, adapter = (part.strip() for part in places.partition(","))
    folder = model_folder(base)
    found = read_adapter(adapter) if adapter else None
    if found is not None:
        found.manifest.check_base(weights_sha256(folder))
    return _OpenedModel(name, folder, found)


def _identity(model: _OpenedModel) -> dict[str, str]:
    files = dict(model.adapter.manifest.files) if model.adapter is not None else {}
    return {"base": weights_sha256(model.base), **files}


def _rewrites(model: _OpenedModel, sentences: Sentences, *, settings: ModelsSettings) -> tuple[str, ...]:
    """The likeliest rewrites, in the order of the sentences."""
    from guardrail_training import modeling
    from guardrail_training.evaluation.generation.responses import respond
    from guardrail_training.modeling.stacked import merge
    from guardrail_training.reinforcement.rollouts import PromptQuery

    device = modeling.resolve_device(settings.device)
    loaded = modeling.load_base(
        model.base, dtype=modeling.resolve_dtype(settings.dtype, device), device=device
    )
    template, pad_token = Template(settings.template), settings.pad_token
    if model.adapter is not None:
        merge(loaded, model.adapter)
        template = model.adapter.template
        pad_token = pad_token or str(model.adapter.manifest.settings.get("pad_token", ""))
    tokenizer = modeling.load_ending_tokenizer(model.base, pad_token=pad_token)
    queries = [
        PromptQuery(text, template.literal.replace("{text}", text), tuple(template.encode(tokenizer, text)))
        for text in sentences.sources
    ]
    with progress_bar("rewrites") as progress:
        task = progress.add_task(model.name, total=len(queries), rewrites=float("nan"))
        responses = respond(
            loaded,
            queries,
            tokenizer=tokenizer,
            tokens=settings.tokens,
            temperature=COLD,
            batch_size=settings.batch_size,
            seed=0,
            advance=lambda count: progress.advance(task, count),
        )
    return tuple(response.text for response in responses)


def _scores(name: str, outputs: Sequence[str], sentences: Sentences, *, seed: int) -> ModelScores:
    found = overlap(outputs, sentences.references)
    means = {
        "bleu": found.bleu,
        "rouge1": found.rouge1,
        "rouge2": found.rouge2,
        "rougeL": found.rougeL,
        "chrf": found.chrf_first,
    }
    return ModelScores(
        system=name,
        n=len(outputs),
        corpus_bleu=corpus_bleu(outputs, sentences.references),
        **{measure: bootstrap_mean(values, seed=seed) for measure, values in means.items()},
    )


def _table(scores: Sequence[ModelScores]) -> str:
    rows = [
        [each.system, each.n, *(_shown(plain(asdict(each))[measure]) for measure in MEASURES)]
        for each in scores
    ]
    return table(["system", "n", *MEASURES.values()], rows)


def _shown(value: Any) -> str:
    return interval(value) if isinstance(value, dict) else f"{value:.3f}"


def _draw(scores: Sequence[ModelScores], path: Path) -> None:
    """A group of bars for each measure, a bar for each system, intervals as whiskers."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError(feature="figures", extra="train") from error
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(scores)
    for place, each in enumerate(scores):
        values = [getattr(each, measure) for measure in MEASURES]
        heights = np.array([value.value if isinstance(value, Mean) else value for value in values])
        lows = np.array([value.low if isinstance(value, Mean) else value for value in values])
        highs = np.array([value.high if isinstance(value, Mean) else value for value in values])
        whiskers = np.clip([heights - lows, highs - heights], 0, None)
        places = np.arange(len(MEASURES)) + (place - (len(scores) - 1) / 2) * width
        axes.bar(places, heights, width, yerr=whiskers, label=each.system, error_kw={"linewidth": 0.8})
    axes.set_xticks(np.arange(len(MEASURES)), list(MEASURES.values()))
    axes.set_ylim(0, 1)
    axes.set_ylabel("overlap with the reference")
    axes.legend(title=f"n = {scores[0].n}")
    figure.savefig(path, dpi=120)
