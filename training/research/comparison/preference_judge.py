"""Finds out whether a model can judge continuations; if it can, it compares rows of the experiment.

    python -m research evaluate preference-judge --data DIR [--set judge=MODEL] [--set endpoint=URL]
        [--set rows='["regularized-adaptive-0", "rl-0"]']

The judge is first asked about 200 true and shuffled continuations of WikiText, in both orders. Where it
prefers the true one in both for less than 75 % of them there is no win rate. ``<out>/preference-judge.json``
has the sentence that says which it is, with counts, interval, seed, versions and hashes.
"""

from __future__ import annotations

import json
import random
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from guardrail.config.settings import Url
from guardrail.errors import ConfigError
from guardrail.manifest import sha256_of
from guardrail_training.evaluation.best_checkpoint import step_folders
from guardrail_training.metrics.statistics import Mean, Rate
from guardrail_training.provenance import model_folder, plain
from guardrail_training.recipe import check_values, read_recipe
from guardrail_training.records import TrainingRowError, required_folder
from guardrail_training.regularized.settings import RegularizedSettings
from guardrail_training.runlog import git_commit, package_versions
from research.comparison.experiment import RESULTS, ROWS
from research.comparison.judge_models import connect, endpoint_judge, likelihood_judge
from research.comparison.measures import DEV_PROMPTS, EVALUATION_SEED, dev_queries
from research.comparison.pairwise import (
    MIN_COMPETENCE,
    Competence,
    ContinuationDuel,
    ContinuationWinRate,
    Judge,
    competence,
    win_rate,
)
from research.comparison.subject import load_subject
from research.comparison.table import JUDGEMENT

__all__ = ["Judgement", "PreferenceJudgeSettings", "run", "true_continuations"]

BASE = "base"


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceJudgeSettings:
    """Which model is to judge, and what.

    judge                a causal language model, folder or known name; with ``endpoint`` its name there
    endpoint             address of an OpenAI-compatible API, as ``http://127.0.0.1:8000/v1``; its key is in
                         OPENAI_API_KEY. Texts are sent there
    data                 folder of the sources, empty: GUARDRAIL_DATA
    out                  folder that receives preference-judge.json
    text                 plain text below ``data`` with a paragraph on each line, which true continuations are
                         from
    pairs                so many, each ``prompt_words`` words and the ``words`` that follow them
    rows                 none, or two of the experiment's rows as ROW-SEED or base: the win rate is the first
                         one's
    runs, recipe         folder in which the rows were trained, and the recipe that they were trained by
    prompts              dev prompts that both rows continue
    seed                 of pairs, their shuffling and the interval
    threads              of torch, 0: torch's own choice
    """

    judge: str = "smollm2-135m-instruct"
    endpoint: Url | None = None
    data: str = ""
    out: str = RESULTS
    text: str = "wikitext2/valid.txt"
    pairs: int = 200
    prompt_words: int = 32
    words: int = 24
    rows: tuple[str, ...] = ()
    runs: str = "runs/regularized"
    recipe: str = "toxigen-regularized"
    prompts: int = 200
    seed: int = 13
    threads: int = 0

    def __post_init__(self) -> None:
        check_values(self, at_least_one=("pairs", "prompt_words", "prompts"), not_negative=("threads",))
        if self.words < 2:
            raise ConfigError(f"words must be at least 2, fewer cannot be shuffled; got {self.words}")
        if len(self.rows) not in (0, 2) or len(set(self.rows)) < len(self.rows):
            raise ConfigError("rows must be two different ones, or none")
        for row in self.rows:
            name, _, seed = row.rpartition("-")
            # best-of-n has no model of its own: its texts are those of the base.
            if row != BASE and (name not in ROWS or name in (BASE, "best-of-n") or not seed.isdecimal()):
                raise ConfigError(f"rows: {row!r} is none of the experiment's trained rows, as in 'rl-0'")


@dataclass(frozen=True, slots=True)
class JudgedComparison:
    """How two rows did before a judge; ``rate`` is the first one's win rate."""

    rows: tuple[str, ...]
    duels: ContinuationWinRate
    rate: Mean


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found: where it is written, and the sentence that says it."""

    path: Path
    says: str


def run(settings: PreferenceJudgeSettings, *, judge: Judge | None = None) -> Judgement:
    """Qualifies the judge, compares the rows if there are any and it qualifies, writes the file.

    ``judge`` takes the place of the settings' model. Raises UsageError, ConfigError or ModelMissingError for
    what cannot be read, PluginError if an endpoint fails.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    data = required_folder(settings.data)
    pairs = true_continuations(data / settings.text, settings)
    folders = {row: _folder(row, settings) for row in settings.rows}
    judge = judge or _judge(settings)
    started = time.perf_counter()
    competent = competence(pairs, judge, seed=settings.seed)
    compared = None
    if settings.rows and competent.qualifies:
        compared = _compared(settings, judge=judge, folders=folders)
    says = sentence(settings.judge, competent, compared)
    content = {
        "says": says,
        "qualifies": competent.qualifies,
        "least": MIN_COMPETENCE,
        "competence": competent.rate,
        "duels": competent.duels,
        "win_rate": compared,
        "seconds": round(time.perf_counter() - started, 1),
        "settings": _without_places(settings),
        "versions": package_versions(),
        "git": git_commit(),
        "data": _sources(settings, data, compared=compared),
        "models": _models(settings, folders if compared else {}),
    }
    path = Path(settings.out) / JUDGEMENT
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plain(content), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return Judgement(path=path, says=says)


