"""Neither judge nor the encoder behind SIM is in a reward or in a gate."""

from __future__ import annotations

import ast
import functools
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from guardrail.errors import ConfigError
from guardrail.models.sources import SOURCES
from guardrail_training.evaluation import similarity
from guardrail_training.evaluation.judges import Judge
from guardrail_training.rewards import independence
from guardrail_training.rewards.algebra import Answer, named
from guardrail_training.rewards.independence import RESERVED, check_independent, identities
from guardrail_training.rewards.surface import copied
from research.evaluation import judges

ROOT = Path(__file__).parents[3]
PACKAGES = {
    "guardrail": ROOT / "guardrail",
    "guardrail_training": ROOT / "training" / "guardrail_training",
    "research": ROOT / "training" / "research",
}
INSTRUMENTS = {judges.__name__, similarity.__name__, "profanity_check", "sklearn"}


def module_file(name: str) -> Path | None:
    """The file of a module of this project."""
    package, _, rest = name.partition(".")
    if package not in PACKAGES:
        return None
    path = PACKAGES[package].joinpath(*rest.split(".")) if rest else PACKAGES[package]
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return file
    return None


def imports_of(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def reachable(first: set[str]) -> set[str]:
    """Every module that these import, at once or inside a function, directly or not."""
    seen: set[str] = set()
    waiting = set(first)
    while waiting:
        name = waiting.pop()
        seen.add(name)
        if (file := module_file(name)) is not None:
            waiting |= set(imports_of(file)) - seen
    return seen


def modules_below(package: str) -> set[str]:
    root, _, rest = package.partition(".")
    folder = PACKAGES[root] / rest.replace(".", "/")
    return {
        ".".join([package, *path.relative_to(folder).with_suffix("").parts]) for path in folder.rglob("*.py")
    }


@pytest.mark.parametrize(
    "package",
    [
        "guardrail",
        "guardrail_training.rewards",
        "guardrail_training.reinforcement",
        "guardrail_training.preference",
    ],
)
def test_no_gate_and_no_reward_imports_an_instrument_of_the_reports(package: str) -> None:
    found = reachable(modules_below(package))

    assert len(found) > 20
    assert not {name for name in found if any(name == i or name.startswith(f"{i}.") for i in INSTRUMENTS)}


def test_the_search_for_imports_would_find_one() -> None:
    assert reachable({"research.evaluation.evaluate"}) & INSTRUMENTS


def judge(name: str) -> Judge:
    return Judge(name=name, threshold=0.5, score=judges.train_ngram_judge)  # type: ignore[arg-type]  # never called


def behind_a_lambda(answers: Sequence[Answer]) -> list[float]:
    return [0.0 for _ in answers]


def test_a_judge_is_refused_however_it_is_wrapped() -> None:
    one = judge("own name")
    for score in (
        one.scores,
        one.score,
        functools.partial(one.scores),
        lambda answers: one.scores([answer.response for answer in answers]),
        functools.partial(lambda chosen, answers: chosen(answers), one.scores),
    ):
        with pytest.raises(ConfigError, match="judges' in its term 'mine'"):
            check_independent(named("mine", score) - 0.5 * named("copy", copied))  # type: ignore[arg-type]


def test_the_sim_encoder_is_refused_as_an_object() -> None:
    encoder = object.__new__(similarity.ParaphraseL3)
    with pytest.raises(ConfigError, match="similarity' in its term 'meaning'"):
        check_independent(named("meaning", lambda answers: encoder.embed([a.response for a in answers])))


@pytest.mark.parametrize(
    "model", ["alt-profanity-check", "char-ngram", "sentence-transformers/paraphrase-MiniLM-L3-v2"]
)
def test_an_instrument_is_refused_by_its_name(model: str) -> None:
    with pytest.raises(ConfigError, match="with which results are measured"):
        check_independent(named("mine", behind_a_lambda, models=identities(model)))


def test_the_sim_encoder_is_refused_by_its_weights_under_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"weights")
    (digest,) = identities(str(tmp_path))[1:]
    monkeypatch.setattr(independence, "RESERVED_SHA256", frozenset({digest}))
    moved = shutil.copytree(tmp_path, tmp_path / "innocent")

    with pytest.raises(ConfigError, match=f"reads '{digest}'"):
        check_independent(named("mine", behind_a_lambda, models=identities(str(moved))))


def test_the_reserved_weights_are_those_that_the_reports_use() -> None:
    source = SOURCES["paraphrase-minilm-l3"]

    assert source.identity in independence.RESERVED_SHA256
    assert {file.sha256 for file in source.files} <= independence.RESERVED_SHA256
    assert all(judge.lower() in RESERVED for judge in judges.THRESHOLDS)


def test_our_own_terms_pass() -> None:
    check_independent(named("copy", copied, models=["detector", "0" * 64]))
