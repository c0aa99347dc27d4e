"""The command that qualifies a judge, and lets it compare rows where it qualifies."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse
from typer.testing import CliRunner, Result

from guardrail.config.settings import Url
from guardrail.errors import ConfigError, ModelMissingError, PluginError, UsageError
from guardrail_training.records import TrainingRowError
from guardrail_training.regularized import trainer
from research.cli import app
from research.comparison import preference_judge
from research.comparison.judge_models import connect, endpoint_judge
from research.comparison.pairwise import Judge
from research.comparison.preference_judge import PreferenceJudgeSettings
from tests.integrations.server.running import Asked, Upstream, completion, serving
from tests.training.regularized.conftest import ORACLE, small_settings
from tests.training.reinforcement.conftest import WORDS

MakeSettings = Callable[..., PreferenceJudgeSettings]
RECIPE_KEYS = ("base", "general", "field", "guided", "response_tokens", "window", "context")


@pytest.fixture
def asked(tmp_path: Path, llama_base: Path) -> MakeSettings:
    """Settings for a text of ten paragraphs, each with its words in the order of the vocabulary."""
    lines = ["", " = Heading = "]
    lines += [" " + " ".join(WORDS[row : row + 12]) + " " for row in range(10)]
    (tmp_path / "plain.txt").write_text("\n".join(lines))

    def make(**changes: Any) -> PreferenceJudgeSettings:
        chosen: dict[str, Any] = {
            "judge": str(llama_base),
            "data": str(tmp_path),
            "out": str(tmp_path / "results"),
            "text": "plain.txt",
            "pairs": 8,
            "prompt_words": 4,
            "words": 6,
            "threads": 1,
        }
        return PreferenceJudgeSettings(**(chosen | changes))

    return make


def options_of(settings: PreferenceJudgeSettings, **changes: Any) -> list[str]:
    found = ["--data", settings.data, "--out", settings.out]
    for key in ("judge", "text", "pairs", "prompt_words", "words", "threads"):
        found += ["--set", f"{key}={changes.get(key, getattr(settings, key))}"]
    return found


def continuations_of(question: str) -> list[str]:
    return re.split(r"Continuation [AB]:|\n\nWhich", question)[1:3]


def is_in_order(text: str) -> bool:
    places = [WORDS.index(word) for word in text.split() if word in WORDS]
    return places == sorted(places)


def careful(questions: Sequence[str]) -> list[str]:
    """Prefers what is in order; with both in order, or none, the one with fewer words of the letter d."""
    answers = []
    for question in questions:
        first, second = continuations_of(question)
        keys = [(not is_in_order(text), text.count("d")) for text in (first, second)]
        answers.append("A" if keys[0] < keys[1] else "B" if keys[1] < keys[0] else "?")
    return answers


def careless(questions: Sequence[str]) -> list[str]:
    return ["A"] * len(questions)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """A real server that answers with the careful judge's letter."""
    server = Upstream()
    server.reply = lambda asked: completion(careful([asked.body["messages"][0]["content"]]))
    with serving(server.app()) as url:
        server.url = url
        yield server


def evaluate(*options: str) -> Result:
    return CliRunner().invoke(app, ["evaluate", "preference-judge", *options])


def test_pairs_are_paragraphs_cut_in_two_and_the_same_for_the_same_seed(
    asked: MakeSettings, tmp_path: Path
) -> None:
    path = tmp_path / "plain.txt"

    pairs = preference_judge.true_continuations(path, asked())

    assert len(set(pairs)) == 8
    for prompt, text in pairs:
        assert len(prompt.split()) == 4
        assert len(text.split()) == 6
        assert text.startswith(" ")
        assert is_in_order(prompt + text)
    assert pairs == preference_judge.true_continuations(path, asked())
    assert pairs != preference_judge.true_continuations(path, asked(seed=14))


