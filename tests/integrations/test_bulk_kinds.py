"""Bulk files as people have them: compressed, nested, from spreadsheets, and not what they seem."""

from __future__ import annotations

import copy
import functools
import gzip
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from guardrail.errors import MissingExtraError, UsageError
from guardrail.integrations.cli import app
from guardrail.integrations.rows.compression import compressed, decompressed
from guardrail.integrations.rows.job import Job
from tests.fakes import WordGuard
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

Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command with a guard whose models are small functions."""
    monkeypatch.setattr("guardrail.guard.Guard", WordGuard)
    return functools.partial(CliRunner().invoke, app)


def packed(content: bytes, name: str) -> bytes:
    if name.endswith(".gz"):
        return gzip.compress(content)
    return (
        zstandard.ZstdCompressor(write_checksum=True).compress(content) if name.endswith(".zst") else content
    )


def unpacked(content: bytes, name: str) -> bytes:
    """As a reader that knows of one frame alone reads it."""
    if name.endswith(".gz"):
        return gzip.decompress(content)
    if name.endswith(".zst"):
        return zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content)).read()
    return content


# ---- compression


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("in.jsonl.gz", "out.jsonl.gz"),
        ("in.csv.zst", "out.csv.zst"),
        ("in.jsonl.zst", "out.jsonl"),
        ("in.csv", "out.csv.GZ"),
    ],
)
def test_the_suffix_alone_says_what_is_compressed(tmp_path: Path, source: str, target: str) -> None:
    kind = "csv" if "csv" in source else "jsonl"
    rows, expected, _ = many_rows(tmp_path, kind, 30)
    content = rows.read_bytes()
    (tmp_path / source).write_bytes(packed(content, source))
    Job(source=tmp_path / source, target=tmp_path / target).run(guard())
    assert unpacked((tmp_path / target).read_bytes(), target.lower()) == expected
    assert len(list(tmp_path.glob("*.rows"))) == len(list(tmp_path.glob("*.journal*"))) == 0


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_what_was_joined_of_several_files_is_read_to_its_end(tmp_path: Path, suffix: str) -> None:
    line = json.dumps({"text": TOXIC}).encode() + b"\n"
    path = tmp_path / f"in.jsonl{suffix}"
    path.write_bytes(packed(line, suffix) + packed(b"", suffix) + packed(line, suffix))
    Job(source=path, target=tmp_path / "out.jsonl").run(guard())
    assert (tmp_path / "out.jsonl").read_bytes() == 2 * line.replace(TOXIC.encode(), MENDED.encode())


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_compressed_file_that_is_cut_or_damaged_is_an_error(tmp_path: Path, suffix: str) -> None:
    content = b"".join(b'{"text": "number %d"}\n' % number for number in range(50))
    whole = packed(content, suffix)
    path = tmp_path / f"in.jsonl{suffix}"
    for written, reason in [
        (whole[:-3], "is truncated: its compressed content ends early"),
        (content, "is damaged, or not compressed as its name says"),
        (whole[:20] + bytes(20) + whole[40:], "is damaged|is truncated"),
    ]:
        path.write_bytes(written)
        with pytest.raises(UsageError, match=reason):
            Job(source=path, target=tmp_path / "out.jsonl", overwrite=True).run(guard())


@settings(max_examples=15, deadline=None)
@given(
    parts=st.lists(st.binary(max_size=5_000), max_size=4),
    name=st.sampled_from(["a.gz", "a.zst", "a"]),
    places=st.lists(st.integers(0, 12_000), max_size=4),
)
def test_whatever_was_compressed_is_read_from_every_place(
    parts: list[bytes], name: str, places: list[int]
) -> None:
    content, file = b"".join(parts), io.BytesIO()
    for part in parts:  # each in a member of its own
        with compressed(file, Path(name)) as out:
            out.write(part)
    file.seek(0)
    reader = decompressed(file, Path(name))
    assert reader.read() == content
    for place in places:
        reader.seek(place)
        assert reader.readline() == io.BytesIO(content[place:]).readline()


@pytest.mark.parametrize("kinds", [("jsonl.gz", "jsonl.zst"), ("csv.zst", "csv.gz")])
def test_a_compressed_job_that_is_killed_loses_and_repeats_nothing(
    tmp_path: Path, kinds: tuple[str, str]
) -> None:
    rows, expected, _ = many_rows(tmp_path, kinds[0].split(".")[0], 200)
    source, target = tmp_path / f"in.{kinds[0]}", tmp_path / f"out.{kinds[1]}"
    source.write_bytes(packed(rows.read_bytes(), source.name))
    kill_after(start_worker(source, target, checkpoint=0.0, last=160), 90)
    assert not target.exists(), "it is there once it is complete"
    last = start_worker(source, target, checkpoint=0.0)
    told, _ = last.communicate(timeout=PATIENCE)
    assert last.returncode == 0
    assert int(told.split()[-1]) > 0, "it went on where the journal said"
    assert unpacked(target.read_bytes(), target.name) == expected
    left = {rows.name, source.name, target.name, f"{target.name}.bad.jsonl"}
    assert {path.name for path in tmp_path.iterdir()} == left


def test_detect_reads_and_writes_compressed_files(run: Run, tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl.gz", tmp_path / "out.jsonl.zst"
    source.write_bytes(gzip.compress(f'{{"text": "{TOXIC}"}}\n{{"text": "{CLEAN}"}}\n'.encode()))
    assert run(["detect", str(source), str(target)]).exit_code == 0
    out = unpacked(target.read_bytes(), target.name).splitlines()
    assert [json.loads(line)["verdict"]["flagged"] for line in out] == [True, False]


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="Python has zstd itself")
def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    (tmp_path / "in.jsonl.zst").write_bytes(b"")
    with pytest.raises(MissingExtraError, match=r"detox-guardrail\[zstd\]"):
        Job(source=tmp_path / "in.jsonl.zst", target=tmp_path / "out.jsonl").run(guard())


# ---- files that are not what they seem

OTHERS: list[tuple[bytes, str]] = [
    ('{"text": "x"}\n'.encode("utf-16"), "the input is UTF-16: save it as UTF-8"),
    ('{"text": "x"}\n'.encode("utf-16-be"), "iconv -f UTF-16BE -t UTF-8"),
    ('{"text": "x"}\n'.encode("utf-16-le"), "iconv -f UTF-16LE -t UTF-8"),
    ('{"text": "x"}\n'.encode("utf-32"), "the input is UTF-32: save it as UTF-8"),
    (gzip.compress(b'{"text": "x"}\n', mtime=0), "let its name end in .gz"),
    (zstandard.ZstdCompressor().compress(b"x"), "let its name end in .zst"),
    (b"PAR1\x15\x04", "let its name end in .parquet"),
    (b"ARROW1\0\0", "let its name end in .arrow"),
    (b"PK\x03\x04\x14", "save the sheet as CSV UTF-8"),
]
ARRAYS: list[tuple[bytes, str]] = [
    (b'[{"text": "x"}, {"text": "y"}]\n', r"JSON array, not JSON Lines: jq -c '.\[\]' IN > OUT"),
    (b'\xef\xbb\xbf [\n{"text": "x"}\n]\n', "JSON array, not JSON Lines"),
    (b'[{"text": "x"},\n{"text": "y"}]\n', "JSON array, not JSON Lines"),
    (b'{\n  "text": "x"\n}\n', "JSON over several lines, not JSON Lines: jq -c"),
]


@pytest.mark.parametrize(("content", "cure"), OTHERS + ARRAYS)
@pytest.mark.parametrize("command", ["filter", "detect"])
def test_a_file_of_another_kind_is_one_error_that_names_the_cure(
    run: Run, tmp_path: Path, command: str, content: bytes, cure: str
) -> None:
    source, target = tmp_path / "in.json", tmp_path / "out.json"
    source.write_bytes(content)
    target.write_bytes(b"earlier work")
    for arguments in (
        [str(source), str(target), "--overwrite"],
        ["-", str(target), "--format", "jsonl", "--overwrite"],
    ):
        result = run([command, *arguments], input=content)
        assert result.exit_code == 2
        assert len(result.stderr.splitlines()) == 1
        with pytest.raises(UsageError, match=cure):
            raise UsageError(result.stderr)
    assert target.read_bytes() == b"earlier work"


@pytest.mark.parametrize(("content", "cure"), OTHERS)
def test_a_csv_file_of_another_kind_is_one_error_that_names_the_cure(
    tmp_path: Path, content: bytes, cure: str
) -> None:
    with pytest.raises(UsageError, match=cure):
        filtered(tmp_path, "in.csv", content)


def test_a_first_line_that_is_a_bad_row_stops_nothing(tmp_path: Path) -> None:
    good = json.dumps({"text": CLEAN}).encode()
    assert filtered(tmp_path, "in.jsonl", b'["text"]\n' + good) == good
    assert bad_rows(tmp_path, "in.jsonl")[0]["line"] == 1


@pytest.mark.parametrize(
    ("line", "mark", "options"),
    [
        ("sep=;\r\n", ";", {}),
        ("\ufeffsep=\t\n", "\t", {}),
        ('"sep=,"\n', ",", {}),
        ("SEP=^\r\n", "^", {}),
        ("sep=,\n", ";", {"delimiter": ";"}),
    ],
)
def test_a_spreadsheets_line_about_the_delimiter_is_heeded_and_stays(
    tmp_path: Path, line: str, mark: str, options: dict[str, str]
) -> None:
    rows = ["id", "text,;|"], ["1", TOXIC], ["2", "a,b;c|d\te^f".replace(mark, "")]
    content = line + "".join(f"{mark.join(row)}\n" for row in rows).replace("text,;|", "text")
    assert filtered(tmp_path, "in.csv", content.encode(), **options).decode() == content.replace(
        TOXIC, MENDED
    )
    out = filtered(tmp_path, "in.csv", content.encode(), into="g", **options).decode()
    assert out.startswith(f"{line}id{mark}text{mark}g_action")
    with pytest.raises(UsageError, match="the file is empty"):
        filtered(tmp_path, "in.csv", line.encode())


# ---- text inside of rows


def test_only_the_text_at_a_path_changes(tmp_path: Path) -> None:
    lines = [
        '{"text": "TOXIC", "comments": [ {"body" : "TOXIC", "n": 1.0}, {"body": "TOXIC"}]}',
        '  {"comments":[{"body":"CLEAN"}],"x":{"comments":[{"body":"TOXIC"}]}}',
        '{"comments": {"0": {"body": "TOXIC"}}}',
    ]
    source = "\n".join(lines).replace("CLEAN", CLEAN)
    out = filtered(tmp_path, "in.jsonl", source.replace("TOXIC", TOXIC).encode(), field="comments.0.body")
    expected = source.replace('"body" : "TOXIC"', f'"body" : "{MENDED}"')
    expected = expected.replace('{"0": {"body": "TOXIC"}}', f'{{"0": {{"body": "{MENDED}"}}}}')
    assert out.decode() == expected.replace("TOXIC", TOXIC)


def test_a_name_with_dots_in_it_is_still_a_name(tmp_path: Path) -> None:
    source = json.dumps({"payload.text": TOXIC, "payload": {"body": TOXIC}}).encode()
    out = filtered(tmp_path, "in.jsonl", source, field="payload.text")
    assert json.loads(out) == {"payload.text": MENDED, "payload": {"body": TOXIC}}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"a": {"b": []}}', "no field 'a.b.0'"),
        ('{"a": {"b": {"1": "x"}}}', "no field 'a.b.0'"),
        ('{"a": "text"}', "no field 'a.b.0'"),
        ('{"a": {"b": [1]}}', "field 'a.b.0' must be a string, got int"),
        ('{"a": {"b": ["x"]}, "a.b.0": "moron"}', "as a field and as a path"),
        ('{"a": {"b": ["moron"], "b": ["x"]}}', "field 'a.b.0' appears 2 times"),
        ('{"a": {"b": ["moron"]}, "a": {"b": ["x"]}}', "field 'a.b.0' appears 2 times"),
    ],
)
def test_a_row_without_one_text_at_the_path_is_set_aside(tmp_path: Path, line: str, reason: str) -> None:
    assert filtered(tmp_path, "in.jsonl", line.encode(), field="a.b.0") == b""
    assert reason in bad_rows(tmp_path, "in.jsonl")[0]["error"]


def test_detect_finds_the_text_at_a_path(run: Run, tmp_path: Path) -> None:
    rows = json.dumps({"payload": {"text": TOXIC}}) + "\n" + json.dumps({"payload": {}})
    bad = tmp_path / "bad.jsonl"
    options = ["--field", "payload.text", "--format", "jsonl", "--bad", str(bad)]
    result = run(["detect", "-", "-", *options], input=rows)
    (toxic,) = map(json.loads, result.stdout.splitlines())
    assert toxic["verdict"]["flagged"] is True
    assert "no field 'payload.text'" in json.loads(bad.read_text())["error"]


keys = st.text(st.characters(codec="utf-8", exclude_characters="."), min_size=1, max_size=3) | st.just("0")
values = st.recursive(
    st.none() | st.floats(allow_nan=False) | st.text(max_size=4) | st.just(TOXIC),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=25, deadline=None)
@given(row=st.dictionaries(keys, values, min_size=1, max_size=3), choose=st.randoms(use_true_random=False))
def test_the_text_at_any_path_changes_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, row: dict[str, Any], choose: Any
) -> None:
    expected = copy.deepcopy(row)
    holder: Any = expected
    steps = [choose.choice(list(holder))]
    while isinstance(inner := holder[steps[-1]], (dict, list)) and inner:
        holder = inner
        steps.append(choose.choice(list(inner) if isinstance(inner, dict) else range(len(inner))))
    line = json.dumps(row).encode()
    folder = tmp_path_factory.mktemp("rows")
    out = filtered(folder, "in.jsonl", line, field=".".join(map(str, steps)))
    text = holder[steps[-1]]
    if not isinstance(text, str):
        assert out == b""
        return
    outcome = guard().check(text)
    holder[steps[-1]] = outcome.text
    assert json.loads(out) == expected
    assert outcome.changed or out == line
