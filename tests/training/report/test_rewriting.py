"""Bars over rewriting systems: what evaluate select, gate and rewriter found comes onto the page."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from guardrail.errors import UsageError
from guardrail_training.cli import app
from guardrail_training.metrics.statistics import Mean
from guardrail_training.report.drawing import shares
from guardrail_training.report.page import page_of
from guardrail_training.report.rewriting import find_rewriting
from guardrail_training.report.run import read_run
from tests.training.report.test_report import Page, texts

LOWER, HIGHER = 0.1, 0.2  # what the two judges take off a system's figures


def mean(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.05, "high": value + 0.05, "n": 20}


def block(name: str, figure: float) -> dict[str, Any]:
    """One system: by the strict judge .2 below the figure, by the mild one .1."""
    by_judge = {"strict": mean(figure - HIGHER), "mild": mean(figure - LOWER)}
    measures = ("sta", "j_first", "j_best")
    return {
        "system": name,
        "n": 20,
        **dict.fromkeys(measures, by_judge),
        "lower": dict.fromkeys(measures, "strict"),
        "similarity": {"small-encoder": figure, "other": 0.0},
    }


def results(what: str, **rest: Any) -> dict[str, Any]:
    return rest | {
        "settings": {"what": what, "seed": 77},
        "git": "c0ffee" + "0" * 34,
        "data": {"pairs/dev.jsonl": "1" * 64},
        "models": {"judged": {"adapter_model.safetensors": "2" * 64}},
    }


def selected(names: Sequence[str] = ("step-2", "step-4")) -> dict[str, Any]:
    blocks = [block(name, 0.9 - 0.01 * place) for place, name in enumerate(names)]
    return results("select", best="step-2", step=2, blocks=blocks)


def measured() -> dict[str, Any]:
    blocks = [block("copy", 0.3), block("n-best + verify (the guard)", 0.95)]
    return results(
        "rewriter",
        favourite="n-best + verify (the guard)",
        blocks={"rewritten": blocks[1:], "all": blocks},
        samples=[{"source": "zebra", "output": "zebra"}],
    )


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_a_run_without_such_results_has_no_such_part(run_copy: Path) -> None:
    content = page_of(read_run(run_copy), rows=5).decode()

    assert "Rewrites" not in content
    assert "#rewrites" not in content


def test_what_evaluations_left_in_the_run_is_found_all_sentences_first(run_copy: Path) -> None:
    write(run_copy / "select.json", selected())
    write(run_copy / "rewriter.json", measured())
    blocks = [block("new", 0.9), block("current", 0.8)]
    write(run_copy / "gate.json", results("gate", blocks=blocks, reason="J is higher"))

    assert "J is higher." in page_of(read_run(run_copy), rows=5).decode()
    found = read_run(run_copy).rewriting

    assert [(each.kind, each.chosen) for each in found] == [
        ("select", "step-2"),
        ("gate", "new"),
        ("rewriter", "n-best + verify (the guard)"),
    ]
    assert list(found[2].blocks) == ["all", "rewritten"]
    assert [len(systems) for systems in found[2].blocks.values()] == [2, 1]
    first = found[0].blocks["all"][0]
    assert first.non_toxic == first.joint == first.joint_best
    assert first.non_toxic.value == pytest.approx(0.7)  # by the strict judge
    assert first.similarity == 0.9
    assert found[0].encoder == "small-encoder"


def test_bars_stand_for_every_system_and_measure(run_copy: Path) -> None:
    write(run_copy / "select.json", selected())

    page = Page(page_of(read_run(run_copy), rows=5).decode())

    assert {"#rewrites"} <= {each.get("href") for each in page.all("a")}
    descriptions = [each["alt"] or "" for each in page.all("img")]
    for title, value in (("SIM", "0.900"), ("SIM", "0.890"), ("J", "0.700")):
        assert any(f"{title}: " in said and value in said for said in descriptions)
    assert "n = 20 sentences." in page.text_in("figcaption")
    tables = page.text_in("table")
    for told in ("step-2, best", "0.700[0.650, 0.750]", "All sentences", "77", "c0ffee", "1" * 64, "2" * 64):
        assert told in tables


def test_results_from_elsewhere_are_shown_without_their_samples(run_copy: Path, tmp_path: Path) -> None:
    named = write(tmp_path / "of-a-colleague.json", measured())
    write(run_copy / "select.json", selected())

    done = CliRunner().invoke(app, ["report", str(run_copy), "--results", str(named)])

    assert done.exit_code == 0, done.output
    content = (run_copy / "report.html").read_text()
    assert "Adapters that the run kept" in content
    assert "All systems" in content
    assert "masked or refused counts as toxic" in content
    assert "zebra" not in content
    assert len(re.findall(r'alt="(?:Non-toxic|SIM|J): ', content)) == 6


@pytest.mark.parametrize(
    "content",
    [
        "zebra",
        "[]",
        "{}",
        json.dumps(results("judges", judges={})),
        json.dumps(results("agreement", blocks=[block("a", 0.5)])),
        json.dumps(results("select", best="step-2", blocks=[])),
        json.dumps(results("rewriter", favourite="copy", blocks={"rewritten": [block("copy", 0.5)]})),
        json.dumps(results("gate", blocks=[block("new", 0.5) | {"similarity": {}}])),
        json.dumps(results("gate", blocks=[block("new", 0.5) | {"lower": {}}])),
        b"\xff",
    ],
)
def test_a_file_of_another_kind_is_one_line_that_names_it(run_copy: Path, content: str | bytes) -> None:
    (run_copy / "gate.json").write_bytes(content if isinstance(content, bytes) else content.encode())

    done = CliRunner().invoke(app, ["report", str(run_copy)])

    assert done.exit_code == 2
    assert (
        "gate.json holds no figures of rewriters: give a file that 'guardrail-train evaluate'" in done.output
    )
    assert "zebra" not in done.output
    assert done.output.count("\n") == 1


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.json not found"):
        find_rewriting(tmp_path, results=[tmp_path / "absent.json"])


@pytest.mark.parametrize("count", [1, 2, 9])
def test_any_number_of_systems_can_be_drawn(count: int) -> None:
    figures: dict[str, Mean | float] = {
        f"a system with a long name, number {place}": place / 10 for place in range(count)
    }
    figures["full"] = Mean(value=1.0, low=1.0, high=1.0, n=3)
    figures["skewed\x00"] = Mean(value=0.5, low=0.6, high=0.4, n=2)

    drawing = shares(figures, unit="J", marked=[0])

    words = texts(drawing.light)
    assert {"1.000", "0.500", "J", "skewed\N{REPLACEMENT CHARACTER}"} <= set(words)
    assert words.count("a system with a") == count
