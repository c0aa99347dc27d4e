"""The page of a run that another trainer than PPO has left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from typer.testing import CliRunner

from guardrail.manifest import sha256_of
from guardrail_training import sft
from guardrail_training.cli import app
from guardrail_training.evaluation.best_checkpoint import step_folders
from guardrail_training.report.page import page_of
from guardrail_training.report.run import read_run
from tests.training.report.test_report import Page
from tests.training.supervised.conftest import small_run


def test_a_supervised_run_s_page_begins_with_the_course_of_its_losses(
    llama_base: Path, tmp_path: Path
) -> None:
    settings = small_run("llama", llama_base, tmp_path)
    sft.run(settings)

    found = Page(page_of(read_run(settings.out), rows=10).decode())

    assert next(text for inside, text in found.texts if "h3" in inside) == "Loss"
    course = found.all("img")[0]["alt"] or ""
    assert course.startswith("Loss: loss from ")
    assert "; dev_loss from " in course
    dev_rows = read_run(settings.out).facts["dev_rows"]
    assert f"dev_loss over the dev set (dev n = {dev_rows}); its bars are 95 %" in found.text_in("figcaption")
    assert f"dev n = {dev_rows}" in found.text_in("dl")
    assert "tokens per second" in found.text_in("dl")
    assert "Loss by steps" in found.text_in("caption")


def test_the_losses_by_steps_are_printed_with_their_n(llama_base: Path, tmp_path: Path) -> None:
    settings = small_run("llama", llama_base, tmp_path)
    sft.run(settings)

    done = CliRunner().invoke(app, ["losses", settings.out])

    assert done.exit_code == 0, done.output
    header, _, *rows = done.output.strip().splitlines()
    assert header == "| step | loss | mean of steps | dev loss | 95 % ± | dev rows |"
    run = read_run(settings.out)
    assert len(rows) == len(run.series["dev_loss"].values)
    assert sum(int(row.split(" | ")[2]) for row in rows) == run.steps
    assert CliRunner().invoke(app, ["losses", settings.out, "--rows", "1"]).output.count("\n") == 3


def test_a_run_that_went_on_from_an_adapter_shows_its_hash(llama_base: Path, tmp_path: Path) -> None:
    first = small_run("llama", llama_base, tmp_path / "first")
    sft.run(first)
    start = step_folders(first.out)[-1]
    second = replace(small_run("llama", llama_base, tmp_path / "second"), adapter=str(start))
    sft.run(second)

    run = read_run(second.out)

    weights = sha256_of(start / "adapter_model.safetensors")
    assert run.start_sha256["adapter_model.safetensors"] == weights
    assert "starting adapter" in Page(page_of(run, rows=1).decode()).text_in("table")
