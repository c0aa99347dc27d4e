"""Bulk files: what is not to change stays byte for byte, and no interruption loses or repeats a row."""

from __future__ import annotations

import csv
import functools
import io
import json
import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

import guardrail
from guardrail import Guard, Outcome, Policy
from guardrail.audit.database import Database
from guardrail.errors import UsageError
from guardrail.integrations.audit.records import Query, page
from guardrail.integrations.cli import app
from guardrail.integrations.rows.job import Job, Summary
from tests.fakes import BagEmbedder, WordDetector, WordGuard, WordRewriter
from tests.waiting import PATIENCE

CLEAN = "The meeting starts at nine in the small room."
TOXIC = "You are a moron and everybody here knows that."
MENDED = "You are a person and everybody here knows that."
PARTS: dict[str, Any] = {
    "detector": WordDetector(),
    "lexicon": WordDetector(),
    "rewriter": WordRewriter(),
    "embedder": BagEmbedder(),
}
INLINE = Policy(detect_timeout=None, rewrite_timeout=None)
Run = Callable[..., Result]


def guard(**parts: Any) -> Guard:
    return Guard(**{"policy": INLINE, **PARTS, **parts})


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command with a guard whose models are small functions."""
    monkeypatch.setattr("guardrail.guard.Guard", WordGuard)
    return functools.partial(CliRunner().invoke, app)


def filtered(folder: Path, name: str, content: bytes, **options: Any) -> bytes:
    """What comes out of a file with this content."""
    source, target = folder / name, folder / f"out-{name}"
    source.write_bytes(content)
    Job(source=source, target=target, **{"overwrite": True, **options}).run(guard())
    return target.read_bytes()


def bad_rows(folder: Path, name: str) -> list[dict[str, Any]]:
    path = folder / f"out-{name}.bad.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# ---- JSON Lines


def test_only_the_text_of_a_toxic_row_changes(tmp_path: Path) -> None:
    lines = [
        '{"id":1,  "text":"CLEAN", "n": 1.50, "tags":["a"]}\n',
        '  {"text" : "TOXIC" ,"id": 1e3, "u": "\\u00e9é"}\r\n',
        "\n",
        '{"nested": {"text": "You idiot"}, "text": "TOXIC"}',
    ]
    source = "".join(lines).replace("TOXIC", TOXIC).replace("CLEAN", CLEAN)
    out = filtered(tmp_path, "in.jsonl", b"\xef\xbb\xbf" + source.encode())
    assert out == b"\xef\xbb\xbf" + source.replace(TOXIC, MENDED).encode()
    assert not list(tmp_path.glob("*.journal*")), "nothing is left of a job that is done"
    assert not list(tmp_path.glob("*.bad*")), "no bad rows, no file for them"


def test_a_line_keeps_its_manner_of_escaping(tmp_path: Path) -> None:
    ascii_line = json.dumps({"text": f"Café closed. {TOXIC}"})
    plain_line = json.dumps({"text": f"Café closed. {TOXIC}"}, ensure_ascii=False)
    out = filtered(tmp_path, "in.jsonl", f"{ascii_line}\n{plain_line}\n".encode()).decode()
    assert out == f"{ascii_line}\n{plain_line}\n".replace(TOXIC, MENDED)
    assert "\\u00e9" in out
    assert "é" in out


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "cut', "not JSON"),
        (b'{"text": "\xff"}', "not UTF-8 at byte 10"),
        (b'["text"]', "expected a JSON object, got list"),
        (b'{"body": "x"}', "no field 'text'"),
        (b'{"text": null}', "field 'text' must be a string, got NoneType"),
        (b'{"text": "hidden moron", "text": "fine"}', "field 'text' appears 2 times"),
        (b'{"te\\u0078t": "hidden moron", "text": "fine"}', "field 'text' appears 2 times"),
        (b"[" * 100_000, "not usable JSON"),
    ],
)
def test_a_bad_line_goes_to_a_file_of_its_own_with_the_reason(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    good = json.dumps({"text": CLEAN}).encode()
    assert filtered(tmp_path, "in.jsonl", b"\n".join([good, line, good])) == good + b"\n" + good
    (bad,) = bad_rows(tmp_path, "in.jsonl")
    assert reason in bad["error"]
    assert bad["line"] == 2
    assert bad["source"].encode("utf-8", "surrogateescape") == line


def test_what_was_done_goes_into_a_field_on_request(tmp_path: Path) -> None:
    content = f'{{"text": "{TOXIC}", "id": 1 }}\n{{"id": 2, "text": "{CLEAN}"}}\n'
    toxic, clean = filtered(tmp_path, "in.jsonl", content.encode(), into="guard").splitlines()
    assert json.loads(toxic) == {
        "text": MENDED,
        "id": 1,
        "guard": {"action": "rewritten", "degraded": [], "scores": {"toxicity": 0.9}},
    }
    assert json.loads(clean)["guard"]["action"] == "passed"
    filtered(tmp_path, "in.jsonl", b'{"text": "x", "guard": 1}\n', into="guard")
    assert "there is a field 'guard' already" in bad_rows(tmp_path, "in.jsonl")[0]["error"]


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(
    rows=st.lists(
        st.tuples(
            st.dictionaries(st.text(), json_values, max_size=3), st.text(), st.booleans(), st.booleans()
        ),
        max_size=4,
    )
)
def test_every_row_comes_out_equal_but_for_its_text(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[dict[str, Any], str, bool, bool]]
) -> None:
    texts = [f"{text} {TOXIC}" if is_toxic else text for _, text, is_toxic, _ in rows]
    objects = [{**row, "text": text} for (row, *_), text in zip(rows, texts, strict=True)]
    lines = [
        json.dumps(row, ensure_ascii=is_ascii).encode("utf-8", "surrogatepass")
        if is_ascii or "\\ud" not in json.dumps(row)
        else json.dumps(row).encode()
        for row, (*_, is_ascii) in zip(objects, rows, strict=True)
    ]
    folder = tmp_path_factory.mktemp("rows")
    out = filtered(folder, "in.jsonl", b"".join(line + b"\n" for line in lines)).split(b"\n")[:-1]
    outcomes = guard().check_many(texts)
    for before, after, row, outcome in zip(lines, out, objects, outcomes, strict=True):
        assert json.loads(after) == {**row, "text": outcome.text}
        assert outcome.changed or before == after


# ---- CSV


def test_only_the_cell_of_a_toxic_row_changes(tmp_path: Path) -> None:
    lines = [
        '\ufeffid,text,"note, long"\r\n',
        f'1,{CLEAN},"a ""b"""\r\n',
        f'"2",{TOXIC},  spaced \r\n',
        f'3,"two lines:\r\n{TOXIC}","x\ny"\r\n',
        "\r\n",
        f'4,"{TOXIC}",last',
    ]
    source = "".join(lines)
    out = filtered(tmp_path, "in.csv", source.encode()).decode()
    assert out == source.replace(TOXIC, MENDED)