def test_where_no_judge_qualifies_the_file_says_so_with_the_figure(asked: MakeSettings) -> None:
    found = preference_judge.run(asked(), judge=careless)

    content = json.loads(found.path.read_text())
    assert found.says == content["says"]
    assert found.says.startswith("There is no competent judge here, hence no win rate: ")
    assert "in 0.0% [0.0%, 32.4%] of 8 pairs, and chooses by place alone in 100%" in found.says
    assert content["qualifies"] is False
    assert content["win_rate"] is None
    assert content["duels"] == {"won": 0, "lost": 0, "tied": 8, "first": 8, "second": 0}


def test_the_file_names_its_origin_and_no_machine_s_path(asked: MakeSettings, tmp_path: Path) -> None:
    found = preference_judge.run(asked(), judge=careful)

    content = json.loads(found.path.read_text())
    assert found.says.startswith("It qualifies as a judge: ")
    assert content["competence"]["value"] == 1.0
    assert content["settings"]["seed"] == 13
    assert set(content["data"]) == {"plain.txt"}
    assert set(content["models"]) == {"judge"}
    assert len(content["models"]["judge"]["model.safetensors"]) == 64
    assert {"git", "versions", "seconds"} <= set(content)
    assert str(tmp_path) not in found.path.read_text()


