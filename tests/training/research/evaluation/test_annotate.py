from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from guardrail.errors import UsageError
from guardrail_training.evaluation.rewriting_report import SystemOutputs
from research.evaluation.annotate import QUESTIONS, agreement, key_path, write_sheet


def system(name: str, outputs: list[str], rows: list[int] | None = None) -> SystemOutputs:
    rows = rows or list(range(1, len(outputs) + 1))
    return SystemOutputs(
        name=name,
        rows=tuple(rows),
        sources=tuple(f"source {row}" for row in rows),
        references=tuple(("reference",) for _ in rows),
        outputs=tuple(outputs),
    )


FIRST = system("alpha-model", ["one", "two", "=SUM(A1)", "same"])
SECOND = system("beta-model", ["eins", "zwei", "drei", "same"])


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def fill(sheet: Path, target: Path, rate: dict[str, dict[str, int]] | None = None) -> Path:
    """A filled copy: every answer 1, but for the outputs named in ``rate``."""
    rows = read(sheet)
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=rows[0].keys())
        writer.writeheader()
        for row in rows:
            answers = dict.fromkeys(QUESTIONS, 1) | (rate or {}).get(row["output"], {})
            writer.writerow(row | {question: str(answer) for question, answer in answers.items()})
    return target


def test_a_sheet_names_no_system_and_its_key_names_them_all(tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.csv"
    key = write_sheet(sheet, [FIRST, SECOND], sentences=4, seed=1)
    assert key == key_path(sheet)
    assert "model" not in sheet.read_text(encoding="utf-8")
    origins = json.loads(key.read_text(encoding="utf-8"))["ids"]
    assert {name for entries in origins.values() for name, _ in entries} == {"alpha-model", "beta-model"}
    assert set(origins) == {row["id"] for row in read(sheet)}


def test_equal_outputs_for_one_source_are_one_row(tmp_path: Path) -> None:
    write_sheet(tmp_path / "sheet.csv", [FIRST, SECOND], sentences=4, seed=1)
    assert len(read(tmp_path / "sheet.csv")) == 7


def test_a_sheet_is_shuffled_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.csv" for name in "abc"]
    for path, seed in zip(paths, (1, 1, 2), strict=True):
        write_sheet(path, [FIRST, SECOND], sentences=4, seed=seed)
    texts = [path.read_text(encoding="utf-8") for path in paths]
    assert texts[0] == texts[1] != texts[2]
    assert [row["source"] for row in read(paths[0])] != sorted(row["source"] for row in read(paths[0]))


def test_a_text_that_a_spreadsheet_would_run_is_quoted(tmp_path: Path) -> None:
    write_sheet(tmp_path / "sheet.csv", [FIRST], sentences=4, seed=1)
    assert "'=SUM(A1)" in {row["output"] for row in read(tmp_path / "sheet.csv")}


def test_only_sentences_that_all_systems_answered_are_drawn(tmp_path: Path) -> None:
    partial = system("human", ["zwei"], rows=[2])
    write_sheet(tmp_path / "sheet.csv", [FIRST, partial], sentences=40, seed=1)
    assert {row["source"] for row in read(tmp_path / "sheet.csv")} == {"source 2"}
    with pytest.raises(UsageError, match="share 0 sentences"):
        write_sheet(tmp_path / "none.csv", [FIRST, system("far", ["x"], rows=[9])], sentences=4, seed=1)


def test_two_raters_who_agree_have_kappa_one_and_the_systems_their_means(tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.csv"
    key = write_sheet(sheet, [FIRST, SECOND], sentences=4, seed=1)
    bad = {"one": {"neutral": 0, "meaning": 0}, "drei": {"neutral": 0, "meaning": 2}}
    first, second = (fill(sheet, tmp_path / f"{name}.csv", bad) for name in "ab")
    found = agreement(first, second, key=key)
    assert found.items == 7
    assert found.kappa["neutral"] == found.kappa["meaning"] == pytest.approx(1.0)
    assert found.kappa["fluency"] is None  # both gave one answer throughout
    assert found.means["alpha-model"] == {"neutral": 0.75, "meaning": 0.75, "fluency": 1.0}
    assert found.means["beta-model"] == {"neutral": 0.75, "meaning": 1.25, "fluency": 1.0}


def test_kappa_of_two_raters_matches_the_formula(tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.csv"
    key = write_sheet(sheet, [FIRST, SECOND], sentences=4, seed=1)
    first = fill(sheet, tmp_path / "a.csv", {"one": {"neutral": 0}, "two": {"neutral": 0}})
    second = fill(sheet, tmp_path / "b.csv", {"one": {"neutral": 0}, "eins": {"neutral": 0}})
    found = agreement(first, second, key=key)
    chance = (2 / 7) * (2 / 7) + (5 / 7) * (5 / 7)
    assert found.agreed["neutral"] == pytest.approx(5 / 7)
    assert found.kappa["neutral"] == pytest.approx((5 / 7 - chance) / (1 - chance))


def test_a_wrong_answer_is_an_error_with_row_and_column_and_without_text(tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.csv"
    key = write_sheet(sheet, [FIRST], sentences=4, seed=1)
    filled = fill(sheet, tmp_path / "a.csv", {"two": {"meaning": 3}})
    row = 2 + [row["output"] for row in read(filled)].index("two")
    with pytest.raises(UsageError, match=rf"row {row}: column 'meaning' must be one of 0, 1, 2") as caught:
        agreement(filled, filled, key=key)
    assert "two" not in str(caught.value).replace(str(tmp_path), "")


def test_sheets_of_different_items_and_foreign_keys_are_errors(tmp_path: Path) -> None:
    one, other = tmp_path / "one.csv", tmp_path / "other.csv"
    write_sheet(one, [FIRST], sentences=4, seed=1)
    foreign = write_sheet(other, [SECOND], sentences=4, seed=2)
    filled = [fill(one, tmp_path / "a.csv"), fill(other, tmp_path / "b.csv")]
    with pytest.raises(UsageError, match="differ in 8 ids"):
        agreement(*filled, key=foreign)
    with pytest.raises(UsageError, match="key of another sheet"):
        agreement(filled[0], filled[0], key=foreign)


def test_a_sheet_without_columns_or_without_a_key_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "bare.csv").write_text("id,neutral\n", encoding="utf-8")
    with pytest.raises(UsageError, match="missing columns fluency, meaning"):
        agreement(tmp_path / "bare.csv", tmp_path / "bare.csv", key=tmp_path / "key.json")
    write_sheet(tmp_path / "sheet.csv", [FIRST], sentences=4, seed=1)
    filled = fill(tmp_path / "sheet.csv", tmp_path / "a.csv")
    with pytest.raises(UsageError, match="no key"):
        agreement(filled, filled, key=tmp_path / "absent.json")
