"""Which rows a run reads: any file with named fields, in memory or on disk."""

from __future__ import annotations

import csv
import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from guardrail.errors import UsageError
from guardrail_training import sft
from guardrail_training.checkpoint import FILENAME
from guardrail_training.data import FileRows
from guardrail_training.records import TrainingRowError
from guardrail_training.sft import SftSettings
from guardrail_training.supervised.corpus import load_corpus
from tests.training.supervised.conftest import small_run, swapped


def settings(folder: Path, **changes: Any) -> SftSettings:
    chosen: dict[str, Any] = {
        "data": str(folder),
        "train": "rows.jsonl",
        "dev": "",
        "source": "q",
        "target": "a",
    }
    return SftSettings(**(chosen | changes))


def write(folder: Path, *rows: Any, name: str = "rows.jsonl") -> Path:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def test_summaries_and_instruction_records_are_pairs_too(tmp_path: Path) -> None:
    record = {"instructions": "Rephrase.", "inputs": "you oaf", "outputs": "you"}
    dialogue = {"dialogue": "#A#: hi", "summary": ["A greets.", "A says hi."]}
    write(tmp_path, record, record, name="records.jsonl")
    write(tmp_path, dialogue, dialogue, name="dialogues.jsonl")

    records = load_corpus(
        settings(
            tmp_path, train="records.jsonl", source="inputs", target="outputs", instruction="instructions"
        )
    )
    dialogues = load_corpus(settings(tmp_path, train="dialogues.jsonl", source="dialogue", target="summary"))

    assert records.train[0].source == "Rephrase.\n\nyou oaf"
    assert records.train[0].references == ("you",)
    assert dialogues.train[0].references == ("A greets.", "A says hi.")