def test_a_new_cell_is_quoted_where_it_must_be(tmp_path: Path) -> None:
    options = {"policy": Policy(ladder=("block",), refusal='Withheld, "sorry"')}
    source, target = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text(f"text;n\n{TOXIC};1\n", encoding="utf-8")
    Job(source=source, target=target).run(guard(**options))
    assert target.read_text(encoding="utf-8") == 'text;n\n"Withheld, ""sorry""";1\n'


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_the_one_that_gives_the_column(tmp_path: Path, delimiter: str) -> None:
    header, row = delimiter.join(["id", "text", "x"]), delimiter.join(["1", TOXIC, "y"])
    out = filtered(tmp_path, "in.csv", f"{header}\n{row}\n".encode()).decode()
    assert out == f"{header}\n{row}\n".replace(TOXIC, MENDED)


def test_a_missing_column_is_an_error_that_names_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no column 'text': the header has 'id', 'body'"):
        filtered(tmp_path, "in.csv", b"id;body\n1;x\n")
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"], "no empty files are left"
    with pytest.raises(UsageError, match="2 columns 'text'"):
        filtered(tmp_path, "in.csv", b"text,text\nx,y\n")
    with pytest.raises(UsageError, match="a delimiter is one character"):
        filtered(tmp_path, "in.csv", b"text\nx\n", delimiter="::")
    with pytest.raises(UsageError, match="empty"):
        filtered(tmp_path, "in.csv", b"")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (b"1,2,3\n", "3 columns, and the header has 2"),
        (b"1\n", "1 columns, and the header has 2"),
        (b"1,\xff moron\n", "the text is not UTF-8"),
        (b'1,"a"b\n', "not CSV"),
        (b'1,"never closed\n2,x\n', "unterminated quoted field: 2 lines"),
    ],
)
def test_a_bad_row_goes_to_a_file_of_its_own(tmp_path: Path, row: bytes, reason: str) -> None:
    assert filtered(tmp_path, "in.csv", b"id,text\n0,fine\n" + row) == b"id,text\n0,fine\n"
    (bad,) = bad_rows(tmp_path, "in.csv")
    assert reason in bad["error"]
    assert bad["line"] == 3
    assert bad["source"].encode("utf-8", "surrogateescape") == row.rstrip()