def true_continuations(path: Path, settings: PreferenceJudgeSettings) -> list[tuple[str, str]]:
    """Beginnings of paragraphs and what follows them, drawn by the seed, in the text's order.

    TrainingRowError if the text is missing or has too few paragraphs of that length.
    """
    if not path.is_file():
        raise TrainingRowError(f"{path} not found: give its folder with --data or GUARDRAIL_DATA")
    least = settings.prompt_words + settings.words
    found = [
        words for line in path.read_text(encoding="utf-8").split("\n") if len(words := line.split()) >= least
    ]
    if len(found) < settings.pairs:
        raise TrainingRowError(
            f"{path} has {len(found)} paragraphs of {least} words or more, fewer than the {settings.pairs} "
            "pairs that are wanted"
        )
    places = random.Random(f"continuations-{settings.seed}").sample(range(len(found)), settings.pairs)
    cut = settings.prompt_words
    return [
        (" ".join(found[place][:cut]), " " + " ".join(found[place][cut:least])) for place in sorted(places)
    ]


def sentence(judge: str, competent: Competence, compared: JudgedComparison | None) -> str:
    """What was found, for a reader."""
    duels = competent.duels
    told = (
        f"{Path(judge).name} prefers the true over the shuffled continuation, in both orders, in "
        f"{_share(competent.rate)} of {duels.n} pairs, and chooses by place alone in "
        f"{(duels.first + duels.second) / duels.n:.0%}"
    )
    if not competent.qualifies:
        return (
            f"There is no competent judge here, hence no win rate: {told}; {MIN_COMPETENCE:.0%} are needed."
        )
    if compared is None:
        return f"It qualifies as a judge: {told}."
    first, second = compared.rows
    duelled = f"of {compared.duels.n} prompts against {second}"
    return f"{first} wins {_share(compared.rate)} {duelled}, ties as halves; the judge: {told}."


def _share(figure: Rate | Mean) -> str:
    return f"{figure.value:.1%} [{figure.low:.1%}, {figure.high:.1%}]"


def _judge(settings: PreferenceJudgeSettings) -> Judge:
    if settings.endpoint is not None:
        return endpoint_judge(connect(settings.endpoint), model=settings.judge)
    return likelihood_judge(load_subject(_base_alone(settings.judge), folder=None, is_guarded=False))


def _base_alone(name: str) -> RegularizedSettings:
    return RegularizedSettings(base=name)


def _folder(row: str, settings: PreferenceJudgeSettings) -> Path | None:
    return None if row == BASE else step_folders(Path(settings.runs) / row)[-1]


def _compared(
    settings: PreferenceJudgeSettings, *, judge: Judge, folders: dict[str, Path | None]
) -> JudgedComparison:
    """Both rows continue the same dev prompts, with the same noise."""
    trained = _recipe(settings)
    texts, prompts = [], list[str]()
    for row, folder in folders.items():
        subject = load_subject(trained, folder=folder, is_guarded=row.startswith("decoding-"))
        queries = dev_queries(
            trained, required_folder(settings.data), tokenizer=subject.tokenizer, count=settings.prompts
        )
        tokens = trained.response_tokens
        drawn = subject.continuations(queries, each=1, tokens=tokens, seed=EVALUATION_SEED)
        texts.append([" " + text for (text,) in drawn])
        prompts = [query.prompt for query in queries]
    duels = [
        ContinuationDuel(prompt=prompt, own=own, other=other)
        for prompt, own, other in zip(prompts, *texts, strict=True)
    ]
    found = win_rate(duels, judge)
    return JudgedComparison(rows=settings.rows, duels=found, rate=found.rate(seed=settings.seed))


def _recipe(settings: PreferenceJudgeSettings) -> RegularizedSettings:
    found: RegularizedSettings = read_recipe(settings.recipe, settings=RegularizedSettings, overrides={})
    return replace(found, data=settings.data)


def _without_places(settings: PreferenceJudgeSettings) -> dict[str, Any]:
    values = {key: value for key, value in asdict(settings).items() if key not in ("data", "out", "runs")}
    told = {"judge": Path(settings.judge).name, "recipe": Path(settings.recipe).name}
    # An address may be a private one, and may hold a password.
    return values | told | {"endpoint": settings.endpoint is not None}


def _sources(
    settings: PreferenceJudgeSettings, data: Path, *, compared: JudgedComparison | None
) -> dict[str, str]:
    names = [settings.text, DEV_PROMPTS] if compared else [settings.text]
    return {name: sha256_of(data / name) for name in names}


def _models(settings: PreferenceJudgeSettings, folders: dict[str, Path | None]) -> dict[str, dict[str, str]]:
    """The weights of the judge, unknown behind an endpoint, and of the rows."""
    found = {row: folder for row, folder in folders.items() if folder is not None}
    if settings.endpoint is None:
        found["judge"] = model_folder(settings.judge)
    return {
        name: {path.name: sha256_of(path) for path in sorted(folder.glob("*.safetensors"))}
        for name, folder in found.items()
    }
