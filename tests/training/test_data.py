from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail.errors import UsageError
from guardrail_training.data import (
    SourceColumns,
    SourceRow,
    bucketed_batches,
    draw_reference,
    drop_copies,
    load_paradetox,
    read_rows,
    share_indices,
)
from guardrail_training.records import TrainingRowError

SECRET = "zebra"


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "train.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def rows_with(*counts: int) -> list[SourceRow]:
    return [
        SourceRow(
            number=number, source=f"toxic {number}", references=tuple(f"{number}.{n}" for n in range(count))
        )
        for number, count in enumerate(counts, 1)
    ]


def test_rows_come_back_in_order_without_surrounding_white_space(tmp_path: Path) -> None:
    path = written(tmp_path, {"toxic": " a ", "neutral": ["b\n", "c"]}, {"toxic": "d", "neutral": ["e"]})

    assert read_rows(path) == [
        SourceRow(number=1, source="a", references=("b", "c")),
        SourceRow(number=2, source="d", references=("e",)),
    ]


def test_columns_may_be_paths_into_rows(tmp_path: Path) -> None:
    path = written(tmp_path, {"turns": [{"text": "a"}], "answer": {"text": "b"}})

    columns = SourceColumns(source="turns.0.text", target="answer.text")
    assert read_rows(path, columns=columns) == [SourceRow(number=1, source="a", references=("b",))]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"toxic": SECRET}, "missing field neutral"),
        ({"neutral": [SECRET]}, "missing field toxic"),
        ({"toxic": "  ", "neutral": [SECRET]}, "field toxic"),
        ({"toxic": 7, "neutral": [SECRET]}, "field toxic"),
        ({"toxic": SECRET, "neutral": []}, "at least one reference"),
        ({"toxic": SECRET, "neutral": 7}, "must be a text, or a list"),
        ({"toxic": SECRET, "neutral": [SECRET, " "]}, "reference 2 of field neutral is empty"),
        ([SECRET], "expected a JSON object"),
    ],
)
def test_a_bad_row_is_an_error_with_its_number_and_without_its_text(
    tmp_path: Path, bad: Any, said: str
) -> None:
    path = written(tmp_path, {"toxic": "a", "neutral": ["b"]}, bad)

    with pytest.raises(TrainingRowError, match="row 2: ") as caught:
        read_rows(path)

    assert said in str(caught.value)
    assert SECRET not in str(caught.value)


def test_broken_json_keeps_its_text_out_of_the_whole_traceback(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(f'{{"toxic": "{SECRET}"', encoding="utf-8")

    with pytest.raises(TrainingRowError, match=r"row 1: not JSON: .* at character") as caught:
        read_rows(path)

    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_missing_or_empty_file_is_an_error_that_says_where_data_comes_from(tmp_path: Path) -> None:
    with pytest.raises(TrainingRowError, match="GUARDRAIL_DATA"):
        read_rows(tmp_path / "nothing.jsonl")
    with pytest.raises(TrainingRowError, match="holds no rows"):
        read_rows(written(tmp_path))


def test_the_folder_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "paradetox").mkdir()
    written(tmp_path / "paradetox", {"toxic": "a", "neutral": ["b"]})
    monkeypatch.setenv("GUARDRAIL_DATA", str(tmp_path))

    assert [row.source for row in load_paradetox(None, split="train")] == ["a"]


def test_references_that_copy_their_source_are_dropped_and_rows_left_without_one_too() -> None:
    rows = [
        SourceRow(number=1, source="what a mess !", references=("What a mess.", "it is untidy")),
        SourceRow(number=2, source="fine", references=("Fine!",)),
    ]

    assert drop_copies(rows) == [SourceRow(number=1, source="what a mess !", references=("it is untidy",))]


@given(counts=st.lists(st.integers(1, 4), min_size=1, max_size=8), seed=st.integers(0, 9))
def test_passes_draw_every_reference_of_a_row_before_one_comes_again(counts: list[int], seed: int) -> None:
    rows = rows_with(*counts)

    for row in rows:
        drawn = [draw_reference(row, seed=seed, pass_index=n) for n in range(max(counts))]
        assert {pair.target for pair in drawn[: len(row.references)]} == set(row.references)
        assert all(pair.source == row.source for pair in drawn)


@given(
    lengths=st.lists(st.integers(1, 90), max_size=200),
    batch_size=st.integers(1, 16),
    seed=st.integers(0, 5),
)
def test_every_index_is_in_exactly_one_batch(lengths: list[int], batch_size: int, seed: int) -> None:
    batches = bucketed_batches(lengths, batch_size=batch_size, seed=seed, pass_index=0)

    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    assert batches == bucketed_batches(lengths, batch_size=batch_size, seed=seed, pass_index=0)


def test_batches_hold_similar_lengths_in_an_order_that_changes_with_the_pass() -> None:
    lengths = [10 + 7 * index % 60 for index in range(1600)]

    batches = bucketed_batches(lengths, batch_size=16, seed=0, pass_index=0)

    padded = sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    assert padded < 1.05 * sum(lengths)
    longest = [max(lengths[i] for i in batch) for batch in batches]
    assert longest != sorted(longest)
    assert batches != bucketed_batches(lengths, batch_size=16, seed=0, pass_index=1)


def test_a_share_is_a_seeded_sample_in_order() -> None:
    half = share_indices(100, 0.5, seed=1)

    assert len(set(half)) == 50
    assert list(half) == sorted(half)
    assert half == share_indices(100, 0.5, seed=1) != share_indices(100, 0.5, seed=2)
    assert list(share_indices(100, 1.0, seed=1)) == list(range(100))


@pytest.mark.parametrize("share", [0.0, -1.0, 1.1])
def test_a_share_outside_0_to_1_is_an_error(share: float) -> None:
    with pytest.raises(UsageError, match="share"):
        share_indices(1, share, seed=0)