def test_bytes_of_other_columns_survive_whatever_they_are(tmp_path: Path) -> None:
    out = filtered(tmp_path, "in.csv", b"text,latin\n" + TOXIC.encode() + b",\xe9\xff\n")
    assert out == b"text,latin\n" + MENDED.encode() + b",\xe9\xff\n"


def test_a_cell_may_be_huge(tmp_path: Path) -> None:
    cell = '"' + f"{CLEAN}\n" * 5_000 + TOXIC + '"'
    source = f"id,text\n1,{cell}\n2,{CLEAN}\n"
    assert filtered(tmp_path, "in.csv", source.encode()).decode() == source.replace(TOXIC, MENDED)


def test_what_was_done_goes_into_columns_on_request(tmp_path: Path) -> None:
    out = filtered(tmp_path, "in.csv", f"id,text\r\n1,{TOXIC}\r\n2,{CLEAN}".encode(), into="g").decode()
    toxic, clean = csv.DictReader(io.StringIO(out, newline=""))
    assert (toxic["text"], toxic["g_action"], toxic["g_degraded"]) == (MENDED, "rewritten", "[]")
    assert json.loads(toxic["g_scores"]) == {"toxicity": 0.9}
    assert clean["g_action"] == "passed"
    assert out.splitlines()[0] == "id,text,g_action,g_degraded,g_scores"
    with pytest.raises(UsageError, match="a column 'g_action' already"):
        filtered(tmp_path, "in.csv", b"text,g_action\nx,y\n", into="g")


cells = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12) | st.sampled_from(
    [TOXIC, f'"{TOXIC}"', f"a,\r\n{TOXIC}", '"', '""', "\n", "\r", " ", ";", "'"]
)


@given(
    rows=st.lists(st.lists(cells, min_size=3, max_size=3), max_size=5),
    column=st.integers(0, 2),
    dialect=st.sampled_from(["excel", "excel-tab", "unix"]),
)
def test_whatever_the_csv_module_writes_comes_out_equal_but_for_its_text(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]], column: int, dialect: str
) -> None:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, dialect)
    header = ["a", "b", "c"]
    header[column] = "text"
    writer.writerows([header, *rows])
    out = filtered(tmp_path_factory.mktemp("rows"), "in.csv", buffer.getvalue().encode()).decode()
    after = list(csv.reader(io.StringIO(out, newline=""), dialect))
    outcomes = guard().check_many([row[column] for row in rows])
    assert after == [header] + [
        [*row[:column], outcome.text, *row[column + 1 :]] for row, outcome in zip(rows, outcomes, strict=True)
    ]
    if not any(outcome.changed for outcome in outcomes):
        assert out == buffer.getvalue()


