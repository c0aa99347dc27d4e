"""The experiment: every way to less toxic continuations at the same budget, one row at a time.

    python -m research row ROW --recipe toxigen-regularized --data FOLDER
        --out runs/regularized

trains the row under ``<out>/<row>-<seed>`` unless that is done, measures it and writes
``training/results/regularized/<row>-<seed>.json``. A row without drawn responses learns from as many corpus
texts in their place. Rows:

base                     the base itself
best-of-n                of four continuations the one that the oracle likes best
sft, filtering           the language-model loss on the mixture; on what the oracle lets through of it
rl                       PPO on the oracle (the recipe ppo-toxigen)
decoding                 the base decoded from the posterior of an auxiliary model
regularized              the regularizer on both parts of the mixture
regularized-adaptive     the regularizer on the guided part
regularized-sequential   the same with the sequential schedule
classify-sft, classify-regularized     the general part asks whether messages are toxic: does a model that
                         learns to tell write less of it?
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from guardrail.errors import ConfigError, FailureError
from guardrail.manifest import sha256_of
from guardrail_training import modeling
from guardrail_training.provenance import model_folder, plain
from guardrail_training.recipe import read_recipe
from guardrail_training.records import required_folder
from guardrail_training.regularized.corpus import load_mixture
from guardrail_training.regularized.settings import RegularizedSettings
from guardrail_training.rewards.algebra import Reward
from guardrail_training.runlog import git_commit, package_versions
from research.comparison.classification import write_questions
from research.comparison.measures import DEV_PROMPTS, QUESTIONED, Measures, measure

__all__ = ["ROWS", "RowStoppedError", "run_row"]

CHANGES: Mapping[str, Mapping[str, Any]] = {
    "sft": {"method": "sft"},
    "filtering": {"method": "filtering"},
    "decoding": {"method": "decoding", "memory": 1.0},  # all its samples are of one model
    "regularized": {"method": "regularized", "adaptive": False},
    "regularized-adaptive": {"method": "regularized", "adaptive": True},
    "regularized-sequential": {"method": "regularized", "adaptive": True, "schedule": "sequential"},
    "classify-sft": {"method": "sft"},
    "classify-regularized": {"method": "regularized", "adaptive": True},
}
WITHOUT_DRAWN = ("sft", "filtering", "classify-sft")
QUESTIONS = 4000  # more than a run of the recipe asks
ROWS = ("base", "best-of-n", "rl", *CHANGES)
PPO_RECIPE = "ppo-toxigen"
RESULTS = "training/results/regularized"


class RowStoppedError(FailureError):
    """A signal stopped the training of a row; the same command continues."""


@dataclass(frozen=True, slots=True)
class Effort:
    """What a row took: tokens drawn, tokens that carried a gradient (again in each epoch), optimizer steps.

    ``seconds`` are those of training, with all that was drawn and fitted for it; they compare between rows
    of one ``dtype``, on one machine.
    """

    generated_tokens: int
    gradient_tokens: int
    steps: int
    seconds: float
    dtype: str


@dataclass(frozen=True, slots=True)
class Trained:
    """The folder of a row's model, with what settings it was trained and what that took.

    The base has no folder of its own and took nothing; ``settings`` are then those of the comparison.
    """

    folder: Path | None
    settings: Any
    effort: Effort | None = None


def run_row(
    row: str,
    settings: RegularizedSettings,
    *,
    measures: Measures | None = None,
    results: str = RESULTS,
    reward: Reward | None = None,
) -> Path:
    """Trains a row if that is not done, measures it, and returns the path of its JSON."""
    if row not in ROWS:
        raise ConfigError(f"row must be one of {', '.join(ROWS)}, got {row!r}")
    folder = Path(settings.out) / f"{row}-{settings.seed}"
    commit = git_commit()  # of the code that trains, should it change meanwhile
    trained = _trained(row, settings, folder=folder, reward=reward)
    measured = measures or Measures()
    started = time.perf_counter()
    found = measure(row, settings, trained=trained.folder, measures=measured, reward=reward)
    content = {
        "row": row,
        "seed": settings.seed,
        **found,
        "effort": trained.effort,
        "seconds_of_evaluation": round(time.perf_counter() - started, 1),
        "measures": measured,
        "settings": _without_places(trained.settings),
        "versions": package_versions(),
        "git": commit,
        "data": _sources(row, settings),
        "model": _weights(trained.folder),
    }
    path = Path(results) / f"{row}-{settings.seed}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    fields = [
        f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in plain(content).items()
    ]
    path.write_text("{" + ",\n ".join(fields) + "}\n", encoding="utf-8")
    return path


def _trained(row: str, settings: RegularizedSettings, *, folder: Path, reward: Reward | None) -> Trained:
    """The row's model, trained unless it has been before."""
    if row in ("base", "best-of-n"):
        return Trained(None, settings)
    if row == "rl":
        return _reinforced(settings, folder=folder, reward=reward)
    from guardrail_training.regularized import trainer

    chosen = replace(settings, out=str(folder), **CHANGES[row])
    if row in WITHOUT_DRAWN:
        chosen = replace(chosen, batch_size=chosen.batch_size + chosen.samples_batch)
    if row.startswith("classify"):
        chosen = _with_questions(chosen, folder=folder / "corpus")
    report = trainer.run(chosen, reward=reward)
    if not report.finished:
        raise RowStoppedError(f"row {row} was stopped by {report.stopped_by}; the same command continues")
    logged = _logged(folder)
    effort = Effort(
        generated_tokens=round(_total(logged, "samples/tokens")),
        gradient_tokens=round(chosen.steps * _total(logged, "tokens/corpus", "tokens/drawn")),
        steps=chosen.all_steps if chosen.tunes else 0,
        seconds=round(_total(logged, "time/begin") + chosen.steps * _total(logged, "time/step"), 1),
        dtype=_dtype(settings),
    )
    return Trained(folder / f"step-{chosen.all_steps}", chosen, effort)


