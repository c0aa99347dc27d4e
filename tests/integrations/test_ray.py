"""Folders of files on a Ray cluster: row by row what one process gives, whoever is killed meanwhile."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from guardrail import Guard, Verdict
from guardrail.errors import FailureError, UsageError
from guardrail.integrations.cli import app
from guardrail.integrations.rows.job import Job
from tests.fakes import BagEmbedder, WordDetector, WordGuard, WordRewriter
from tests.integrations.test_audit_store import rows as audited
from tests.integrations.test_bulk import CLEAN, MENDED, TOXIC
from tests.waiting import wait_until

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'detox-guardrail[ray]'")

import pyarrow as pa  # noqa: E402  # there is no Ray Data without it
import pyarrow.parquet as pq  # noqa: E402

from guardrail.integrations.ray import RayJob, moderate  # noqa: E402
from guardrail.integrations.ray.folder import Folder, FolderEntry  # noqa: E402
from guardrail.integrations.ray.parts import FilePart, PartWorker, Places, parts_of  # noqa: E402

ROOT = Path(__file__).parents[2]
MEMORY = 100 << 20
# Ray leaves sockets and files open, and announces changes of its own.
pytestmark = pytest.mark.filterwarnings("default:::ray", "ignore::ResourceWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A cluster of two cores on this machine; its address."""
    context = ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=MEMORY,
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}},
        logging_level="ERROR",
    )
    yield context.address_info["gcs_address"]
    ray.shutdown()


@dataclass
class DeadlyOnce:
    """A detector whose process is killed when it first meets the word "poison"."""

    marker: str

    def detect(self, texts: Sequence[str]) -> list[Verdict]:
        if any("poison" in text for text in texts) and not Path(self.marker).exists():
            Path(self.marker).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return WordDetector().detect(texts)


def guard(*, config: Path | None = None, **parts: Any) -> Guard:
    words: dict[str, Any] = {
        "detector": WordDetector(),
        "lexicon": WordDetector(),
        "rewriter": WordRewriter(),
        "embedder": BagEmbedder(),
    }
    return Guard.from_config(config, **words | parts)


def text(number: int) -> str:
    return f"{number}: {TOXIC if number % 7 == 0 else CLEAN}"