# ---- interruption

WORKER = """
import os, sys, time
from pathlib import Path
from guardrail import Guard, Policy
from guardrail.integrations.rows import job
from tests.fakes import BagEmbedder, WordDetector, WordRewriter

job.CHECKPOINT_SECONDS = float(sys.argv[3])

class Slow(WordDetector):
    def detect(self, texts):
        time.sleep(0.002)
        return super().detect(texts)

guard = Guard(detector=Slow(), lexicon=WordDetector(), rewriter=WordRewriter(), embedder=BagEmbedder(),
              policy=Policy(detect_timeout=None, rewrite_timeout=None), audit=sys.argv[4] or None)
source, target = Path(sys.argv[1]), Path(sys.argv[2])
print("working", flush=True)
def tell(position, counts):
    print(counts.judged + counts.bad, flush=True)
    if counts.judged + counts.bad >= int(sys.argv[5]):
        time.sleep(3600)  # until it is killed
task = job.Job(source=source, target=target, field="text", batch=7, scores_only=sys.argv[6] == "scores")
summary = task.run(guard, report=tell)
print("done", summary.resumed, flush=True)
"""


def start_worker(
    source: Path,
    target: Path,
    *,
    checkpoint: float,
    audit: str = "",
    last: int = 10**9,
    scores_only: bool = False,
) -> subprocess.Popen[str]:
    """Filters the file in a process of its own, which stands still at the ``last`` row."""
    verb = "scores" if scores_only else "filter"
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, source, target, str(checkpoint), audit, str(last), verb],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )


def kill_after(worker: subprocess.Popen[str], rows: int) -> None:
    assert worker.stdout is not None
    for line in worker.stdout:
        if line.strip().isdigit() and int(line) >= rows:
            break
    worker.send_signal(signal.SIGKILL)
    worker.stdout.read()
    worker.stdout.close()
    assert worker.wait() == -signal.SIGKILL


def many_rows(folder: Path, kind: str, count: int) -> tuple[Path, bytes, int]:
    """A file with clean, toxic and bad rows; what is to come out; how many are toxic."""
    source, expected = folder / f"in.{kind}", []
    lines = ['"n","text"\n'] if kind == "csv" else []
    expected += lines
    toxic = 0
    for number in range(count):
        text = f"{TOXIC} {number}" if number % 3 == 0 else CLEAN
        after = text.replace(TOXIC, MENDED)
        if number % 11 == 5:
            lines.append(f"{number}\n" if kind == "csv" else f"{{{number}\n")
            continue
        toxic += number % 3 == 0
        form = '{number},"{text}"\n' if kind == "csv" else '{{"n": {number}, "text": "{text}"}}\n'
        lines.append(form.format(number=number, text=text))
        expected.append(form.format(number=number, text=after))
    source.write_text("".join(lines), encoding="utf-8")
    return source, "".join(expected).encode(), toxic