def _with_questions(settings: RegularizedSettings, *, folder: Path) -> RegularizedSettings:
    """The settings with questions as the general part, in a folder of their own."""
    data = required_folder(settings.data)
    write_questions(data, folder / "questions.jsonl", count=QUESTIONS, seed=settings.seed)
    (folder / "guided.jsonl").write_bytes((data / settings.guided).read_bytes())
    return replace(settings, data=str(folder), guided="guided.jsonl", general="questions.jsonl")


def _reinforced(settings: RegularizedSettings, *, folder: Path, reward: Reward | None) -> Trained:
    """The PPO row, on the same prompts."""
    from guardrail_training.reinforcement import ppo

    data = required_folder(settings.data)
    tokenizer = modeling.load_ending_tokenizer(model_folder(settings.base), pad_token=settings.pad_token)
    queries = load_mixture(data, settings, tokenizer=tokenizer).queries
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"prompt": query.prompt}) + "\n" for query in queries]
    (folder / "prompts.jsonl").write_text("".join(lines), encoding="utf-8")
    overrides = {
        "base": settings.base,
        "data": str(folder),
        "out": str(folder),
        "seed": settings.seed,
        "threads": settings.threads,
        "device": settings.device,
        "pad_token": settings.pad_token,
        "targets": settings.targets,
        "dtype": settings.dtype,
        "response_tokens": settings.response_tokens,
    }
    chosen = read_recipe(PPO_RECIPE, settings=ppo.PpoSettings, overrides=overrides)
    report = ppo.run(chosen, reward=reward)
    if not report.finished:
        raise RowStoppedError(f"row rl was stopped by {report.stopped_by}; the same command continues")
    logged = _logged(folder)
    drawn_tokens = chosen.rows * _total(logged, "tokens/responses_len_mean")
    effort = Effort(
        generated_tokens=round(drawn_tokens),
        gradient_tokens=round(chosen.epochs * drawn_tokens),
        steps=round(_total(logged, "ppo/updates_taken")),
        seconds=round(_total(logged, "time/rollout", "time/update"), 1),
        dtype=_dtype(settings),
    )
    return Trained(folder / f"step-{chosen.steps}", chosen, effort)


def _dtype(settings: RegularizedSettings) -> str:
    """What "auto" is on this processor."""
    return str(modeling.resolve_dtype(settings.dtype)).removeprefix("torch.")


def _logged(folder: Path) -> list[dict[str, float]]:
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _total(logged: Sequence[Mapping[str, float]], *names: str) -> float:
    """The sum of metrics over all logged steps."""
    return sum(row.get(name, 0.0) for row in logged for name in names)


def _without_places(settings: Any) -> dict[str, Any]:
    values = {key: value for key, value in asdict(settings).items() if key not in ("out", "data", "adapter")}
    return values | {"base": Path(settings.base).name}


def _sources(row: str, settings: RegularizedSettings) -> dict[str, str]:
    data = required_folder(settings.data)
    names = [settings.guided, settings.general, DEV_PROMPTS, "piqa/dev.jsonl", "wikitext2/test.txt"]
    names += settings.known_texts
    if row in QUESTIONED:
        names += [
            f"{source}/{split}.jsonl" for source in ("davidson", "paradetox") for split in ("train", "dev")
        ]
    return {name: sha256_of(data / name) for name in names if name}


def _weights(trained: Path | None) -> dict[str, str]:
    files = sorted(trained.glob("*.safetensors")) if trained is not None else []
    return {path.name: sha256_of(path) for path in files}
