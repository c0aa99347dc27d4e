"""What an adapter writes beside what its model wrote before: same prompts, same noise, paired figures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from guardrail.errors import ConfigError, ManifestError, UsageError
from guardrail.manifest import Manifest
from guardrail_training.cli import app
from guardrail_training.evaluation.generation import compare
from guardrail_training.evaluation.generation.comparison import GenerationComparison, read_comparison
from guardrail_training.evaluation.generation.measures import (
    RelativeChange,
    relative_change,
    smallest_reduction,
)
from guardrail_training.evaluation.generation.samples import (
    Sample,
    SampledResponse,
    read_samples,
    write_samples,
)
from guardrail_training.evaluation.generation.settings import GenerationSettings
from guardrail_training.records import TrainingRowError
from guardrail_training.rewards.algebra import Answer, named
from tests.conftest import MakeAdapter

PROMPTS = [
    {"text": "the rude cat", "best": ["the cat", "a cat"]},
    {"text": "nothing at all about the user", "best": "nothing about the user"},
    {"text": "rude words", "best": ["words"]},
]
REWARD = named("brief", lambda answers: [1 / (1 + len(answer.response)) for answer in answers])


def vowels(answers: Sequence[Answer]) -> list[float]:
    return [sum(letter in "aeiou" for letter in each.response) / 100 for each in answers]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Matrices this small are slower on two threads, much slower where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def asked(tiny_base: Path, make_adapter: MakeAdapter, tmp_path: Path) -> GenerationSettings:
    """A run that began with one adapter and kept another, and three prompts."""
    write_run(tmp_path / "run", base=tiny_base, start=make_adapter(seed=1))
    make_adapter(seed=2).rename(tmp_path / "run" / "step-7")
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PROMPTS))
    return GenerationSettings(
        run=str(tmp_path / "run"),
        data=str(tmp_path),
        prompts="prompts.jsonl",
        field="text",
        reference="best",
        response_tokens=8,
        batch_size=2,
        judges=("vowels",),
    )


def write_run(folder: Path, *, base: Path, start: Path | None) -> None:
    folder.mkdir()
    content = {"settings": {"base": str(base), "adapter": None if start is None else str(start)}}
    (folder / "run.json").write_text(json.dumps(content))


def compared(settings: GenerationSettings) -> tuple[GenerationComparison, list[Sample]]:
    path = compare.run(settings, reward=REWARD, toxicity={"vowels": vowels})
    return read_comparison(path), read_samples(path.with_name("samples.jsonl"))


def test_three_models_are_asked_the_same(asked: GenerationSettings) -> None:
    comparison, samples = compared(asked)

    assert [system.name for system in comparison.systems] == ["zero-shot", "start", "trained"]
    assert comparison.pair == ("start", "trained")
    assert comparison.counted == "vowels"
    assert [sample.row for sample in samples] == [1, 2, 3]
    assert [sample.query for sample in samples] == [row["text"] for row in PROMPTS]
    assert samples[0].references == ("the cat", "a cat")
    for system in comparison.systems:
        rewards = [sample.outputs[system.name].reward for sample in samples]
        assert system.reward.mean.value == pytest.approx(np.mean(rewards))
        assert system.reward.std == pytest.approx(np.std(rewards))
        assert set(system.rouge) == {"rouge1", "rouge2", "rougeL"}
    before, after = (
        np.mean([sample.outputs[name].toxicity["vowels"] for sample in samples]) for name in comparison.pair
    )
    assert comparison.changes["vowels"].mean.value == pytest.approx(after / before - 1)


def test_closeness_to_the_reference_is_measured_by_an_encoder(asked: GenerationSettings) -> None:
    comparison, _ = compared(replace(asked, encoder="detector", min_response_tokens=5))

    for system in comparison.systems:
        assert -1 <= system.rouge["similarity"].low <= system.rouge["similarity"].value <= 1
        assert system.tokens.mean.value >= 5
    with pytest.raises(ConfigError, match="name their field with reference"):
        replace(asked, encoder="detector", reference="")


def test_figures_name_their_origin_and_no_machine_s_path(asked: GenerationSettings, tmp_path: Path) -> None:
    comparison, _ = compared(asked)

    assert set(comparison.data) == {"prompts.jsonl"}
    assert set(comparison.models) == {"base", "start", "trained"}
    trained = Manifest.load(tmp_path / "run" / "step-7", verify=False)
    assert comparison.models["trained"] == trained.files
    assert comparison.settings["response_tokens"] == 8
    assert str(tmp_path) not in (tmp_path / "run" / "generation.json").read_text()


def test_the_table_has_every_sample_by_its_numbers_and_no_text(
    asked: GenerationSettings, tmp_path: Path
) -> None:
    _, samples = compared(asked)

    text = (tmp_path / "run" / "generation.md").read_text()
    listed = text.partition("### Samples")[2].splitlines()[4:]
    rows = {row: list(map(float, rest)) for row, *rest in (line.strip("| ").split(" | ") for line in listed)}
    assert set(rows) == {str(sample.row) for sample in samples}
    for sample in samples:
        before, after = sample.outputs["start"], sample.outputs["trained"]
        expected = [before.reward, after.reward, after.reward - before.reward]
        expected += [before.toxicity["vowels"], after.toxicity["vowels"]]
        assert rows[str(sample.row)] == pytest.approx(expected, abs=6e-4)
        for part in (sample.query, *sample.references, before.response, after.response):
            assert not part or part not in text
    gains = [numbers[2] for numbers in rows.values()]
    assert gains == sorted(gains, reverse=True)


def test_an_adapter_without_effect_writes_what_the_bare_base_writes(
    tiny_base: Path, make_adapter: MakeAdapter, asked: GenerationSettings, tmp_path: Path
) -> None:
    write_run(tmp_path / "other", base=tiny_base, start=None)
    adapter = make_adapter(seed=None)

    comparison, samples = compared(
        replace(asked, run=str(tmp_path / "other"), adapter=str(adapter), reference="")
    )

    assert comparison.pair == ("zero-shot", "trained")
    assert all(sample.outputs["zero-shot"] == sample.outputs["trained"] for sample in samples)
    assert comparison.changes["vowels"].mean == RelativeChange(value=0.0, low=0.0, high=0.0)
    assert all(system.rouge == {} for system in comparison.systems)


def test_a_response_depends_on_its_prompt_and_the_seed_alone(asked: GenerationSettings) -> None:
    _, samples = compared(asked)
    _, alone = compared(replace(asked, batch_size=1, limit=2))
    _, reseeded = compared(replace(asked, seed=14))

    together = {sample.row: sample for sample in samples}
    assert len(alone) == 2
    for sample in alone:
        assert sample.outputs["trained"].response == together[sample.row].outputs["trained"].response
    assert [each.outputs for each in reseeded] != [each.outputs for each in samples]


def test_the_command_measures_by_formulas(asked: GenerationSettings, tmp_path: Path) -> None:
    options = ["--checkpoints", asked.run, "--data", asked.data, "--out", str(tmp_path / "found")]
    for key, value in (("prompts", "prompts.jsonl"), ("field", "text"), ("response_tokens", "4")):
        options += ["--set", f"{key}={value}"]
    options += ["--set", "reward=length(least=1, most=9) - copy", "--set", "judges=['copy']"]

    done = CliRunner().invoke(app, ["evaluate", "generation", *options])

    assert done.exit_code == 0, done.output
    comparison = read_comparison(tmp_path / "found" / "generation.json")
    assert set(comparison.systems[0].terms) == {"length", "copy"}
    assert set(comparison.changes) == {"copy"}
    assert not (Path(asked.run) / "generation.json").exists()


def test_what_cannot_work_is_one_clear_error(
    asked: GenerationSettings, make_adapter: MakeAdapter, tmp_path: Path
) -> None:
    stranger = make_adapter(seed=3, manifest={"trained_on": "0" * 64})
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "run.json").write_text("{}")
    for changes, error, said in (
        ({"run": str(tmp_path / "absent")}, UsageError, r"run.json not found"),
        ({"run": str(bare)}, UsageError, r"run.json has no settings with a base"),
        ({"adapter": str(stranger)}, ManifestError, "was trained on base"),
        ({"prompts": "absent.jsonl"}, TrainingRowError, r"absent.jsonl not found"),
        ({"field": "query"}, TrainingRowError, "row 1: missing field 'query'"),
        ({"reference": "text2"}, TrainingRowError, "row 1: missing field 'text2'"),
        ({"max_prompt_tokens": 3}, TrainingRowError, "row 1: its prompt has"),
    ):
        with pytest.raises(error, match=said):
            compared(replace(asked, **changes))
    assert not (tmp_path / "run" / "samples.jsonl").exists()


@pytest.mark.parametrize("best", ["", " ", [], [""], ["a", 3]])
def test_an_empty_reference_is_an_error_with_its_row(
    asked: GenerationSettings, tmp_path: Path, best: Any
) -> None:
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"text": "zebra", "best": best}) + "\n")

    with pytest.raises(TrainingRowError, match="row 1: field 'best' must be a text or a list") as caught:
        compared(asked)

    assert "zebra" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"limit": -1}, "limit must not be negative"),
        ({"temperature": float("nan")}, "temperature must not be negative"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"judges": ()}, "judges must name at least one"),
        ({"judges": ("copy", "copy")}, "none of them twice"),
    ],
)
def test_a_setting_that_cannot_work_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        GenerationSettings(run="run", prompts="file", field="text", **changes)


def test_a_relative_change_is_paired_and_the_same_for_the_same_seed() -> None:
    before, after = [0.2, 0.4, 0.6, 0.8], [0.1, 0.2, 0.3, 0.4]

    change = relative_change(before, after, figure=np.mean, seed=0)

    # Every prompt's value is halved, so every resample's mean is too.
    assert (change.value, change.low, change.high) == pytest.approx((-0.5, -0.5, -0.5))
    random = np.random.default_rng(5)
    first, second = random.random(40), random.random(40)
    uneven = [relative_change(first, second, figure=np.std, seed=seed) for seed in (1, 1, 2)]
    assert uneven[0] == uneven[1] != uneven[2]
    assert uneven[0].value == pytest.approx(np.std(second) / np.std(first) - 1)
    assert uneven[0].low < uneven[0].value < uneven[0].high  # type: ignore[operator]  # it began above 0


def test_a_change_from_nothing_is_none_and_counts_for_no_judge() -> None:
    nothing = relative_change([0.0, 0.0], [0.1, 0.0], figure=np.mean, seed=0)

    assert nothing == RelativeChange(value=None, low=None, high=None)
    assert smallest_reduction({"a": nothing}) is None
    small, large = (
        RelativeChange(value=-0.1, low=-0.2, high=0.0),
        RelativeChange(value=-0.5, low=-0.6, high=-0.4),
    )
    assert smallest_reduction({"a": nothing, "b": large, "c": small}) == "c"


numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)
outputs = st.builds(
    SampledResponse,
    response=st.text(),
    tokens=st.integers(0, 500),
    ended=st.booleans(),
    reward=numbers,
    toxicity=st.dictionaries(st.text(max_size=4), numbers, max_size=2),
)
samples = st.builds(
    Sample,
    row=st.integers(1, 10**6),
    query=st.text(),
    references=st.lists(st.text(), max_size=2).map(tuple),
    outputs=st.dictionaries(st.text(max_size=4), outputs, min_size=1, max_size=3),
)


@settings(max_examples=50)
@given(written=st.lists(samples, min_size=1, max_size=4))
def test_samples_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, written: list[Sample]
) -> None:
    path = tmp_path_factory.mktemp("samples") / "samples.jsonl"
    write_samples(path, written)

    assert read_samples(path) == written


def test_a_repr_shows_no_text() -> None:
    output = SampledResponse(response="zebra", tokens=1, ended=True, reward=0.0, toxicity={})

    assert "zebra" not in repr(Sample(row=1, query="zebra", references=("zebra",), outputs={"a": output}))