@pytest.mark.parametrize(("kind", "checkpoint"), [("jsonl", 0.0), ("csv", 0.01), ("jsonl", 1e6)])
def test_a_job_that_is_killed_again_and_again_loses_and_repeats_nothing(
    tmp_path: Path, kind: str, checkpoint: float
) -> None:
    source, expected, toxic = many_rows(tmp_path, kind, 240)
    target = tmp_path / f"out-in.{kind}"
    audit = str(tmp_path / "audit.db")
    for rows in (40, 120):
        # Wherever it is when the signal comes, but before its end, however late this process is.
        worker = start_worker(source, target, checkpoint=checkpoint, audit=audit, last=rows + 70)
        kill_after(worker, rows)
        assert Job(source=source, target=target).journal.exists()
    with target.open("ab") as file:
        file.write(b"half a row that the killed process had on its way")
    last = start_worker(source, target, checkpoint=checkpoint, audit=audit)
    told, _ = last.communicate(timeout=PATIENCE)
    assert last.returncode == 0
    assert (int(told.split()[-1]) > 0) is (checkpoint < 1), "it went on where the journal said"
    assert target.read_bytes() == expected
    bad = [row["line"] for row in bad_rows(tmp_path, f"in.{kind}")]
    assert bad == [number + 1 + (kind == "csv") for number in range(240) if number % 11 == 5]
    assert not Job(source=source, target=target).journal.exists()
    database = Database(audit)
    keys = [record.text_key for record in page(database, Query(limit=200)).records]
    database.close()
    assert len(keys) == len(set(keys)) == toxic, "one trace of each, although some were done twice"


def stop_after(rows: int) -> Callable[..., None]:
    def report(position: object, counts: Any) -> None:
        if counts.judged >= rows:
            raise KeyboardInterrupt

    return report


@pytest.fixture
def interrupted(tmp_path: Path) -> Job:
    """A job that was interrupted in the middle."""
    source, _, _ = many_rows(tmp_path, "jsonl", 600)
    job = Job(source=source, target=tmp_path / "out.jsonl")
    with pytest.raises(KeyboardInterrupt):
        job.run(guard(), report=stop_after(300))
    return job


def test_another_job_does_not_go_on_in_the_output_of_an_interrupted_one(interrupted: Job) -> None:
    with pytest.raises(UsageError, match="but its policy differed"):
        interrupted.run(guard(policy=Policy(threshold=0.3)))
    with pytest.raises(UsageError, match="but its into differed"):
        Job(source=interrupted.source, target=interrupted.target, into="x").run(guard())
    with interrupted.source.open("a", encoding="utf-8") as file:
        file.write('{"text": "one more"}\n')
    with pytest.raises(UsageError, match="but its input beginning, input size"):
        interrupted.run(guard())
    interrupted.target.write_bytes(b"")
    summary = Job(source=interrupted.source, target=interrupted.target, overwrite=True).run(guard())
    assert summary.resumed == 0


def test_an_output_that_was_cut_since_is_not_continued(interrupted: Job) -> None:
    journal = json.loads(interrupted.journal.read_text(encoding="utf-8"))
    interrupted.journal.write_text(json.dumps(journal | {"target": 10**6}), encoding="utf-8")
    with pytest.raises(UsageError, match="shorter than the interrupted job left it"):
        interrupted.run(guard())
    interrupted.journal.write_text("{}", encoding="utf-8")
    with pytest.raises(UsageError, match="not a journal of this version"):
        interrupted.run(guard())


def test_an_output_that_is_there_already_is_not_overwritten_unasked(tmp_path: Path) -> None:
    source, expected, _ = many_rows(tmp_path, "jsonl", 20)
    target = tmp_path / "out.jsonl"
    target.write_bytes(b"earlier work\n")
    with pytest.raises(UsageError, match="already exists"):
        Job(source=source, target=target).run(guard())
    assert target.read_bytes() == b"earlier work\n"
    with pytest.raises(UsageError, match="same file"):
        Job(source=source, target=tmp_path / "." / "in.jsonl", overwrite=True).run(guard())
    Job(source=source, target=target, overwrite=True).run(guard())
    assert target.read_bytes() == expected
    with pytest.raises(UsageError, match="already exists"):
        Job(source=source, target=target).run(guard())


