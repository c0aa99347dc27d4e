"""What the skeleton of every run decides: what it keeps, when it ends, whom it tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from accelerate import tracking
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from guardrail.errors import ConfigError
from guardrail.manifest import Manifest
from guardrail.rewriters.adapter import Adapter
from guardrail_training.callbacks import Callback
from guardrail_training.export.card import model_card
from guardrail_training.processes import Processes
from guardrail_training.run import Kept, Report, Run, fingerprint_of, manifest_of, pad_token_of
from guardrail_training.settings import TrainingSettings
from guardrail_training.sft import SftSettings

MANIFEST = Manifest("adapter", "tiny", "1", "Apache-2.0", files={})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(TrainingSettings):
    trainer = "tiny"


class Notes(Callback):
    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []

    def on_step(self, step: int, metrics: Mapping[str, float]) -> None:
        self.told.append(("step", step))

    def on_evaluate(self, step: int, metrics: Mapping[str, float]) -> None:
        self.told.append(("evaluate", step))

    def on_save(self, step: int, folder: Path) -> None:
        assert (folder / "manifest.json").is_file()
        self.told.append(("save", step))


def taken(
    settings: Settings, losses: Sequence[float], *callbacks: Callback, until: int | None = None
) -> Report:
    """A run whose model is measured after every step; ``until`` leaves it in that step as a crash would."""
    model = torch.nn.Linear(2, 1)
    run = Run(
        settings,
        manifest=MANIFEST,
        fingerprint="same",
        processes=Processes(),
        best="dev_loss",
        callbacks=callbacks,
    )
    run.resume(model, torch.optim.AdamW(model.parameters()), facts={})

    def write(folder: Path) -> list[Path]:
        folder.mkdir(exist_ok=True)
        (folder / "weights").write_text(str(run.step))
        return [folder / "weights"]

    with run:
        for step in run.steps(len(losses)):
            run.log({"loss": 1.0}, step=step)
            run.evaluated({"dev_loss": losses[step - 1]}, step=step)
            run.keep(write, step=step, metrics={"dev_loss": losses[step - 1]})
            if step == until:
                break
    return run.report("dev_loss")


def kept(settings: Settings) -> set[int]:
    return {int(path.name.removeprefix("step-")) for path in Path(settings.out).glob("step-*")}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(out=str(tmp_path / "run"), checkpoint_every=1)


def test_the_best_and_the_last_model_stay(settings: Settings) -> None:
    taken(settings, [3.0, 1.0, 2.0, 2.5, 2.0])

    assert kept(settings) == {2, 5}


@pytest.mark.parametrize(
    ("bound", "expected"), [(0, {1, 2, 3, 4, 5}), (1, {2, 5}), (3, {2, 4, 5}), (9, {1, 2, 3, 4, 5})]
)
def test_a_bound_on_kept_models_leaves_the_newest_beside_best_and_last(
    settings: Settings, bound: int, expected: set[int]
) -> None:
    taken(replace(settings, keep_models=bound), [3.0, 1.0, 2.0, 2.5, 2.0])

    assert kept(settings) == expected


def test_a_run_that_went_on_knows_its_best_model(settings: Settings) -> None:
    losses = [3.0, 1.0, 2.0, 2.5, 2.0]

    taken(settings, losses, until=3)
    report = taken(settings, losses)

    assert report.finished
    assert kept(settings) == {2, 5}


def test_nothing_but_kept_models_is_removed(settings: Settings) -> None:
    other = Path(settings.out) / "step-notes"
    other.mkdir(parents=True)

    taken(settings, [2.0, 1.0, 3.0, 3.0])

    assert other.is_dir()


def test_a_run_ends_when_no_evaluation_was_better_for_its_patience(settings: Settings) -> None:
    patient = replace(settings, patience=2)

    report = taken(patient, [3.0, 1.0, 2.0, 2.0, 0.5])
    again = taken(patient, [3.0, 1.0, 2.0, 2.0, 0.5])

    assert (report.step, report.finished, report.ended_early) == (4, True, True)
    assert "no evaluation was better" in str(report)
    assert (again.step, again.finished) == (4, True)
    assert kept(settings) == {2, 4}


def test_a_run_that_ended_early_goes_on_with_more_patience(settings: Settings) -> None:
    losses = [3.0, 1.0, 2.0, 2.0, 0.5]
    taken(replace(settings, patience=2), losses)

    report = taken(replace(settings, patience=3), losses)

    assert (report.step, report.ended_early) == (5, False)


def test_callbacks_are_told_of_steps_evaluations_and_models(settings: Settings) -> None:
    notes = Notes()

    taken(settings, [1.0, 2.0], notes)

    assert notes.told == [(what, step) for step in (1, 2) for what in ("step", "evaluate", "save")]


@given(st.lists(st.floats(0, 10), min_size=1, max_size=20), st.booleans())
def test_the_best_is_the_first_of_the_best_values(values: list[float], lower: bool) -> None:
    best = Kept(lower_is_better=lower)
    for step, value in enumerate(values):
        best.update(value, step=step)

    assert best.step == values.index(min(values) if lower else max(values))
    assert best.worse == len(values) - 1 - best.step


def test_a_run_is_named_by_what_decides_its_numbers_alone(tmp_path: Path) -> None:
    one = SftSettings(out=str(tmp_path / "a"), threads=1, checkpoint_every=5, streaming=True)
    other = SftSettings(out=str(tmp_path / "b"), threads=2, keep_models=9)

    assert fingerprint_of(one.decisive(), None, []) == fingerprint_of(other.decisive(), None, [])
    assert fingerprint_of(one.decisive(), None, []) != fingerprint_of(
        replace(one, seed=1).decisive(), None, []
    )
    assert fingerprint_of(one.decisive(), None, ["a"]) != fingerprint_of(one.decisive(), None, ["b"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"keep_models": -1}, "keep_models must not be negative, got -1"),
        ({"patience": 0}, "patience must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0"),
        ({"learning_rate": float("inf")}, "learning_rate must be positive, got inf"),
        ({"warmup": 1.0}, "warmup must be at least 0 and below 1, got 1"),
        ({"dtype": "int8"}, "dtype must be one of auto, float32, bfloat16, got 'int8'"),
    ],
)
def test_a_value_outside_its_range_is_an_error_that_names_both(
    settings: Settings, change: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        replace(settings, **change)  # type: ignore[arg-type]  # wrong values are the point


def test_a_result_carries_the_data_and_the_licence_of_what_it_went_on_from(tmp_path: Path) -> None:
    base, start = tmp_path / "tiny-base", tmp_path / "start"
    for folder in (base, start):
        folder.mkdir()
    save_file({"weight": torch.ones(2)}, base / "model.safetensors")
    source = {"name": "paradetox", "rows": 10_383, "sha256": "a" * 64, "licence": "openrail++"}
    known = Manifest("adapter", "first", "0.3.0", "MIT AND openrail++", files={"w": "b" * 64}, data=[source])
    adapter = Adapter(replace(known, template="{text}"), scale=1.0, layers={})
    settings = SftSettings(base=str(base), licence="CC-BY-4.0", adapter=str(start))
    own = {"name": "pairs.csv", "rows": 57, "sha256": "c" * 64}

    found = manifest_of(settings, base=base, template="{text}", data=[own], start=adapter)

    assert found.name == "tiny-base-sft"
    assert found.licence == "NOASSERTION AND MIT AND openrail++ AND CC-BY-4.0"
    assert found.data == [source, {**own, "licence": "CC-BY-4.0"}]
    assert found.settings["started_from"] == {
        "name": "first",
        "version": "0.3.0",
        "licence": "MIT AND openrail++",
        "files": {"w": "b" * 64},
    }
    assert "first 0.3.0, licence MIT AND openrail++" in model_card(found, results=None)


def test_what_the_start_was_padded_with_goes_on_and_stands_in_the_manifest(tmp_path: Path) -> None:
    base = tmp_path / "tiny-base"
    base.mkdir()
    save_file({"weight": torch.ones(2)}, base / "model.safetensors")
    start = Adapter(
        replace(MANIFEST, template="{text}", settings={"pad_token": "<end>"}), scale=1.0, layers={}
    )

    for own, expected in (("", "<end>"), ("<pad>", "<pad>")):
        settings = SftSettings(base=str(base), pad_token=own)
        assert pad_token_of(settings, start) == expected
        found = manifest_of(settings, base=base, template="{text}", data=[], start=start)
        assert found.settings["pad_token"] == expected


def test_the_last_figures_are_known_when_a_run_goes_on(settings: Settings) -> None:
    taken(settings, [3.0, 1.0], until=2)

    assert taken(settings, [3.0, 1.0]).metrics == {"dev_loss": 1.0}


class Notebook:
    """A tracker in accelerate's shape."""

    requires_logging_directory = False
    pages: ClassVar[list[tuple[str, Any]]] = []

    def __init__(self, name: str) -> None:
        self.pages.append(("name", name))

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.pages.append(("seed", values["seed"]))

    def log(self, values: dict[str, float], step: int) -> None:
        self.pages.append((str(step), values))

    def finish(self) -> None:
        self.pages.append(("finish", None))


def test_trackers_of_accelerate_get_the_settings_and_every_figure(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: ["notebook"])
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "notebook", Notebook)

    taken(replace(settings, track=("notebook",)), [2.0])

    assert Notebook.pages == [
        ("name", "run"),
        ("seed", 0),
        ("1", {"loss": 1.0}),
        ("1", {"dev_loss": 2.0}),
        ("finish", None),
    ]


def test_accelerates_own_tracker_writes_its_files_into_the_run(settings: Settings) -> None:
    taken(replace(settings, track=("tensorboard",)), [2.0, 1.0])

    assert list((Path(settings.out) / "tensorboard").rglob("events.out.tfevents.*"))


def test_a_tracker_that_is_not_there_is_an_error_that_names_those_that_are(settings: Settings) -> None:
    with pytest.raises(ConfigError, match=r"track: pigeon is not installed .* tensorboard"):
        taken(replace(settings, track=("pigeon",)), [1.0])
