from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from guardrail.errors import UsageError
from guardrail_training.records import TrainingRowError
from guardrail_training.supervised.paranmt import RecordCount, clean_punctuation, write_records

HEADER = "reference\ttranslation\tsimilarity\tlenght_diff\tref_tox\ttrn_tox\n"


def written(folder: Path, *rows: tuple[Any, ...]) -> Path:
    path = folder / "paranmt.tsv"
    lines = ["\t".join([row[0], row[1], "0.8", "0.1", str(row[2]), str(row[3])]) + "\n" for row in rows]
    path.write_text(HEADER + "".join(lines), encoding="utf-8")
    return path


def test_pairs_with_one_toxic_and_one_clean_side_become_records_whichever_side_it_is(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        ("you oaf !", "you are wrong .", 0.95, 0.1),
        ("he is late .", "that oaf is late", 0.05, 0.99),
        ("both are rude", "both are oafs", 0.95, 0.92),
        ("on the bound", "calm", 0.9, 0.1),
        ("oaf", "half calm", 0.99, 0.2),
    )

    count = write_records(path, tmp_path / "out" / "records.jsonl")

    assert count == RecordCount(written=2, read=5)
    records = [json.loads(line) for line in (tmp_path / "out" / "records.jsonl").read_text().splitlines()]
    instruction = "Rephrase with lower toxicity level."
    assert records == [
        {"instructions": instruction, "inputs": "you oaf!", "outputs": "you are wrong."},
        {"instructions": instruction, "inputs": "that oaf is late", "outputs": "he is late."},
    ]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("what 's that , do n't you see ?", "what's that, don't you see?"),
        ("( no )  way !!!", "(no) way!"),
        ("`` so '' they say ......", '"so" they say...'),
        ("it costs 5 % ; wait ...", "it costs 5%; wait..."),
        ("as it is.", "as it is."),
    ],
)
def test_punctuation_is_joined_to_its_words(text: str, clean: str) -> None:
    assert clean_punctuation(text) == clean
    assert clean_punctuation(clean) == clean


def test_bad_rows_and_bounds_are_errors_without_text_that_leave_no_file(tmp_path: Path) -> None:
    out = tmp_path / "records.jsonl"
    with pytest.raises(TrainingRowError, match="row 3: field trn_tox must be a number") as caught:
        write_records(written(tmp_path, ("zebra", "b", 0.95, 0.1), ("zebra", "d", 0.5, "high")), out)
    assert "zebra" not in str(caught.value)
    with pytest.raises(UsageError, match="no pair has one side above"):
        write_records(written(tmp_path, ("a", "b", 0.5, 0.1)), out)
    with pytest.raises(UsageError, match="most <= least"):
        write_records(tmp_path / "paranmt.tsv", out, least=0.1, most=0.2)
    (tmp_path / "paranmt.tsv").write_text("reference\ttranslation\na\tb\n")
    with pytest.raises(TrainingRowError, match="row 2: missing field ref_tox, trn_tox"):
        write_records(tmp_path / "paranmt.tsv", out)
    assert not out.exists()
