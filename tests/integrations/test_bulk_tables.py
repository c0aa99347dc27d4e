"""Parquet and Arrow: only texts change, groups are streamed, no interruption loses or repeats a row."""

from __future__ import annotations

import functools
import io
import json
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from guardrail import Verdict
from guardrail.errors import MissingExtraError, UsageError
from guardrail.integrations.cli import app
from guardrail.integrations.rows.job import Job
from guardrail.integrations.rows.tables import TableRows
from tests.fakes import WordGuard
from tests.integrations.test_bulk import CLEAN, MENDED, TOXIC, guard, kill_after, start_worker
from tests.waiting import PATIENCE

KINDS = ["parquet", "arrow", "arrows"]
Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command with a guard whose models are small functions."""
    monkeypatch.setattr("guardrail.guard.Guard", WordGuard)
    return functools.partial(CliRunner().invoke, app)


def as_bytes(table: pa.Table, kind: str, *, group: int = 3, **options: Any) -> bytes:
    """A file of this kind, in groups of so many rows."""
    buffer = io.BytesIO()
    if kind == "parquet":
        pq.write_table(table, buffer, row_group_size=group, **options)
    else:
        new = pa.ipc.new_file if kind == "arrow" else pa.ipc.new_stream
        with new(buffer, table.schema) as writer:
            writer.write_table(table, max_chunksize=group)
    return buffer.getvalue()


def as_table(content: bytes) -> pa.Table:
    if content.startswith(b"PAR1"):
        return pq.read_table(io.BytesIO(content))
    opened = pa.ipc.open_file if content.startswith(b"ARROW1") else pa.ipc.open_stream
    return opened(io.BytesIO(content)).read_all()


def filtered(folder: Path, content: bytes, *, kind: str = "parquet", **options: Any) -> pa.Table:
    """What comes out of a file with this content."""
    source, target = folder / f"in.{kind}", folder / f"out.{kind}"
    source.write_bytes(content)
    Job(source=source, target=target, **{"overwrite": True, **options}).run(guard())
    return as_table(target.read_bytes())


def bad_rows(folder: Path, kind: str = "parquet") -> list[dict[str, Any]]:
    path = folder / f"out.{kind}.bad.jsonl"
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def many_types() -> pa.Table:
    """Texts at every kind of place, beside values that are easily changed on the way."""
    comments = pa.large_list(pa.struct([("body", pa.large_string()), ("n", pa.int8())]))
    columns = {
        "text": pa.array([CLEAN, TOXIC, TOXIC, CLEAN]),
        "payload": pa.array(
            [{"text": TOXIC, "x": None}, {"text": CLEAN, "x": 0.1}, {"text": TOXIC}, {"text": ""}]
        ),
        "comments": pa.array([[{"body": CLEAN, "n": 1}, {"body": TOXIC, "n": 2}]] * 4, comments),
        "pair": pa.array([["a", TOXIC], ["b", CLEAN], [None, TOXIC], ["d", "e"]], pa.list_(pa.string(), 2)),
        "category": pa.array([CLEAN, TOXIC, CLEAN, TOXIC]).dictionary_encode(),
        "view": pa.array([TOXIC, CLEAN, TOXIC, CLEAN], pa.string_view()),
        "id": pa.array([1, 2, None, 2**16 - 1], pa.uint16()),
        "tags": pa.array([[("a", 1)], [], None, [("b", None)]], pa.map_(pa.string(), pa.int32())),
        "at": pa.array([1, 2, None, 3], pa.timestamp("ns", "Europe/Berlin")),
        "raw": pa.array([b"\xff\x00", b"", None, b"x"], pa.large_binary()),
        "none": pa.nulls(4),
    }
    schema = pa.schema([pa.field(name, column.type) for name, column in columns.items()], {"who": "us"})
    return pa.table(columns, schema=schema)


def mended(value: Any) -> Any:
    """A value with its toxic texts mended."""
    return json.loads(json.dumps(value).replace(TOXIC, MENDED))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("field", ["text", "payload.text", "comments.1.body", "pair.1", "category", "view"])
def test_only_the_text_of_toxic_rows_changes_and_the_schema_stays(
    tmp_path: Path, kind: str, field: str
) -> None:
    table = many_types()
    if kind != "parquet":
        table = table.set_column(4, "category", table["category"].cast(pa.string()))
    content = as_bytes(table, kind)
    before, after = as_table(content), filtered(tmp_path, content, kind=kind, field=field)
    assert after.schema.equals(before.schema, check_metadata=True)
    after.validate(full=True)
    changed = field.split(".")[0]
    for name in table.column_names:
        old, new = before[name].to_pylist(), after[name].to_pylist()
        assert new == (mended(old) if name == changed else old), name
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"in.{kind}", f"out.{kind}"]


def test_row_groups_and_codecs_stay(tmp_path: Path) -> None:
    table = many_types().select(["text", "id", "comments"])
    codecs = {"text": "zstd", "id": "none", "comments.list.element.body": "gzip"}
    filtered(tmp_path, as_bytes(table, "parquet", group=3, compression=codecs))
    old, new = (pq.read_metadata(tmp_path / name) for name in ("in.parquet", "out.parquet"))
    for metadata in (old, new):
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        assert [group.num_rows for group in groups] == [3, 1]
        columns = [groups[0].column(index).compression for index in range(metadata.num_columns)]
        assert columns == ["ZSTD", "UNCOMPRESSED", "GZIP", "UNCOMPRESSED"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_without_rows_comes_out_as_it_was(tmp_path: Path, kind: str) -> None:
    empty = pa.table({"text": pa.array([], pa.string())})
    assert filtered(tmp_path, as_bytes(empty, kind), kind=kind).equals(empty)


def test_timestamps_beyond_nanoseconds_survive(tmp_path: Path) -> None:
    last = datetime(9999, 12, 31, 23, 59, 59)
    table = pa.table({"text": [TOXIC], "until": pa.array([last], pa.timestamp("us"))})
    options = {"use_deprecated_int96_timestamps": True, "store_schema": False}  # as Spark writes them
    after = filtered(tmp_path, as_bytes(table, "parquet", **options))
    assert after.to_pylist() == [{"text": MENDED, "until": last}]


cells = st.text(st.characters(codec="utf-8"), max_size=8) | st.sampled_from([TOXIC, f"a. {TOXIC}", CLEAN])
rows = st.fixed_dictionaries(
    {
        "text": st.none() | cells,
        "number": st.none() | st.integers(-(2**63), 2**63 - 1),
        "real": st.none() | st.floats(allow_nan=False),
        "raw": st.none() | st.binary(max_size=4),
        "deep": st.none()
        | st.lists(st.none() | st.fixed_dictionaries({"body": st.none() | cells}), max_size=3),
    }
)
SCHEMA = pa.schema(
    [
        ("text", pa.string()),
        ("number", pa.int64()),
        ("real", pa.float64()),
        ("raw", pa.binary()),
        ("deep", pa.list_(pa.struct([("body", pa.string())]))),
    ]
)


@settings(max_examples=12, deadline=None)
@given(
    content=st.lists(rows, max_size=7),
    kind=st.sampled_from(KINDS),
    group=st.integers(1, 4),
    field=st.sampled_from(["text", "deep.1.body"]),
)
def test_every_row_comes_out_equal_but_for_its_text_or_is_set_aside(
    tmp_path_factory: pytest.TempPathFactory, content: list[dict[str, Any]], kind: str, group: int, field: str
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    source = as_bytes(pa.Table.from_pylist(content, SCHEMA), kind, group=group)
    out = filtered(folder, source, kind=kind, field=field).to_pylist()

    def holder(row: dict[str, Any]) -> dict[str, Any]:
        return row if field == "text" else ((row["deep"] or []) + [None, None])[1] or {}

    good = [row for row in content if (holder(row).get(field.split(".")[-1])) is not None]
    name = field.split(".")[-1]
    outcomes = guard().check_many([holder(row)[name] for row in good])
    for row, outcome in zip(good, outcomes, strict=True):
        holder(row)[name] = outcome.text
    assert out == good
    if len(good) < len(content):
        assert len(bad_rows(folder, kind)) == len(content) - len(good)


def test_a_row_without_text_goes_to_a_file_of_its_own_with_the_reason(tmp_path: Path) -> None:
    broken = pa.array([b"fine", b"\xff moron", None, b"good"]).view(pa.string())
    out = filtered(tmp_path, as_bytes(pa.table({"n": [0, 1, 2, 3], "text": broken}), "parquet"))
    assert out.to_pylist() == [{"n": 0, "text": "fine"}, {"n": 3, "text": "good"}]
    bytes_row, null_row = bad_rows(tmp_path)
    assert (bytes_row["line"], null_row["line"]) == (2, 3)
    assert bytes_row["error"] == "the text is not UTF-8 at byte 0"
    assert null_row["error"] == "no text: 'text' is null or missing"
    assert json.loads(null_row["source"]) == {"n": 2, "text": None}


@pytest.mark.parametrize("kind", KINDS)
def test_lists_in_lists_may_be_empty(tmp_path: Path, kind: str) -> None:
    lists = pa.list_(pa.list_(pa.string()))
    for content, out in [([[], None, [[]], [None]], []), ([[[], [TOXIC]], [[CLEAN], [TOXIC]]], 2 * [MENDED])]:
        table = pa.table({"text": pa.array(content, lists)})
        after = filtered(tmp_path, as_bytes(table, kind), kind=kind, field="text.1.0")
        assert [row["text"][1][0] for row in after.to_pylist()] == out


def test_what_was_done_goes_into_a_column_on_request(tmp_path: Path) -> None:
    table = pa.table({"text": [TOXIC, None, CLEAN]})
    toxic, clean = filtered(tmp_path, as_bytes(table, "parquet"), into="guard").to_pylist()
    assert toxic["guard"] == {"action": "rewritten", "degraded": [], "scores": [("toxicity", 0.9)]}
    assert (clean["text"], clean["guard"]["action"]) == (CLEAN, "passed")


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("body", "no column 'body': there are 'text', 'payload'"),
        ("id", "column 'id' is of type uint16"),
        ("payload.body", "column 'payload' has no 'body' in it"),
        ("comments.body", "column 'comments' has no 'body' in it"),
        ("payload", "column 'payload' is of type struct"),
        ("a.b", "'a.b' appears 2 times: as a column and as a path"),
    ],
)
def test_a_column_that_holds_no_text_is_an_error_at_once(tmp_path: Path, field: str, reason: str) -> None:
    table = many_types().append_column("a.b", [["x"] * 4]).append_column("a", [[{"b": "y"}] * 4])
    with pytest.raises(UsageError, match=reason):
        filtered(tmp_path, as_bytes(table, "parquet"), field=field)
    assert [path.name for path in tmp_path.iterdir()] == ["in.parquet"], "no empty files are left"


def test_a_file_that_is_no_table_is_an_error_in_one_line(tmp_path: Path) -> None:
    whole = as_bytes(many_types(), "parquet")
    for content in (b"", b'{"text": "x"}\n', whole[:-9]):
        with pytest.raises(UsageError, match="cannot be read as Parquet: it is truncated, damaged"):
            filtered(tmp_path, content)
    with pytest.raises(UsageError, match="cannot be read as Arrow"):
        filtered(tmp_path, whole, kind="arrow")
    with pytest.raises(UsageError, match="dictionary-encoded: cast it to string, or write Parquet"):
        filtered(tmp_path, as_bytes(many_types(), "arrow"), kind="arrow", field="category")


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("in.parquet", "out.jsonl", "OUT is of the same kind as IN, parquet"),
        ("in.jsonl", "out.parquet", "OUT is of the same kind as IN, jsonl"),
        ("in.parquet", "out.parquet.gz", "a table's columns are compressed in it"),
    ],
)
def test_an_output_of_another_kind_is_refused(tmp_path: Path, source: str, target: str, reason: str) -> None:
    (tmp_path / source).write_bytes(as_bytes(many_types(), "parquet"))
    with pytest.raises(UsageError, match=reason):
        Job(source=tmp_path / source, target=tmp_path / target).run(guard())


# ---- interruption


def write_table_of_rows(path: Path, count: int) -> list[dict[str, Any]]:
    """A file with clean, toxic and missing texts; the rows that are to come out."""
    texts = [None if n % 11 == 5 else f"{TOXIC} {n}" if n % 3 == 0 else CLEAN for n in range(count)]
    table = pa.table({"n": list(range(count)), "text": texts})
    path.write_bytes(as_bytes(table, path.suffix[1:], group=50))
    return [row for row in mended(table.to_pylist()) if row["text"] is not None]


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_a_job_that_is_killed_loses_and_repeats_nothing(tmp_path: Path, kind: str) -> None:
    source, target = tmp_path / f"in.{kind}", tmp_path / f"out.{kind}"
    expected = write_table_of_rows(source, 200)
    kill_after(start_worker(source, target, checkpoint=0.0, last=160), 90)
    assert not target.exists(), "a table is there once it is complete"
    last = start_worker(source, target, checkpoint=0.0)
    told, _ = last.communicate(timeout=PATIENCE)
    assert last.returncode == 0
    assert int(told.split()[-1]) > 0, "it went on where the journal said"
    assert as_table(target.read_bytes()).to_pylist() == expected
    assert [row["line"] for row in bad_rows(tmp_path, kind)] == [n + 1 for n in range(200) if n % 11 == 5]
    names = {f"in.{kind}", f"out.{kind}", f"out.{kind}.bad.jsonl"}
    assert {path.name for path in tmp_path.iterdir()} == names, "nothing is left of a job that is done"


def test_a_job_that_stops_while_the_table_is_written_leaves_the_earlier_one_and_judges_nothing_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    expected = write_table_of_rows(source, 60)
    target.write_bytes(b"earlier work")

    def stop(self: TableRows, rows: object, out: io.BytesIO, **places: object) -> None:
        out.write(b"half a table")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TableRows, "assemble", stop)
        with pytest.raises(KeyboardInterrupt):
            Job(source=source, target=target, overwrite=True).run(guard())
    assert target.read_bytes() == b"earlier work"
    assert not list(tmp_path.glob("*.new"))
    target.unlink()
    summary = Job(source=source, target=target).run(guard())
    assert summary.resumed == 60
    assert as_table(target.read_bytes()).to_pylist() == expected
    with pytest.raises(UsageError, match="already exists"):
        Job(source=source, target=target).run(guard())


# ---- memory


def polite(texts: Sequence[str]) -> list[Verdict]:
    return [Verdict({"rude": 0.0}, flagged=False, spans=[]) for _ in texts]


def test_memory_does_not_grow_with_the_number_of_row_groups(tmp_path: Path) -> None:
    table = pa.table({"text": [f"{number} " * 500 for number in range(400)]})
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"

    def peak(groups: int) -> int:
        with pq.ParquetWriter(source, table.schema, compression="none", use_dictionary=False) as writer:
            for _ in range(groups):
                writer.write_table(table)
        outer = pa.default_memory_pool()
        counted = pa.proxy_memory_pool(outer)
        pa.set_memory_pool(counted)
        try:
            job = Job(source=source, target=target, scores_only=True, overwrite=True)
            summary = job.run(guard(detector=polite))
        finally:
            pa.set_memory_pool(outer)
        assert summary.counts.judged == groups * table.num_rows
        return int(counted.max_memory())

    few = peak(4)
    assert few > table.nbytes, "it is Arrow's memory that is counted"
    assert peak(24) < 1.3 * few


def test_one_huge_row_group_is_written_as_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guardrail.integrations.rows.table_files.GROUP_BYTES", 20_000)
    monkeypatch.setattr("guardrail.integrations.rows.table_files.PORTION_ROWS", 10)
    table = pa.table({"text": ["a long text " * 100] * 80})
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    source.write_bytes(as_bytes(table, "parquet", group=80))
    Job(source=source, target=target, scores_only=True, batch=7).run(guard(detector=polite))
    assert pq.read_metadata(target).num_row_groups == 4
    assert pq.read_table(target, columns=["text"]).equals(table)


# ---- the commands


@pytest.mark.parametrize("kind", KINDS)
def test_the_commands_work_in_a_pipe(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    content = as_bytes(pa.table({"text": [TOXIC, CLEAN]}), kind)
    options = ["--format", kind.removesuffix("s")]
    result = run(["filter", "-", "-", *options], input=content)
    assert result.exit_code == 0
    assert as_table(result.stdout_bytes).to_pylist() == [{"text": MENDED}, {"text": CLEAN}]
    result = run(["detect", "-", "-", *options], input=content)
    assert [row["verdict"]["flagged"] for row in as_table(result.stdout_bytes).to_pylist()] == [True, False]
    assert list(tmp_path.iterdir()) == []


def test_detect_adds_a_column_of_verdicts(run: Run, tmp_path: Path) -> None:
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    table = many_types().set_column(0, "text", pa.array([CLEAN, TOXIC, None, CLEAN]))
    source.write_bytes(as_bytes(table, "parquet"))
    result = run(["detect", str(source), str(target), "--batch", "2"])
    assert result.exit_code == 1
    assert "3 rows judged, 1 flagged\n1 row could not be judged: see" in result.stderr
    out = pq.read_table(target)
    before = as_table(source.read_bytes()).to_pylist()
    assert out.select(table.column_names).to_pylist() == [*before[:2], before[3]]
    _, toxic, _ = out["verdict"].to_pylist()
    assert list(toxic) == ["scores", "flagged", "spans", "unsupported"]
    assert (toxic["flagged"], toxic["scores"], toxic["unsupported"]) == (True, [("toxicity", 0.9)], False)
    assert toxic["spans"] == [[TOXIC.index("moron"), TOXIC.index("moron") + 5]]
    (missing,) = bad_rows(tmp_path)
    assert (missing["line"], missing["error"]) == (3, "no text: 'text' is null or missing")
    again = run(["detect", str(target), str(tmp_path / "more.parquet")])
    assert (again.exit_code, "there is a column 'verdict' already" in again.stderr) == (2, True)
    nested = run(["detect", str(source), str(target), "--field", "payload.text", "--overwrite"])
    assert "4 rows judged, 2 flagged" in nested.stderr


def test_a_terminal_sees_how_many_rows_of_a_table_are_done(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    write_table_of_rows(tmp_path / "in.parquet", 20)
    shown = run(["filter", str(tmp_path / "in.parquet"), str(tmp_path / "out.parquet")]).stderr
    assert "100%" in shown


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("guardrail.integrations.rows.table")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "in.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingExtraError, match=r"detox-guardrail\[parquet\]"):
        Job(source=tmp_path / "in.parquet", target=tmp_path / "out.parquet").run(guard())