def write_files(folder: Path, *, count: int) -> None:
    """The same rows in four formats, and among them some that cannot be judged, and one that kills."""
    (folder / "below").mkdir(parents=True)
    lines = [json.dumps({"id": number, "text": text(number)}) for number in range(count)]
    lines[count // 2] = json.dumps({"text": "The poison stands in the cabinet."})
    lines[3] = '{"text": broken'
    lines[5] = ""
    (folder / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with gzip.open(folder / "below" / "rows.jsonl.gz", "wt", encoding="utf-8") as packed:
        packed.write("\n".join(lines))
    cells = "".join(f'{number},"{text(number)}\nOn two lines, ""quoted""."\r\n' for number in range(count))
    (folder / "rows.csv").write_text(f"id,text\r\n{cells}7\r\n", encoding="utf-8", newline="")
    texts = [None if number == 4 else text(number) for number in range(count)]
    table = pa.table({"id": list(range(count)), "text": texts})
    pq.write_table(table, folder / "below" / "rows.parquet", row_group_size=count // 3)


def contents(path: Path, names: Sequence[str]) -> Any:
    """The rows of the parts of a file, in their order, in a form that can be compared."""
    found = [path / name for name in names]
    if found[0].suffix == ".parquet":
        return pa.concat_tables(list(map(pq.read_table, found))).to_pylist()
    opened = [gzip.decompress(one.read_bytes()) if one.suffix == ".gz" else one.read_bytes() for one in found]
    if found[0].suffix == ".csv":
        head = opened[0].partition(b"\n")[0] + b"\n"
        return head + b"".join(part.removeprefix(head) for part in opened)
    return b"".join(opened)


def bad(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_killed_worker_changes_no_row_of_what_one_process_gives(cluster: str, tmp_path: Path) -> None:
    source, target, marker = tmp_path / "in", tmp_path / "out", tmp_path / "killed"
    write_files(source, count=90)
    (tmp_path / "guard.toml").write_text('[audit]\nurl = "audit.db"\n', encoding="utf-8")
    deadly = guard(detector=DeadlyOnce(str(marker)), config=tmp_path / "guard.toml")
    reported: list[int] = []
    job = RayJob(source=str(source), target=str(target), into="found", workers=2, part_rows=20)
    summary = job.run(deadly, report=lambda position, counts: reported.append(position.offset))
    assert marker.exists(), "a worker was killed"
    assert reported[-1] == job.length()
    outputs = [entry.name for entry in Folder(str(target)).entries()]
    counts = None
    for entry in Folder(str(source)).entries():
        local = tmp_path / "local" / entry.name
        local.parent.mkdir(parents=True, exist_ok=True)
        alone = Job(source=source / entry.name, target=local, into="found")
        done = alone.run(guard()).counts
        counts = done if counts is None else counts.together(done)
        stem, _, suffix = entry.name.partition(".")
        parts = [name for name in outputs if name.startswith(f"{stem}-") and name.endswith(f".{suffix}")]
        assert len(parts) == (1 if suffix.endswith("gz") else 5)
        assert contents(target, parts) == contents(tmp_path / "local", [entry.name])
        refused = [row for part in parts for row in bad_of(tmp_path / "out.bad", part)]
        assert refused == bad(alone.bad_rows) != []
    assert summary.counts == counts
    assert (summary.resumed, summary.counts.bad) == (0, 4)
    assert not (tmp_path / "out.journal").exists()
    edits = audited(f"sqlite:///{tmp_path / 'audit.db'}")
    assert len({row.text_key for row in edits}) == len(edits) == summary.counts.actions["rewritten"]


def bad_of(folder: Path, part: str) -> list[dict[str, Any]]:
    path = folder / f"{part}.bad.jsonl"
    return bad(path) if path.exists() else []


DRIVER = """
import sys, time
from guardrail.integrations.ray import RayJob
from tests.integrations.test_ray import Waiting, guard
import ray
ray.init(address=sys.argv[1], logging_level="ERROR")
job = RayJob(source=sys.argv[2], target=sys.argv[3], workers=2, part_rows=10)
job.run(guard(detector=Waiting(sys.argv[4])))
"""


@dataclass
class Waiting:
    """A detector that stops at row 45 as long as a file is not there."""

    gate: str

    def detect(self, texts: Sequence[str]) -> list[Verdict]:
        if any(text.startswith("45:") for text in texts):
            wait_until(Path(self.gate).exists)
        return WordDetector().detect(texts)


def test_a_killed_driver_is_followed_by_one_that_judges_the_rest(cluster: str, tmp_path: Path) -> None:
    source, target, gate = tmp_path / "rows.jsonl", tmp_path / "out", tmp_path / "gate"
    source.write_text("".join(f"{json.dumps({'text': text(n)})}\n" for n in range(80)), encoding="utf-8")
    command = [sys.executable, "-c", DRIVER, cluster, source, target, gate]
    environ = os.environ | {"PYTHONPATH": str(ROOT)}
    driver = subprocess.Popen(list(map(str, command)), env=environ)
    journal = tmp_path / "out.journal"
    wait_until(lambda: len(list(journal.glob("*.jsonl.json"))) >= 3 or driver.poll() is not None)
    driver.kill()
    assert driver.wait() == -signal.SIGKILL
    done = len(list(journal.glob("*.jsonl.json")))
    gate.touch()
    summary = RayJob(source=str(source), target=str(target), workers=2, part_rows=10).run(
        guard(detector=Waiting(str(gate)))
    )
    assert summary.resumed >= 10 * done >= 30
    assert summary.counts.judged == 80
    expected = source.read_text(encoding="utf-8").replace(TOXIC, MENDED)
    names = [entry.name for entry in Folder(str(target)).entries()]
    assert contents(target, names).decode() == expected


def test_the_command_judges_a_folder_and_sums_up(
    cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("guardrail.guard.Guard", WordGuard)
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        line = json.dumps({"text": TOXIC})
        (tmp_path / "in" / f"{name}.jsonl").write_text(f"{line}\nbroken\n", encoding="utf-8")
    command = ["filter", "--engine", "ray", "--workers", "2", f"{tmp_path}/in", f"file://{tmp_path}/out"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1, done.output
    assert "2 rows judged: 0 passed, 2 rewritten" in done.stderr
    assert f"2 rows could not be judged: see file://{tmp_path}/out.bad" in done.stderr
    assert (tmp_path / "out" / "a-000000.jsonl").read_text(encoding="utf-8") == f'{{"text": "{MENDED}"}}\n'
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 2
    assert "already exists: choose another, or remove it" in again.stderr


def test_a_dataset_of_ray_data_is_moderated_row_by_row(cluster: str) -> None:
    items = [{"id": number, "author": {"bio": text(number)}} for number in range(40)]
    dataset = ray.data.from_items(items, override_num_blocks=4)
    done = moderate(dataset, guard(), field="author.bio", into="found", workers=2).take_all()
    found = {row["id"]: (row["author"]["bio"], row["found"]["action"]) for row in done}
    outcomes = guard().check_many([text(number) for number in range(40)])
    assert found == {number: (one.text, str(one.action)) for number, one in enumerate(outcomes)}


# ---- without a cluster


def worker(folder: str, *, run: str = "first", key: str = "job", **parts: Any) -> PartWorker:
    return PartWorker(template(), guard(**parts), places(folder), key=key, run=run)


def template() -> Job:
    return Job(source=Path(), target=Path("-"))


def places(folder: str) -> Places:
    return Places(
        source=f"{folder}/in",
        target=f"{folder}/out",
        bad=f"{folder}/out.bad",
        journal=f"{folder}/out.journal",
    )


def parts(folder: str, *, rows: int) -> list[FilePart]:
    source = Folder(f"{folder}/in")
    return [part for entry in source.entries() for part in parts_of(source, entry, template(), rows=rows)]


@pytest.fixture
def store() -> Iterator[str]:
    """An object store in memory with one file."""
    folder = "memory://bucket"
    lines = "".join(f"{json.dumps({'text': text(number)})}\n" for number in range(25))
    Folder(f"{folder}/in").put("a.jsonl", lines.encode())
    yield folder
    Folder(folder).remove_all()


def test_parts_go_to_an_object_store_and_a_part_that_is_done_is_not_judged_again(store: str) -> None:
    found = parts(store, rows=10)
    assert [part.name for part in found] == ["a-000000.jsonl", "a-000001.jsonl", "a-000002.jsonl"]
    assert sum(part.size for part in found) == sum(e.size for e in Folder(f"{store}/in").entries())
    first = [worker(store).done(part) for part in found]
    detector = WordDetector()
    assert [worker(store, run="second", detector=detector).done(part) for part in found] == first
    assert detector.calls == []
    out = Folder(f"{store}/out")
    written = b"".join(out.read(entry.name) or b"" for entry in out.entries())
    assert written == (Folder(f"{store}/in").read("a.jsonl") or b"").replace(TOXIC.encode(), MENDED.encode())


def test_a_part_that_kills_its_workers_is_named_and_given_up(store: str) -> None:
    (part, *_) = parts(store, rows=10)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            worker(store, on_outcome=dying).done(part)
    with pytest.raises(FailureError, match="part 0 killed 3 workers"):
        worker(store).done(part)
    assert worker(store, run="the next one").done(part).counts.judged == 10


def dying(outcome: object) -> None:
    """Ends a worker in the middle of its part, as far as the journal can see."""
    raise KeyboardInterrupt


def test_local_files_are_whole_or_not_there(tmp_path: Path) -> None:
    class Broken:
        def read(self, size: int) -> bytes:
            if size:
                raise OSError(28, "No space left on device")
            return b""

    folder = Folder(str(tmp_path))
    folder.put("below/rows", b"earlier")
    with pytest.raises(FailureError, match="cannot write below/rows: No space left on device"):
        folder.put("below/rows", Broken())  # type: ignore[arg-type]  # as much of a file as is used
    assert folder.read("below/rows") == b"earlier"
    (tmp_path / "below" / ".rows.1234.new").touch()
    folder.remove_unfinished()
    assert [path.name for path in (tmp_path / "below").iterdir()] == ["rows"]


def test_notes_of_other_programs_are_no_input(tmp_path: Path) -> None:
    for name in ("a.jsonl", "_SUCCESS", ".a.crc", "_temporary/b.jsonl"):
        Folder(str(tmp_path)).put(name, b"{}")
    assert [entry.name for entry in Folder(str(tmp_path)).entries()] == ["a.jsonl"]


@pytest.mark.parametrize("name", ["a.jsonl", "below/a.csv.gz", "a.b.parquet", "no suffix", "a-000001.jsonl"])
def test_outputs_of_different_parts_have_different_names(name: str) -> None:
    where: Any = {"start": None, "end": None, "size": 0}
    names = {FilePart(file=name, number=number, **where).name for number in (0, 1, 10**6)}
    assert len(names) == 3
    assert all(Path(one).suffixes[-1:] == Path(name).suffixes[-1:] for one in names)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "out.jsonl"}, "OUT is a folder of parts with --engine ray"),
        ({"target": "in/out"}, "must be apart"),
        ({"target": "in"}, "must be apart"),
        ({"source": "nowhere"}, "there is no file there"),
        ({"source": "odd://bucket"}, "cannot open odd://bucket"),
        ({"target": "full"}, "already exists"),
        ({"source": "mixed"}, "cannot infer the format of README"),
    ],
)
def test_a_job_that_cannot_work_is_refused_before_anything_is_judged(
    tmp_path: Path, options: dict[str, str], message: str
) -> None:
    for name in ("in/a.jsonl", "full/a.jsonl", "mixed/README"):
        Folder(str(tmp_path)).put(name, b'{"text": "fine"}\n')
    given = {"source": "in", "target": "out"} | options
    placed = {key: where if "://" in where else str(tmp_path / where) for key, where in given.items()}
    with pytest.raises(UsageError, match=message):
        RayJob(**placed).run(guard())


def test_a_guard_that_cannot_travel_is_refused_at_once(tmp_path: Path) -> None:
    Folder(str(tmp_path)).put("in/a.jsonl", b'{"text": "fine"}\n')
    job = RayJob(source=str(tmp_path / "in"), target=str(tmp_path / "out"))
    with pytest.raises(UsageError, match=r"audit.*make it with Guard.from_config"):
        job.run(Guard(audit=tmp_path / "audit.db"))


def test_an_interrupted_job_is_not_continued_as_another_one(tmp_path: Path) -> None:
    Folder(str(tmp_path)).put("in/a.jsonl", b'{"text": "fine"}\n')
    job = RayJob(source=str(tmp_path / "in"), target=str(tmp_path / "out"))
    begun = job._journal(job._entries(), guard())
    assert job._journal(job._entries(), guard()).key == begun.key
    with pytest.raises(UsageError, match="its detector differed"):
        job._journal(job._entries(), guard(detector=DeadlyOnce("")))
    Folder(str(tmp_path)).put("in/b.jsonl", b'{"text": "fine"}\n')
    with pytest.raises(UsageError, match="its input differed: call it as before, or remove"):
        job._journal(job._entries(), guard())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "ray", "-", "out"], "are files, folders or URLs, not -"),
        (["--engine", "ray", "--overwrite", "in", "out"], "removes no folder"),
        (["--workers", "2", "in.jsonl", "out.jsonl"], "--workers is for --engine ray"),
        (
            ["s3://bucket/in.jsonl", "out.jsonl"],
            "folders and URLs are read and written with --engine ray",
        ),
        ([".", "out.jsonl"], "folders and URLs are read and written with --engine ray"),
    ],
)
def test_options_that_do_not_go_together_are_named(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["filter", *arguments])
    assert done.exit_code == 2
    assert message in done.stderr


def test_the_parts_of_an_empty_file_are_one_that_keeps_its_header(tmp_path: Path) -> None:
    Folder(str(tmp_path)).put("in/a.csv", b"id,text\r\n")
    (part,) = parts(str(tmp_path), rows=10)
    worker(str(tmp_path)).done(part)
    assert (tmp_path / "out" / "a-000000.csv").read_bytes() == b"id,text\r\n"


def test_an_entry_changes_with_its_file(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.put("a", b"one")
    before: list[FolderEntry] = folder.entries()
    folder.put("a", b"two")
    assert folder.entries() != before
