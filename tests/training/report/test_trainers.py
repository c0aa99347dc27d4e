"""The page of a run that another trainer than PPO has left."""

from __future__ import annotations

from pathlib import Path

from guardrail_training import sft
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
    course = next(text for inside, text in found.texts if "desc" in inside)
    assert course.startswith("loss from ")
    assert "; dev_loss from " in course
    assert found.all("svg")[0]["aria-labelledby"] == "chart-0-title chart-0-says"