def test_two_jobs_do_not_write_one_output(tmp_path: Path) -> None:
    source, _, _ = many_rows(tmp_path, "jsonl", 20)
    job = Job(source=source, target=tmp_path / "out.jsonl")
    refused: list[str] = []

    def meanwhile(position: object, counts: object) -> None:
        with pytest.raises(UsageError, match="another job is writing") as caught:
            job.run(guard())
        refused.append(str(caught.value))

    job.run(guard(), report=meanwhile)
    assert refused


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    def peak(rows: int) -> int:
        source = tmp_path / f"{rows}.jsonl"
        with source.open("w", encoding="utf-8") as file:
            file.writelines(f'{{"text": "Row {number} is fine."}}\n' for number in range(rows))
        tracemalloc.start()
        summary = Job(source=source, target=tmp_path / f"out-{rows}.jsonl", overwrite=True).run(
            guard(detector=Forgetful(), lexicon=Forgetful())
        )
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert summary.counts.judged == rows
        return most

    peak(256)  # what is loaded once
    assert min(peak(3_000) for _ in range(2)) < 1.3 * min(peak(600) for _ in range(2))


class Forgetful(WordDetector):
    """Keeps no record of its calls."""

    def detect(self, texts: Sequence[str]) -> list[guardrail.Verdict]:
        return [self.judge(text) for text in texts]


# ---- the command


def test_the_command_filters_and_sums_up(run: Run, tmp_path: Path) -> None:
    source, expected, toxic = many_rows(tmp_path, "csv", 40)
    result = run(["filter", str(source), str(tmp_path / "out.csv")])
    assert result.exit_code == 1, "there were bad rows"
    assert (tmp_path / "out.csv").read_bytes() == expected
    rungs = f"{36 - toxic} passed, {toxic} rewritten, 0 lossy, 0 masked, 0 removed, 0 blocked"
    assert f"36 rows judged: {rungs}" in result.stderr
    assert "4 rows could not be judged: see" in result.stderr
    assert "rows per second" in result.stderr
    assert result.stdout == ""


def test_a_terminal_sees_the_rate_and_the_time_left(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    source, _, _ = many_rows(tmp_path, "jsonl", 20)
    shown = run(["filter", str(source), str(tmp_path / "out.jsonl")]).stderr
    assert "20 rows" in shown
    assert "/s, left" in shown
    assert "100%" in shown


def test_the_command_works_in_a_pipe(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(["filter", "-", "-", "--format", "jsonl"], input=f'{{"text": "{TOXIC}"}}\n')
    assert result.exit_code == 0
    assert json.loads(result.stdout) == {"text": MENDED}
    assert run(["filter", "-", "-"], input="").exit_code == 2, "no suffix to go by"
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_how_to_go_on(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: Guard, texts: Sequence[str], **options: object) -> list[Outcome]:
        raise KeyboardInterrupt

    source, expected, _ = many_rows(tmp_path, "jsonl", 20)
    arguments = ["filter", str(source), str(tmp_path / "out.jsonl")]
    with monkeypatch.context() as patch:
        patch.setattr(Guard, "check_many", interrupt)
        result = run(arguments)
    assert result.exit_code == 130
    assert "the same command resumes here" in result.stderr
    run(arguments)
    assert (tmp_path / "out.jsonl").read_bytes() == expected


def test_the_command_records_into_an_audit(run: Run, tmp_path: Path) -> None:
    source, _, toxic = many_rows(tmp_path, "jsonl", 20)
    audit = tmp_path / "audit.db"
    run(["filter", str(source), str(tmp_path / "out.jsonl"), "--audit", str(audit), "--audit-text"])
    database = Database(audit)
    records = page(database, Query()).records
    database.close()
    assert len(records) == toxic
    assert {record.before for record in records} == {TOXIC}


def test_a_summary_counts_what_was_degraded(tmp_path: Path) -> None:
    def broken(texts: Sequence[str]) -> list[guardrail.Verdict]:
        raise ValueError

    source, _, _ = many_rows(tmp_path, "jsonl", 11)
    summary: Summary = Job(source=source, target=tmp_path / "out.jsonl").run(guard(detector=broken))
    assert summary.counts.degraded == summary.counts.judged == 10
    assert summary.counts.actions["blocked"] == 10
