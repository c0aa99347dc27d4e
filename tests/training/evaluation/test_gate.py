"""The gate: what the guard would do with two adapters decides, not how they score."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from guardrail import Guard, Policy, Verdict
from guardrail.errors import UsageError
from guardrail_training.cli import app
from guardrail_training.evaluation import gate
from guardrail_training.evaluation.gate import AdapterRefusedError, compare, run
from guardrail_training.evaluation.gate_settings import GateSettings
from guardrail_training.records import TrainingRowError
from tests.conftest import MakeAdapter

RUDE = ["You idiot, call me at noon.", "The idiot lost my book again.", "Good morning to all of you."]
NO_DEADLINE = Policy(detect_timeout=None, rewrite_timeout=None)


def detect(texts: list[str]) -> list[Verdict]:
    return [
        Verdict({"toxicity": float("idiot" in text)}, flagged="idiot" in text, spans=[]) for text in texts
    ]


def civil(texts: list[str], n: int) -> list[list[str]]:
    return [[text.replace("You idiot, c", "Please c").replace("idiot", "person")] for text in texts]


def careless(texts: list[str], n: int) -> list[list[str]]:
    """Loses the book, and else does as the other one does."""
    return [["The person lost it again."] if "book" in text else civil([text], n)[0] for text in texts]


def embed(texts: list[str]) -> list[list[float]]:
    return [[1.0, 0.0]] * len(texts)


def keeps_the_book(sources: list[str], candidates: list[str]) -> list[float]:
    return [
        float("book" not in source or "book" in text)
        for source, text in zip(sources, candidates, strict=True)
    ]


def guard(rewriter: object, verifier: object = keeps_the_book) -> Guard:
    return Guard(
        policy=NO_DEADLINE,
        detector=detect,
        rewriter=rewriter,
        embedder=embed,
        verifier=verifier,
        lexicon=None,
    )


def test_the_verifier_decides_between_adapters_that_the_checks_alone_would_call_equal() -> None:
    found = compare({"new": guard(careless), "current": guard(civil)}, RUDE, seed=0)

    assert (found.n, found.flagged) == (3, 2)
    assert (found.new.share.value, found.current.share.value) == (0.5, 1.0)
    assert found.difference.value == -0.5
    assert not found.accepted
    assert found.new.refused

    unread = compare({"new": guard(careless, None), "current": guard(civil, None)}, RUDE, seed=0)
    assert unread.accepted


def test_an_adapter_that_loses_nothing_is_accepted() -> None:
    assert compare({"new": guard(civil), "current": guard(civil)}, RUDE, seed=0).accepted


def test_sentences_that_nobody_flags_compare_nothing() -> None:
    with pytest.raises(UsageError, match="flags none of the 1 sentences"):
        compare({"new": guard(civil), "current": guard(civil)}, RUDE[2:], seed=0)


@pytest.fixture
def settings(tmp_path: Path, tiny_base: Path, make_adapter: MakeAdapter) -> GateSettings:
    with (tmp_path / "dev.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["comment"], *([text] for text in RUDE)])
    return GateSettings(
        adapter=str(make_adapter(seed=1)),
        current=str(make_adapter(seed=2)),
        base=str(tiny_base),
        dev=str(tmp_path / "dev.csv"),
        source="comment",
        out=str(tmp_path / "out"),
    )


def test_a_closed_gate_is_an_error_that_leaves_its_figures(settings: GateSettings) -> None:
    guards = {settings.adapter: guard(careless), settings.current: guard(civil)}

    with pytest.raises(AdapterRefusedError, match=r"paired difference is -0\.500"):
        run(settings, guard=lambda folder: guards[str(folder)])

    figures = json.loads((Path(settings.out) / gate.MEASURED).read_text())
    assert figures["accepted"] is False
    assert figures["new"]["actions"] == {"rewritten": 1, "removed": 1}
    assert set(figures["dev"]) == {"dev.csv"}
    assert set(figures["adapters"]["new"]) == {"adapter_config.json", "adapter_model.safetensors"}


def test_the_command_runs_both_adapters_in_the_shipped_guard_on_own_sentences(settings: GateSettings) -> None:
    names = ("adapter", "current", "base", "dev", "source", "out")
    given = [part for name in names for part in (f"--{name}", getattr(settings, name))]

    done = CliRunner().invoke(app, ["gate", *given])

    assert done.exit_code in (0, 1), done.output  # two adapters of noise
    figures = json.loads((Path(settings.out) / gate.MEASURED).read_text())
    assert figures["flagged"] == 2
    assert "flagged sentences" in done.output


def test_a_row_without_the_sentence_is_one_error_before_any_model(
    settings: GateSettings, tmp_path: Path
) -> None:
    (tmp_path / "dev.csv").write_text("text\nhello\n", encoding="utf-8")

    with pytest.raises(TrainingRowError, match="row 2: field comment must be a text"):
        run(settings, guard=lambda folder: pytest.fail("opened"))