def test_a_table_and_json_lines_give_the_same_rows(tmp_path: Path) -> None:
    rows = [{"q": f"source, {number}", "a": f'a "target"\nof {number}'} for number in range(40)]
    write(tmp_path, *rows)
    with (tmp_path / "rows.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["q", "a"])
        writer.writeheader()
        writer.writerows(rows)

    lines, table = (load_corpus(settings(tmp_path, train=name)) for name in ("rows.jsonl", "rows.csv"))

    assert [row.source for row in lines.train] == [row.source for row in table.train]
    assert [row.references for row in lines.train] == [row.references for row in table.train]


@pytest.mark.parametrize("streaming", [False, True])
def test_without_a_dev_file_a_twentieth_is_held_out(tmp_path: Path, streaming: bool) -> None:
    write(tmp_path, *({"q": f"source {number}", "a": "target"} for number in range(100)))

    corpus = load_corpus(settings(tmp_path, streaming=streaming))

    numbers = [[row.number for row in rows] for rows in (corpus.train, corpus.dev)]
    assert len(numbers[1]) == 5
    assert sorted(numbers[0] + numbers[1]) == list(range(1, 101))


@pytest.mark.parametrize("streaming", [False, True])
def test_bounds_copies_and_shares_hold_wherever_the_rows_are(tmp_path: Path, streaming: bool) -> None:
    write(
        tmp_path,
        {"q": "ab", "a": "x"},
        {"q": "long enough", "a": ["Long enough!", "y"]},
        {"q": "a copy", "a": "A copy."},
        *({"q": f"source {number}", "a": "z"} for number in range(8)),
    )
    write(tmp_path, {"q": "source", "a": "z"}, name="dev.jsonl")

    rows = load_corpus(
        settings(tmp_path, dev="dev.jsonl", streaming=streaming, min_characters=3, max_characters=20)
    ).train

    assert isinstance(rows, FileRows) is streaming
    assert [row.number for row in rows] == [2, *range(4, 12)]
    assert rows[0].references == ("y",)
    half = load_corpus(settings(tmp_path, dev="dev.jsonl", streaming=streaming, share=0.5)).train
    assert len(half) == 5


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_that_are_their_own_rewrite_are_kept_if_that_is_wanted(tmp_path: Path, streaming: bool) -> None:
    write(tmp_path, {"q": "a copy", "a": "a copy"}, {"q": "source", "a": "target"})
    write(tmp_path, {"q": "source", "a": "z"}, name="dev.jsonl")

    kept = load_corpus(settings(tmp_path, dev="dev.jsonl", streaming=streaming, keep_copies=True)).train

    assert [row.references for row in kept] == [("a copy",), ("target",)]


def test_rows_on_disk_train_as_rows_in_memory_do_to_the_bit(bases: dict[str, Path], tmp_path: Path) -> None:
    kept = small_run("t5", bases["t5"], tmp_path, dev="")
    streamed = replace(kept, streaming=True, out=str(tmp_path / "streamed"))

    sft.run(kept)
    sft.run(streamed)

    states = [torch.load(Path(each.out) / FILENAME, weights_only=True) for each in (kept, streamed)]
    torch.testing.assert_close(states[0]["weights"], states[1]["weights"], atol=0, rtol=0)
    assert states[0]["fingerprint"] == states[1]["fingerprint"]
    assert len(swapped()) == 8


def test_rows_on_disk_take_a_few_bytes_each(tmp_path: Path) -> None:
    rows, size = 400, 5000
    write(tmp_path, *({"q": f"{number} {'source ' * (size // 7)}", "a": "target"} for number in range(rows)))
    wanted = settings(tmp_path, streaming=True)
    load_corpus(wanted)  # what is imported and cached once does not count

    tracemalloc.start()
    corpus = load_corpus(wanted)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(corpus.train) == 380
    assert held < 20 * size + 200 * rows  # dev is in memory; train would take rows * size


def test_a_file_that_changes_under_a_run_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, *({"q": f"source {number}", "a": "target"} for number in range(20)))
    rows = load_corpus(settings(tmp_path, streaming=True)).train

    (tmp_path / "rows.jsonl").write_text('{"q": "target", "a": "target"}\n' * 20)

    with pytest.raises(TrainingRowError):
        list(rows)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"q": "zebra"}, "row 2: missing field a"),
        ({"q": "zebra", "a": " "}, "row 2: reference 1 of field a is empty"),
        ({"q": "", "a": "zebra"}, "row 2: field q must be a text, not empty"),
        ({"q": "zebra", "a": []}, "row 2: field a must be a text, or a list"),
    ],
)
def test_a_bad_row_is_an_error_with_file_and_number(
    tmp_path: Path, bad: dict[str, Any], said: str, streaming: bool
) -> None:
    write(tmp_path, {"q": "fine", "a": "well"}, bad)

    with pytest.raises(TrainingRowError, match=rf"rows\.jsonl {said}") as caught:
        load_corpus(settings(tmp_path, streaming=streaming))
    assert "zebra" not in str(caught.value)


def test_data_that_is_nowhere_is_an_error_that_says_how_to_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GUARDRAIL_DATA", raising=False)
    with pytest.raises(UsageError, match="--data or GUARDRAIL_DATA; the hub has ParaDetox alone"):
        load_corpus(replace(settings(tmp_path), data=None))
    with pytest.raises(UsageError, match="streaming reads a file"):
        load_corpus(replace(settings(tmp_path), data=None, streaming=True))
    with pytest.raises(TrainingRowError, match="not found"):
        load_corpus(settings(tmp_path))


def test_the_last_fifth_is_held_out_without_shuffling(tmp_path: Path) -> None:
    write(tmp_path, *({"q": f"question {number}", "a": f"answer {number}"} for number in range(10)))

    last = load_corpus(settings(tmp_path, held_out=0.2, split="last"))
    drawn = load_corpus(settings(tmp_path, held_out=0.2))

    assert [row.number for row in last.train] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [row.number for row in last.dev] == [9, 10]
    assert len(drawn.dev) == 2
    assert {row.number for row in drawn.train} | {row.number for row in drawn.dev} == set(range(1, 11))
