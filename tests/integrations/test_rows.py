"""One reader of rows: every command and every format sees the same rows, and refuses the same files."""

from __future__ import annotations

import csv
import functools
import gzip
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from guardrail import UsageError, Verdict
from guardrail.integrations.cli import app
from guardrail.integrations.rows.job import Job, Summary
from guardrail.outcome.rows import verdict_row
from tests.fakes import WordDetector, WordGuard
from tests.integrations.test_bulk import (
    CLEAN,
    MENDED,
    TOXIC,
    bad_rows,
    filtered,
    guard,
    kill_after,
    many_rows,
    start_worker,
)
from tests.waiting import PATIENCE

NAMES = ["rows.jsonl", "rows.csv", "rows.tsv", "rows.parquet", "rows.arrow", "rows.jsonl.gz", "rows.csv.zst"]
Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command with a guard whose models are small functions."""
    monkeypatch.setattr("guardrail.guard.Guard", WordGuard)
    return functools.partial(CliRunner().invoke, app)


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """A file of the format that its name says."""
    inner = path.with_suffix("") if path.suffix in (".gz", ".zst") else path
    if inner.suffix == ".jsonl":
        content = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    elif inner.suffix in (".csv", ".tsv"):
        buffer = io.StringIO(newline="")
        delimiter = "\t" if inner.suffix == ".tsv" else ","
        writer = csv.DictWriter(buffer, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
        content = buffer.getvalue().encode()
    else:
        table, sink = pa.Table.from_pylist(list(rows)), io.BytesIO()
        if inner.suffix == ".parquet":
            pq.write_table(table, sink, row_group_size=2)
        else:
            with pa.ipc.new_file(sink, table.schema) as out:
                out.write_table(table)
        content = sink.getvalue()
    if path.suffix == ".gz":
        content = gzip.compress(content, mtime=0)
    if path.suffix == ".zst":
        content = zstandard.ZstdCompressor().compress(content)
    path.write_bytes(content)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of such a file, by other readers than the package's."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        content, path = gzip.decompress(content), path.with_suffix("")
    if path.suffix == ".zst":
        content, path = zstandard.ZstdDecompressor().decompress(content, 1 << 24), path.with_suffix("")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in content.splitlines()]
    if path.suffix in (".csv", ".tsv"):
        delimiter = "\t" if path.suffix == ".tsv" else ","
        return list(csv.DictReader(io.StringIO(content.decode(), newline=""), delimiter=delimiter))
    table = pq.read_table(io.BytesIO(content)) if path.suffix == ".parquet" else pa.ipc.open_file(content)
    return list((table if path.suffix == ".parquet" else table.read_all()).to_pylist())


def scored(source: Path, **options: Any) -> tuple[Path, Summary]:
    """The output of ``guardrail detect`` and its summary."""
    target = source.with_name(f"out-{source.name}")
    job = Job(source=source, target=target, **{"scores_only": True, "overwrite": True, **options})
    return target, job.run(guard())


def verdict_in(row: dict[str, Any]) -> dict[str, Any]:
    """The verdict of a row, as JSON has it."""
    if "verdict" not in row:
        return {
            key.removeprefix("verdict_"): json.loads(value)
            for key, value in row.items()
            if key.startswith("verdict_")
        }
    return {**row["verdict"], "scores": dict(row["verdict"]["scores"])}


# ---- every format


@pytest.mark.parametrize("name", NAMES)
def test_detect_and_filter_give_the_same_rows_in_every_format(tmp_path: Path, name: str) -> None:
    texts = [CLEAN, TOXIC, f'quoted "{TOXIC}", twice', "two\nlines", ""]
    rows = [{"id": str(number), "text": text} for number, text in enumerate(texts)]
    source = write(tmp_path / name, rows)

    target, summary = scored(source)
    out = read(target)
    assert [{key: row[key] for key in ("id", "text")} for row in out] == rows
    assert [verdict_in(row) for row in out] == [verdict_row(verdict) for verdict in guard().detect(texts)]
    assert summary.counts.actions == {"flagged": 2, "clean": 3}

    cleaned = tmp_path / f"clean-{name}"
    Job(source=source, target=cleaned).run(guard())
    assert [row["text"] for row in read(cleaned)] == [outcome.text for outcome in guard().check_many(texts)]


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=8) | st.just(TOXIC)


@settings(max_examples=15, deadline=None)
@given(texts=st.lists(cells, min_size=1, max_size=5), name=st.sampled_from(NAMES))
def test_training_reads_what_detect_reads(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], name: str
) -> None:
    from guardrail_training.records import RecordFile

    rows = [{"id": str(number), "text": text} for number, text in enumerate(texts)]
    source = write(tmp_path_factory.mktemp("rows") / name, rows)
    target, _ = scored(source)
    found = list(RecordFile(source).scan())
    assert [record.content for _, record in found] == rows
    assert [row["text"] for row in read(target)] == texts
    again = [record.content for record in RecordFile(source).read(place for place, _ in found[::-1])]
    assert again == rows[::-1]


inner = st.recursive(
    st.none() | st.sampled_from(["text", '"text"', '"text": ', TOXIC, "é"]),
    lambda values: (
        st.lists(values, max_size=2)
        | st.dictionaries(st.sampled_from(["text", "a", "b"]), values, max_size=2)
    ),
    max_leaves=5,
)


@settings(max_examples=40, deadline=None)
@given(
    before=st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
    after=st.dictionaries(st.sampled_from(["c", "d"]), inner, max_size=2),
    is_ascii=st.booleans(),
    spelling=st.sampled_from(["text", "te\\u0078t"]),
)
def test_the_field_itself_changes_wherever_else_its_name_stands_and_however_it_is_spelled(
    tmp_path_factory: pytest.TempPathFactory,
    before: dict[str, Any],
    after: dict[str, Any],
    is_ascii: bool,
    spelling: str,
) -> None:
    def line(text: str) -> str:
        pairs = [*before.items(), (None, text), *after.items()]
        cells = (
            f'"{spelling if key is None else key}": {json.dumps(value, ensure_ascii=is_ascii)}'
            for key, value in pairs
        )
        return f"{{{', '.join(cells)}}}\n"

    out = filtered(tmp_path_factory.mktemp("rows"), "in.jsonl", line(TOXIC).encode())
    assert out.decode() == line(MENDED)


def test_detect_leaves_every_byte_of_a_row_as_it_was(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    lines = ['{"n": 1.50,  "text":"TOXIC" , "u": "\\u00e9é"}\r\n', "\n", '  {"text": "CLEAN"}']
    source.write_text("".join(lines).replace("TOXIC", TOXIC).replace("CLEAN", CLEAN), newline="")
    target, _ = scored(source)
    first, blank, last = target.read_bytes().splitlines(keepends=True)
    before = source.read_bytes().splitlines(keepends=True)
    assert first.startswith(before[0].removesuffix(b"}\r\n") + b', "verdict": {"scores"')
    assert first.endswith(b"}}\r\n")
    assert blank == b"\n"
    assert last.startswith(before[2].removesuffix(b"}"))


def test_detect_adds_columns_to_csv_behind_a_spreadsheets_line(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text(f"sep=;\r\nid;text\r\n1;{TOXIC}\r\n2\r\n", newline="")
    target, summary = scored(source)
    lines = target.read_bytes().decode().split("\r\n")
    assert lines[:2] == [
        "sep=;",
        "id;text;verdict_scores;verdict_flagged;verdict_spans;verdict_unsupported",
    ]
    assert lines[2:] == [f'1;{TOXIC};"{{""toxicity"": 0.9}}";true;[[10, 15]];false', ""]
    assert summary.counts.bad == 1
    with pytest.raises(UsageError, match="a column 'verdict_scores' already"):
        scored(target)


def test_a_row_of_a_table_that_breaks_the_detector_is_set_aside_alone(tmp_path: Path) -> None:
    def breaks(texts: Sequence[str]) -> list[Verdict]:
        if any("canary" in text for text in texts):
            raise KeyError("text")
        return WordDetector().detect(texts)

    source = write(
        tmp_path / "in.parquet",
        [{"id": 0, "text": CLEAN}, {"id": 1, "text": "canary"}, {"id": 2, "text": TOXIC}],
    )
    target = tmp_path / "out.parquet"
    Job(source=source, target=target, scores_only=True).run(guard(detector=breaks))
    assert [row["id"] for row in read(target)] == [0, 2]
    (bad,) = read(tmp_path / "out.parquet.bad.jsonl")
    assert (bad["line"], "KeyError" in bad["error"]) == (2, True)


# ---- interruption


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_detect_that_is_killed_loses_and_repeats_nothing(tmp_path: Path, kind: str) -> None:
    source, _, toxic = many_rows(tmp_path, kind, 200)
    whole, summary = scored(source)
    assert summary.counts.actions["flagged"] == toxic
    target = tmp_path / f"killed.{kind}"
    kill_after(start_worker(source, target, checkpoint=0.0, last=160, scores_only=True), 90)
    with pytest.raises(UsageError, match="but its command, detector, into differed"):
        Job(source=source, target=target).run(guard())
    last = start_worker(source, target, checkpoint=0.0, scores_only=True)
    told, _ = last.communicate(timeout=PATIENCE)
    assert (last.returncode, int(told.split()[-1]) > 0) == (0, True), "it resumed where the journal said"
    assert target.read_bytes() == whole.read_bytes()
    aside = (tmp_path / f"killed.{kind}.bad.jsonl").read_bytes()
    assert aside == whole.with_name(f"{whole.name}.bad.jsonl").read_bytes()


def test_detect_does_not_overwrite_an_output_unasked(run: Run, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"text": CLEAN}])
    (tmp_path / "out.jsonl").write_bytes(b"earlier work\n")
    result = run(["detect", str(source), str(tmp_path / "out.jsonl")])
    assert (result.exit_code, "already exists" in result.stderr) == (2, True)
    assert (tmp_path / "out.jsonl").read_bytes() == b"earlier work\n"


# ---- standard input and output


@pytest.mark.parametrize("command", ["detect", "filter"])
def test_csv_goes_through_a_pipe(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run([command, "-", "-", "--format", "csv"], input=f"id,text\n1,{TOXIC}\n")
    assert result.exit_code == 0
    (row,) = csv.DictReader(io.StringIO(result.stdout))
    assert row["text"] == (MENDED if command == "filter" else TOXIC)
    assert row.get("verdict_flagged") == (None if command == "filter" else "true")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["detect", "filter"])
def test_a_format_that_nothing_names_is_asked_for(run: Run, tmp_path: Path, command: str) -> None:
    (tmp_path / "in.data").write_text("x")
    for source in ("-", str(tmp_path / "in.data")):
        result = run([command, source, str(tmp_path / "out")], input='{"text": "x"}\n')
        assert result.exit_code == 2
        name = "standard input" if source == "-" else source
        expected = f"cannot infer the format of {name}; pass --format jsonl, csv, parquet or arrow"
        assert " ".join(result.stderr.split()) == f"guardrail: {expected}"


@pytest.mark.parametrize("command", ["detect", "filter"])
def test_the_help_says_that_the_delimiter_is_detected(run: Run, command: str) -> None:
    shown = " ".join(run([command, "--help"], env={"COLUMNS": "200"}).stdout.replace("│", " ").split())
    assert "CSV delimiter [default: detected]" in shown


# ---- files that are not what they seem

REFUSED: list[tuple[str, bytes, str]] = [
    ("in.jsonl", '{"text": "x"}\n'.encode("utf-16"), "the input is UTF-16: save it as UTF-8"),
    ("in.csv", "id,text\n1,x\n".encode("utf-16"), "the input is UTF-16: save it as UTF-8"),
    ("in.csv", "sep=;\nid;text\n".encode("utf-16-le"), "iconv -f UTF-16LE -t UTF-8"),
    ("in.tsv", "id\ttext\n1\tx\n".encode("utf-16-be"), "iconv -f UTF-16BE -t UTF-8"),
    (
        "in.csv.gz",
        gzip.compress("id,text\n".encode("utf-16"), mtime=0),
        "the input is UTF-16: save it as UTF-8",
    ),
    ("in.json", b'[{"text": "x"}]', "the input is a JSON array, not JSON Lines"),
    ("in.json", b'\n  \n[\n{"text": "x"}\n]', "the input is a JSON array, not JSON Lines"),
    ("in.jsonl.gz", gzip.compress(b'[{"text": "x"}]', mtime=0), "the input is a JSON array, not JSON Lines"),
    ("in.json", b'\n{\n"text": "x"\n}', "the input is JSON over several lines"),
    ("in.jsonl", gzip.compress(b'{"text": "x"}\n', mtime=0), "let its name end in .gz"),
]


@pytest.mark.parametrize(("name", "content", "cure"), REFUSED)
def test_every_reader_refuses_a_file_of_another_format_with_the_same_cure(
    tmp_path: Path, name: str, content: bytes, cure: str
) -> None:
    from guardrail_training.records import TrainingRowError, read_records

    source = tmp_path / name
    source.write_bytes(content)
    for scores_only in (False, True):
        with pytest.raises(UsageError, match=cure):
            scored(source, scores_only=scores_only)
    with pytest.raises(TrainingRowError, match=cure) as caught:
        read_records(source)
    assert str(source) in str(caught.value)


def test_blank_lines_before_the_first_row_stay(tmp_path: Path) -> None:
    row = json.dumps({"text": TOXIC}).encode()
    content = b"\xef\xbb\xbf\n \n" + row + b"\n" + b"{\n"
    assert filtered(tmp_path, "in.jsonl", content) == content.replace(TOXIC.encode(), MENDED.encode())[:-2]
    assert bad_rows(tmp_path, "in.jsonl")[0]["line"] == 4
