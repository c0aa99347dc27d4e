"""BLEU, ROUGE and chrF of models of every family, side by side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import sacrebleu
from typer.testing import CliRunner

from guardrail_training import sft
from guardrail_training.cli import app
from guardrail_training.evaluation.models_report import FIGURE, MEASURED
from tests.training.supervised.conftest import _one_thread, bases, small_run, swapped

__all__ = ["_one_thread", "bases"]

FAMILIES = ("t5", "phi", "bloom")


def rewriter(*given: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["evaluate", "rewriter", *given])
    return done.exit_code, done.output


def test_trained_models_of_each_family_stand_in_one_table_and_one_figure(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    given = ["--model", f"T5 untrained={bases['t5']}"]
    for name in FAMILIES:
        settings = small_run(
            name, bases[name], tmp_path / name, passes=10 if name == "t5" else 2, rank=8, alpha=16
        )
        sft.run(settings)
        step = max(Path(settings.out).glob("step-*"), key=lambda path: int(path.name.partition("-")[2]))
        given += ["--model", f"{name}={bases[name]},{step}"]
    dev, out = tmp_path / "t5" / "pairs.jsonl", tmp_path / "out"
    given += ["--dev", str(dev), "--out", str(out), "--set", "source=question", "--set", "target=answer"]

    code, printed = rewriter(*given, "--set", "tokens=8", "--set", "template=a0 {text} </s>")

    assert code == 0, printed
    rows = {row["system"]: row for row in json.loads((out / MEASURED).read_text())["rows"]}
    assert list(rows) == ["copy", "delete", "T5 untrained", *FAMILIES]
    assert all(f"| {name} | 8 |" in printed for name in FAMILIES)
    assert rows["t5"]["rouge1"]["value"] > rows["T5 untrained"]["rouge1"]["value"] + 0.1
    assert (out / FIGURE).read_bytes().startswith(b"\x89PNG")
    # Every figure again from the outputs that lie beside it.
    texts = [json.loads(line) for line in (out / "overlap.jsonl").read_text().splitlines()]
    answers = [row["answer"] for row in swapped()]
    for name in FAMILIES:
        outputs = [each["output"] for each in texts if each["system"] == name]
        expected = sacrebleu.corpus_bleu(outputs, [answers], tokenize="13a", force=True).score / 100
        assert rows[name]["corpus_bleu"] == pytest.approx(expected)
    assert rows["copy"]["rouge1"]["value"] == pytest.approx(1.0)  # the same words in another order


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--model", "a=x"], "needs --dev"),
        (["--dev", "x.csv"], "needs a model"),
        (["--dev", "x.csv", "--model", "a"], "model needs NAME=BASE"),
        (["--dev", "x.csv", "--model", "copy=x"], "another row is called 'copy'"),
        (["--dev", "x.csv", "--model", "a=x", "--model", "a=y"], "another row is called 'a'"),
    ],
)
def test_what_cannot_be_measured_is_one_line(given: list[str], message: str) -> None:
    code, printed = rewriter(*given)

    assert code == 2
    assert message in printed
    assert printed.count("\n") == 1


def test_an_adapter_of_another_base_is_refused_before_anything_is_written(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    settings = small_run("t5", bases["t5"], tmp_path / "t5", passes=1)
    sft.run(settings)
    step = next(Path(settings.out).glob("step-*"))
    dev = str(tmp_path / "t5" / "pairs.jsonl")

    code, _ = rewriter("--dev", dev, "--model", f"a={bases['bloom']},{step}", "--out", str(tmp_path / "out"))

    assert code == 1
    assert not (tmp_path / "out").exists()
