from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guardrail_training.records import RecordFile, TrainingRowError, read_records

SECRET = "zebra"
CELLS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\r"), max_size=8)


def written(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8", newline="")
    return path


@given(
    rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=6), suffix=st.sampled_from([".csv", ".tsv"])
)
def test_a_table_comes_back_whole_and_row_by_row(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], suffix: str
) -> None:
    path = tmp_path_factory.mktemp("table") / f"rows{suffix}"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="," if suffix == ".csv" else "\t")
        writer.writerows([("source", "target"), *rows])

    file = RecordFile(path)
    found = list(file.scan())

    assert [(record["source"], record["target"]) for _, record in found] == rows
    assert [record.number for _, record in found] == list(range(2, len(rows) + 2))
    backwards = found[::-1]
    assert list(file.read(place for place, _ in backwards)) == [record for _, record in backwards]


@given(texts=st.lists(CELLS, min_size=1, max_size=6))
def test_json_lines_come_back_whole_and_row_by_row(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    lines = "\n\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts)
    path = written(tmp_path_factory.mktemp("lines"), "rows.jsonl", lines)

    file = RecordFile(path)
    found = list(file.scan())

    assert [record["text"] for _, record in found] == texts
    assert [record.number for _, record in found] == list(range(1, 2 * len(texts), 2))
    backwards = found[::-1]
    assert list(file.read(place for place, _ in backwards)) == [record for _, record in backwards]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"\xef\xbb\xbfsource,target\na,b\n")

    assert [dict(record.content) for record in read_records(path)] == [{"source": "a", "target": "b"}]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("rows.csv", f"a,b\n1,2\n{SECRET}\n", "row 3: 1 columns, and the header has 2"),
        ("rows.csv", f'a,b\n"{SECRET}', "row 2: unterminated quoted field: 1 lines"),
        ("rows.csv", f"a,a\n{SECRET},2\n", "two columns have the same name"),
        ("rows.csv", "a,b\n", "holds no rows"),
        ("rows.csv", "", "holds no rows"),
        ("rows.jsonl", f'{{"a": "{SECRET}"', "row 1: not JSON: .* at character"),
        ("rows.jsonl", f'"{SECRET}"', "row 1: expected a JSON object, got str"),
    ],
)
def test_a_broken_file_is_an_error_with_its_row_and_without_its_text(
    tmp_path: Path, name: str, content: str, said: str
) -> None:
    with pytest.raises(TrainingRowError, match=said) as caught:
        read_records(written(tmp_path, name, content))

    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_bytes_that_are_no_utf8_are_an_error_with_their_row(tmp_path: Path) -> None:
    for name, first in (("rows.csv", b"a,b\n"), ("rows.jsonl", b'{"a": 1}\n')):
        path = tmp_path / name
        path.write_bytes(first + b"zebra \xff,1\n")
        with pytest.raises(TrainingRowError, match=r"row 2: not UTF-8 at byte 6"):
            read_records(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", "sep=;\r\na;b\r\n1;2,3\r\n"),
        ("rows.csv", "a|b\n1|2,3\n"),
        ("rows.tsv", "a\tb\n1\t2,3\n"),
    ],
)
def test_the_delimiter_of_a_table_is_detected(tmp_path: Path, name: str, content: str) -> None:
    (record,) = read_records(written(tmp_path, name, content))

    assert (record.number, record.content) == (2, {"a": "1", "b": "2,3"})


def test_a_field_may_be_asked_for_by_a_path(tmp_path: Path) -> None:
    path = written(tmp_path, "rows.jsonl", '{"turns": [{"text": "a"}], "x.y": "b"}\n{"turns": []}\n')

    first = read_records(path)[0]
    assert (first["turns.0.text"], first["x.y"]) == ("a", "b")
    with pytest.raises(TrainingRowError, match=r"row 2: missing field 'turns\.0\.text'"):
        read_records(path, fields={"turns.0.text": str})


def test_what_was_unpacked_is_removed_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "unpacked").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "unpacked"))
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n{"a": 2}\n'))

    file = RecordFile(path)
    places = [place for place, _ in file.scan()]
    assert [record["a"] for record in file.read(reversed(places))] == [2, 1]
    del file
    assert list((tmp_path / "unpacked").iterdir()) == []