def test_the_command_asks_a_model_behind_an_endpoint(
    asked: MakeSettings, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-of-the-endpoint")
    options = options_of(asked(), judge="house/judge-7b")

    done = evaluate(*options, "--set", f"endpoint={upstream.url}/v1")

    assert done.exit_code == 0, done.output
    assert "It qualifies as a judge: judge-7b prefers" in done.output
    assert len(upstream.asked) == 2 * 8
    question = upstream.asked[0]
    assert question.path == "/v1/chat/completions"
    assert question.header("authorization") == "Bearer a-key-of-the-endpoint"
    assert question.body["model"] == "house/judge-7b"
    content = (Path(asked().out) / "preference-judge.json").read_text()
    assert json.loads(content)["settings"]["endpoint"] is True
    assert json.loads(content)["models"] == {}
    assert upstream.url not in content


def test_an_endpoint_that_refuses_is_one_line_without_text(asked: MakeSettings, upstream: Upstream) -> None:
    def refuse(question: Asked) -> JSONResponse:
        return JSONResponse({"error": {"message": question.body["messages"][0]["content"]}}, status_code=401)

    upstream.reply = refuse

    done = evaluate(*options_of(asked(), judge="j"), "--set", f"endpoint={upstream.url}/v1")

    assert done.exit_code == 1
    assert "the judge's endpoint failed (AuthenticationError, status 401)" in done.output
    assert "Continuation" not in done.output
    assert not (Path(asked().out) / "preference-judge.json").exists()


def test_an_answer_of_another_shape_is_a_failure(upstream: Upstream) -> None:
    upstream.reply = lambda asked: JSONResponse({"choices": []})

    with pytest.raises(PluginError, match="endpoint failed") as caught:
        endpoint_judge(connect(f"{upstream.url}/v1"), model="j")(["zebra"])

    assert "zebra" not in str(caught.value)


def write_recipe(path: Path, settings: Any) -> str:
    path.write_text(
        "".join(f"{key} = {json.dumps(getattr(settings, key))}\n" for key in RECIPE_KEYS), encoding="utf-8"
    )
    return str(path)


@pytest.fixture
def rows(llama_base: Path, tmp_path: Path) -> dict[str, Any]:
    """A trained row, and what a comparison of it with the base is told."""
    lists = ["\n".join(f"- {WORDS[(row + 5 * line) % 32]}" for line in range(4)) for row in range(12)]
    lines = [json.dumps({"text": text, "prompt": text}) + "\n" for text in lists]
    (tmp_path / "toxigen_prompts").mkdir()
    for name in ("lists.jsonl", "toxigen_prompts/dev.jsonl"):
        (tmp_path / name).write_text("".join(lines))
    (tmp_path / "plain.txt").write_text("\n".join(" ".join(WORDS[row : row + 12]) for row in range(10)))
    settings = small_settings(llama_base, tmp_path, method="sft", out=str(tmp_path / "runs" / "sft-0"))
    trainer.run(settings, reward=ORACLE)
    return {
        "rows": ("sft-0", "base"),
        "runs": str(tmp_path / "runs"),
        "recipe": write_recipe(tmp_path / "rows.toml", settings),
        "prompts": 6,
    }


def test_a_judge_that_qualifies_compares_two_rows(asked: MakeSettings, rows: dict[str, Any]) -> None:
    found = preference_judge.run(asked(**rows), judge=careful)

    content = json.loads(found.path.read_text())
    compared = content["win_rate"]
    assert compared["rows"] == ["sft-0", "base"]
    assert sum(compared["duels"][name] for name in ("won", "lost", "tied")) == 6
    assert found.says.startswith("sft-0 wins ")
    assert "of 6 prompts against base" in found.says
    assert set(content["models"]) == {"judge", "sft-0"}
    assert set(content["data"]) == {"plain.txt", "toxigen_prompts/dev.jsonl"}
    # The same two the other way round.
    swapped = preference_judge.run(asked(**rows | {"rows": ("base", "sft-0")}), judge=careful)
    other = json.loads(swapped.path.read_text())["win_rate"]
    assert (other["duels"]["won"], other["duels"]["lost"]) == (
        compared["duels"]["lost"],
        compared["duels"]["won"],
    )


def test_rows_are_not_compared_by_a_judge_that_does_not_qualify(
    asked: MakeSettings, rows: dict[str, Any]
) -> None:
    questions: list[str] = []

    def note(part: Sequence[str]) -> list[str]:
        questions.extend(part)
        return careless(part)

    judge: Judge = note
    found = preference_judge.run(asked(**rows), judge=judge)

    assert len(questions) == 2 * 8
    assert json.loads(found.path.read_text())["win_rate"] is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pairs": 0}, "pairs must be at least 1"),
        ({"words": 1}, "words must be at least 2"),
        ({"threads": -1}, "threads must not be negative"),
        ({"rows": ("base",)}, "rows must be two different ones"),
        ({"rows": ("base", "base")}, "rows must be two different ones"),
        ({"rows": ("base", "magic-0")}, "'magic-0' is none of the experiment's trained rows"),
        ({"rows": ("base", "best-of-n-0")}, "'best-of-n-0' is none of"),
        ({"rows": ("base", "rl")}, "'rl' is none of"),
    ],
)
def test_a_setting_that_cannot_work_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        PreferenceJudgeSettings(**changes)


def test_what_is_missing_is_one_clear_error_before_any_question(
    asked: MakeSettings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def never(questions: Sequence[str]) -> list[str]:
        raise AssertionError

    for changes, error, said in (
        ({"text": "absent.txt"}, TrainingRowError, "absent.txt not found"),
        ({"words": 9}, TrainingRowError, "has 0 paragraphs of 13 words or more, fewer than the 8 pairs"),
        ({"rows": ("base", "sft-0"), "runs": str(tmp_path)}, UsageError, "no step-N folders in"),
    ):
        with pytest.raises(error, match=said):
            preference_judge.run(asked(**changes), judge=never)
    monkeypatch.setenv("GUARDRAIL_CACHE", str(tmp_path / "empty"))
    with pytest.raises(ModelMissingError, match="guardrail models pull"):
        preference_judge.run(asked(judge="smollm2-135m-instruct"))


def test_an_endpoint_is_a_url(asked: MakeSettings) -> None:
    done = evaluate(*options_of(asked()), "--set", "endpoint=localhost")

    assert done.exit_code == 2
    assert "endpoint must be a URL" in done.output
    assert asked(endpoint=Url("http://127.0.0.1:1/v1")).endpoint == "http://127.0.0.1:1/v1"
