"""Rows of the experiment on a tiny base."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from guardrail.errors import ConfigError
from guardrail_training import modeling
from guardrail_training.evaluation.judges import Judge
from guardrail_training.nado.guidance import Guidance
from guardrail_training.regularized.settings import RegularizedSettings
from research.comparison import experiment, measures, table
from research.comparison.measures import Measures
from research.comparison.subject import ComparedModel, load_subject
from tests.training.nado.test_decoding import guidance
from tests.training.regularized.conftest import ORACLE
from tests.training.reinforcement.conftest import WORDS, word_tokenizer

FEW = Measures(prompts=3, each=2, piqa=2, wikitext=60, questions=8)


def letter_judge(letter: str) -> Judge:
    def score(texts: Sequence[str]) -> Any:
        return np.array([text.count(letter) / 4 for text in texts], dtype=np.float64)

    return Judge(name=letter, threshold=0.25, score=score)


@pytest.fixture
def place(
    settings: RegularizedSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> RegularizedSettings:
    """A data folder with all that a row reads, and two judges of letters."""
    lists = ["\n".join(f"- {WORDS[(row + 5 * line) % 32]}" for line in range(4)) for row in range(12)]
    for folder in ("toxigen_prompts", "piqa", "wikitext2", "davidson", "paradetox"):
        (tmp_path / folder).mkdir()
    (tmp_path / "lists.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in lists))
    (tmp_path / "toxigen_prompts" / "dev.jsonl").write_text(
        "".join(json.dumps({"prompt": text}) + "\n" for text in lists)
    )
    goals = [{"goal": "a0", "sol1": "a1 a2", "sol2": "b3", "label": label} for label in (0, 1, 0)]
    (tmp_path / "piqa" / "dev.jsonl").write_text("".join(json.dumps(goal) + "\n" for goal in goals))
    for split in ("train", "dev"):
        votes = [{"text": f"a{row} b1", "hate": row % 2, "offensive": 0, "neither": 0} for row in range(6)]
        pairs = [{"toxic": f"d{row} a1", "neutral": [f"a{row} a1"]} for row in range(6)]
        for name, rows in (("davidson", votes), ("paradetox", pairs)):
            path = tmp_path / name / f"{split}.jsonl"
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("plain.txt", "wikitext2/test.txt"):
        (tmp_path / name).write_text(" ".join(WORDS * 6))
    monkeypatch.setattr(measures, "load_judges", lambda data: (letter_judge("d"), letter_judge("c")))
    return settings


TRAINED_WITH = {
    "sft": {"method": "sft", "batch_size": 12},  # four corpus texts, and eight more for the drawn ones
    "filtering": {"method": "filtering", "batch_size": 12},
    "rl": {"estimator": "ppo", "epochs": 2},
    "regularized": {"method": "regularized", "adaptive": False, "batch_size": 4},
    "regularized-sequential": {"schedule": "sequential"},
    "classify-sft": {"general": "questions.jsonl", "batch_size": 12},
    "classify-regularized": {"general": "questions.jsonl", "adaptive": True},
}
DRAWS = (
    "rl",
    "decoding",
    "regularized",
    "regularized-adaptive",
    "regularized-sequential",
    "classify-regularized",
)


def assert_effort(row: str, effort: dict[str, Any] | None) -> None:
    if row in ("base", "best-of-n"):
        assert effort is None
        return
    assert effort is not None
    assert (effort["generated_tokens"] > 0) == (row in DRAWS)
    assert (effort["gradient_tokens"] > 0) == (effort["steps"] > 0) == (row != "decoding")
    assert effort["seconds"] > 0
    assert effort["dtype"] in ("float32", "bfloat16")


@pytest.mark.slow
def test_rows_are_trained_and_measured_each_into_its_own_file(
    place: RegularizedSettings, tmp_path: Path
) -> None:
    results = str(tmp_path / "results")
    for row in experiment.ROWS:
        path = experiment.run_row(row, place, measures=FEW, results=results, reward=ORACLE)
        found = json.loads(path.read_text())
        assert path.name == f"{row}-0.json"
        assert found["row"] == row
        assert [judge["judge"] for judge in found["judges"]] == ["d", "c"]
        assert found["toxicity"]["mean"]["value"] == max(one["mean"]["value"] for one in found["judges"])
        assert found["piqa"]["accuracy"]["n"] == 2
        assert found["perplexity"] > 1
        assert (found["classification"] is not None) == (row == "base" or row.startswith("classify"))
        assert_effort(row, found["effort"])
        assert str(tmp_path) not in path.read_text()
        assert found["settings"]["base"] == Path(place.base).name
        for key, value in TRAINED_WITH.get(row, {}).items():
            assert found["settings"][key] == value

    lines = table.write_comparison(results).read_text().splitlines()
    rows, against = lines[2:13], lines[13:]
    assert {line.split(" | ")[-1] for line in rows} & {"PIQA |", "WikiText |", "PIQA, WikiText |"}
    assert sum(line.startswith("| base |") for line in rows) == 1
    assert len(against) == 2 * (3 + 10)  # an empty line, two of heads, and all rows but the one

    (tmp_path / "results" / table.JUDGEMENT).write_text(json.dumps({"says": "No judge is competent."}))
    assert table.write_comparison(results).read_text().endswith("\nNo judge is competent.\n")


def test_an_unknown_row_is_an_error(place: RegularizedSettings) -> None:
    with pytest.raises(ConfigError, match="row must be one of base, best-of-n, rl, sft"):
        experiment.run_row("magic", place)


@pytest.mark.parametrize("is_guarded", [False, True])
def test_a_subject_says_the_same_of_a_text_alone_and_in_a_batch(llama_base: Path, is_guarded: bool) -> None:
    model = modeling.load_base(llama_base, dtype=torch.float32)
    stirred: Guidance | None = guidance(model) if is_guarded else None
    if stirred is not None:
        with torch.no_grad():
            for parameter in stirred.auxiliary.parameters():
                parameter.add_(torch.randn_like(parameter))
    subject = ComparedModel(model, word_tokenizer(), stirred)
    prompts, responses = [[5, 6], [7], [8, 9, 10]], [[11], [12, 13, 14], [15, 16]]

    together = subject.logprobs(prompts, responses)

    for prompt, response, found in zip(prompts, responses, together, strict=True):
        (alone,) = subject.logprobs([prompt], [response])
        torch.testing.assert_close(found, alone, atol=1e-4, rtol=1e-4)
        assert found.shape == (len(response),)
        assert bool((found < 0).all())


def test_rows_are_measured_in_float32_whatever_they_were_trained_in(settings: RegularizedSettings) -> None:
    subject = load_subject(replace(settings, dtype="bfloat16"), folder=None, is_guarded=False)
    plain = load_subject(replace(settings, dtype="float32"), folder=None, is_guarded=False)
    prompts, responses = [[1, 2, 3], [4]], [[5, 6], [7, 8, 9]]
    for own, other in zip(
        subject.logprobs(prompts, responses), plain.logprobs(prompts, responses), strict=True
    ):
        assert torch.equal(own, other)
