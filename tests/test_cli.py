"""The command line: results on standard output, all else on standard error, one line for an error."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from guardrail import Verdict, __version__
from guardrail.errors import GuardrailWarning, ModelFileError, UsageError
from guardrail.integrations.cli import app
from tests.fakes import WordDetector, WordGuard

CLEAN = "The meeting starts at nine in the small room."
TOXIC = "You are a moron and everybody here knows that."
Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command with a guard whose models are small functions."""
    monkeypatch.setattr("guardrail.guard.Guard", WordGuard)
    return functools.partial(CliRunner().invoke, app)


def write_lines(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_check_prints_the_rewritten_text_alone_on_standard_output(run: Run) -> None:
    result = run(["check", TOXIC])
    assert result.exit_code == 0
    assert result.stdout == "You are a person and everybody here knows that.\n"


def test_the_summary_of_check_names_action_score_and_similarity_but_no_text(run: Run) -> None:
    summary = run(["check", TOXIC]).stderr
    assert "rewritten: toxicity 0.900" in summary
    assert "similarity 0." in summary
    assert "moron" not in summary


def test_check_json_prints_one_outcome(run: Run) -> None:
    row = json.loads(run(["check", "--json", TOXIC]).stdout)
    assert row["action"] == "rewritten"
    assert row["text"] == "You are a person and everybody here knows that."
    assert row["degraded"] == []
    assert row["verdict"]["scores"] == {"toxicity": 0.9}
    assert row["verdict"]["flagged"] is True
    (edit,) = row["edits"]
    assert TOXIC[edit["start"] : edit["end"]] == edit["before"]
    assert edit["after"] == "You are a person and everybody here knows that."
    assert edit["action"] == "rewritten"
    assert 0.5 < edit["similarity"] < 1.0
    assert "copy" in edit["failed_checks"], "the first candidate was one"


@pytest.mark.parametrize(
    "source", [b"two lines\r\nand no end", b"", b"\xef\xbb\xbfmark", b"not \xff UTF-8\n"]
)
def test_standard_input_that_passes_comes_out_byte_for_byte(run: Run, source: bytes) -> None:
    result = run(["check", "-"], input=source)
    assert result.exit_code == 0
    assert result.stdout_bytes == source


def test_the_version_is_printed_alone() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"guardrail {__version__}\n")


@pytest.mark.parametrize("source", [TOXIC.encode(), b"two lines\r\nand no end", b"", b"not \xff UTF-8\n"])
def test_check_reads_a_file_as_it_reads_standard_input(run: Run, tmp_path: Path, source: bytes) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(source)
    from_file, from_input = run(["check", "--file", str(file)]), run(["check", "-"], input=source)
    assert from_file.exit_code == 0
    assert from_file.stdout_bytes == from_input.stdout_bytes
    assert from_file.stderr.split(",")[0] == from_input.stderr.split(",")[0]
    assert run(["check", "--file", "-"], input=source).stdout_bytes == from_input.stdout_bytes


def test_check_json_of_a_file_is_one_object(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text(TOXIC)
    assert json.loads(run(["check", "--json", "--file", str(file)]).stdout)["action"] == "rewritten"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "name one text"),
        ([TOXIC, "--file", "x"], "name one text"),
        (["-", "--file", "x"], "name one text"),
        (["--file", "no-such-file.txt"], "cannot read no-such-file.txt: No such file"),
        (["--file", "."], "cannot read .: Is a directory"),
    ],
)
def test_check_without_one_readable_text_is_an_error(run: Run, arguments: list[str], told: str) -> None:
    result = run(["check", *arguments])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"guardrail: {told}")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_a_text_that_is_the_name_of_a_file_is_checked_with_a_warning(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("moron.txt").write_text(CLEAN)
    result = run(["check", "moron.txt"])
    assert result.exit_code == 0
    assert result.stderr.startswith("guardrail: warning: TEXT is the name of a file, ")
    assert "--file" in result.stderr
    assert "moron.txt" not in result.stderr
    assert "name of a file" in run(["check", str(tmp_path / "moron.txt")]).stderr
    assert "name of a folder" in run(["check", str(tmp_path)]).stderr
    assert json.loads(run(["check", "--json", "moron.txt"]).stdout)["edits"][0]["before"] == "moron.txt"


@pytest.mark.parametrize("text", [CLEAN, "", "other.txt", "a\0b", "x" * 5000, "a/" * 3000, "\udcff"])
def test_any_other_text_is_checked_without_a_warning(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(["check", text])
    assert result.exit_code == 0
    assert "warning" not in result.stderr


def test_explain_shows_every_sentence_and_candidate_on_standard_error(run: Run) -> None:
    result = run(["check", "--explain", f"{CLEAN} {TOXIC}"])
    assert result.exit_code == 0
    assert result.stdout == f"{CLEAN} You are a person and everybody here knows that.\n"
    assert f"1. characters 0-{len(CLEAN)} (toxicity 0.01): passed" in result.stderr
    assert "rewrite 1: refused: it still reads as toxic (toxic)" in result.stderr
    assert "it is the original again (copy)" in result.stderr
    assert "rewrite 2: taken" in result.stderr
    assert repr(TOXIC) in result.stderr
    assert "rewritten: toxicity 0.900" in result.stderr


def test_explain_leaves_json_as_it_is(run: Run) -> None:
    explained, plain = (run(["check", *more, "--json", TOXIC]) for more in (["--explain"], []))
    rows = [json.loads(result.stdout) for result in (explained, plain)]
    assert rows[0] | {"milliseconds": None} == rows[1] | {"milliseconds": None}
    assert "rewrite 2: taken" in explained.stderr
    assert plain.stderr == ""


def test_explain_of_a_text_that_raises_shows_why_before_the_error(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "guardrail.toml"
    config.write_text("[policy]\nladder = ['block']\nblock = 'raise'\n")
    result = run(["check", "--explain", "--config", str(config), f"{CLEAN} {TOXIC}"])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "blocked, with all that follows" in result.stderr
    assert result.stderr.endswith("the details are in .outcome\n")


def test_a_warning_of_python_is_one_line_without_its_source(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    class WarningGuard(WordGuard):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(**arguments)
            warnings.warn("something is missing", GuardrailWarning, stacklevel=2)

    monkeypatch.setattr("guardrail.guard.Guard", WarningGuard)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        result = run(["check", CLEAN])
    assert result.exit_code == 0
    assert result.stderr.splitlines()[0] == "guardrail: warning: something is missing"
    assert ".py" not in result.stderr


def test_a_missing_base_is_told_in_one_line(tmp_path: Path) -> None:
    command = [Path(sys.executable).parent / "guardrail", "check", "You are a complete idiot."]
    environ = os.environ | {"GUARDRAIL_CACHE": str(tmp_path)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    warning, summary, *_ = done.stderr.splitlines()
    assert warning.startswith("guardrail: warning: sentences are rewritten by simple edits alone, ")
    assert warning.endswith("once")
    assert "degraded: rewriter_missing" in summary
    assert ".py" not in done.stderr


def test_every_command_that_builds_a_guard_takes_a_configuration() -> None:
    from typer.main import get_command

    def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
        for name, command in getattr(group, "commands", {}).items():
            yield (*path, name), command
            yield from commands(command, (*path, name))

    takes = {
        " ".join(path)
        for path, command in commands(get_command(app))
        if any("--config" in parameter.opts for parameter in command.params)
    }
    assert takes == {
        *("check", "detect", "filter", "serve", "config show", "config check"),
        *("audit export", "audit prune", "audit suggest"),
    }


def test_check_json_stays_valid_for_bytes_that_are_not_text(run: Run) -> None:
    assert (
        json.loads(run(["check", "--json", "-"], input=b"odd \xff byte").stdout)["text"] == "odd \udcff byte"
    )


def test_detect_keeps_every_field_and_adds_the_verdict(run: Run, tmp_path: Path) -> None:
    source = write_lines(
        tmp_path / "in.jsonl",
        json.dumps({"id": 1, "text": CLEAN, "tags": ["a"]}).encode(),
        json.dumps({"id": 2, "text": TOXIC}).encode(),
    )
    result = run(["detect", str(source), str(tmp_path / "out.jsonl")])
    assert result.exit_code == 0
    clean, toxic = read_rows(tmp_path / "out.jsonl")
    assert {key: clean[key] for key in ("id", "text", "tags")} == {"id": 1, "text": CLEAN, "tags": ["a"]}
    assert clean["verdict"]["flagged"] is False
    assert toxic["verdict"] == {
        "scores": {"toxicity": 0.9},
        "flagged": True,
        "spans": [[TOXIC.index("moron"), TOXIC.index("moron") + 5]],
        "unsupported": False,
    }
    assert "2 rows judged, 1 flagged" in result.stderr


def test_detect_reads_standard_input_and_writes_standard_output(run: Run) -> None:
    result = run(
        ["detect", "-", "-", "--field", "body", "--format", "jsonl"], input=json.dumps({"body": CLEAN})
    )
    assert json.loads(result.stdout)["verdict"]["flagged"] is False


def test_the_order_of_rows_does_not_depend_on_the_batch_size(run: Run, tmp_path: Path) -> None:
    rows = [json.dumps({"text": TOXIC if i % 3 else CLEAN, "i": i}).encode() for i in range(11)]
    source = write_lines(tmp_path / "in.jsonl", *rows)
    outputs = []
    for batch in ("1", "4", "100"):
        run(["detect", str(source), str(tmp_path / "out.jsonl"), "--batch", batch, "--overwrite"])
        outputs.append(read_rows(tmp_path / "out.jsonl"))
    assert outputs[0] == outputs[1] == outputs[2]
    assert [row["i"] for row in outputs[0]] == list(range(11))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "cut', "not JSON"),
        (b'{"text": "\xff"}', "not UTF-8 at byte 10"),
        (b'["text"]', "expected a JSON object, got list"),
        (b'{"body": "x"}', "no field 'text'"),
        (b'{"text": 3}', "field 'text' must be a string, got int"),
        (b'{"text": null}', "field 'text' must be a string, got NoneType"),
        (b'{"text": "x", "verdict": 1}', "there is a field 'verdict' already"),
        (b"[" * 100_000, "not usable JSON"),
        (b"9" * 10_000, "not usable JSON"),
    ],
)
def test_a_line_that_cannot_be_judged_goes_to_a_file_of_its_own_with_its_content(
    run: Run, tmp_path: Path, line: bytes, reason: str
) -> None:
    good = json.dumps({"text": CLEAN}).encode()
    source = write_lines(tmp_path / "in.jsonl", good, line, b"", good)
    result = run(["detect", str(source), str(tmp_path / "out.jsonl")])
    assert result.exit_code == 1
    assert "2 rows judged, 0 flagged\n1 row could not be judged: see" in result.stderr
    first, last = [line for line in (tmp_path / "out.jsonl").read_bytes().split(b"\n") if line]
    assert first == last
    (bad,) = read_rows(tmp_path / "out.jsonl.bad.jsonl")
    assert reason in bad["error"]
    assert bad["line"] == 2
    assert bad["source"].encode("utf-8", "surrogateescape") == line


def test_a_row_with_half_a_surrogate_pair_survives(run: Run, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", rb'{"text": "half \ud83d pair"}')
    assert run(["detect", str(source), str(tmp_path / "out.jsonl")]).exit_code == 0
    assert read_rows(tmp_path / "out.jsonl")[0]["text"] == "half \ud83d pair"


def test_detect_refuses_to_write_over_its_input(run: Run, tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", b'{"text": "kept"}')
    result = run(["detect", str(source), str(tmp_path / "." / "in.jsonl")])
    assert result.exit_code == 2
    assert "same file" in result.stderr
    assert source.read_bytes() == b'{"text": "kept"}\n'


def test_an_input_that_is_not_there_leaves_the_output_alone(run: Run, tmp_path: Path) -> None:
    target = write_lines(tmp_path / "out.jsonl", b"earlier work")
    result = run(["detect", str(tmp_path / "none.jsonl"), str(target)])
    assert result.exit_code == 2
    assert "cannot read" in result.stderr
    assert target.read_bytes() == b"earlier work\n"


@pytest.mark.parametrize(
    ("error", "status"), [(ModelFileError("fetch it again"), 1), (UsageError("no such"), 2)]
)
def test_an_error_of_this_package_is_one_line_and_a_status(
    monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr("guardrail.models.pull", fail)
    result = CliRunner().invoke(app, ["models", "pull", "x"])
    assert result.exit_code == status
    assert result.stderr == f"guardrail: {error}\n"
    assert result.stdout == ""


def test_no_traceback_shows_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(texts: Sequence[str]) -> list[Verdict]:
        raise KeyError(texts[0])

    class BrokenGuard(WordGuard):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(detector=broken, **arguments)

    monkeypatch.setattr("guardrail.guard.Guard", BrokenGuard)
    result = CliRunner().invoke(app, ["check", "canary-7f3a is what this says"])
    assert "canary" not in result.output


def test_models_list_names_the_rewriters_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARDRAIL_CACHE", str(tmp_path))
    result = CliRunner().invoke(app, ["models", "list"])
    assert result.exit_code == 0
    (line,) = [line for line in result.stdout.splitlines() if "smollm2-135m-instruct" in line]
    assert "missing" in line


def test_models_list_json_is_an_array_for_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GUARDRAIL_CACHE", str(tmp_path))
    result = CliRunner().invoke(app, ["models", "list", "--json"])
    assert result.exit_code == 0
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    missing = rows["smollm2-135m-instruct"]
    assert (missing["state"], missing["folder"]) == ("missing", None)
    assert missing["bytes"] > 50_000_000
    (shipped,) = [row for row in rows.values() if Path(row["folder"] or "").name == "detector"]
    assert shipped["state"] == "ready"
    columns = ["name", "state", "bytes", "licence", "purpose", "folder"]
    assert all(list(row) == columns for row in rows.values())
    larger = rows["qwen2.5-coder-0.5b-instruct"]
    assert (larger["bytes"], larger["licence"]) == (491_400_064, "Apache-2.0")
    assert "third party" in larger["purpose"]


def test_models_verify_fails_where_a_file_was_altered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GUARDRAIL_CACHE", str(tmp_path))
    folder = tmp_path / "smollm2-135m-instruct"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"changed")
    (folder / "manifest.json").write_text(
        json.dumps(
            {
                "kind": "base",
                "name": "smollm2-135m-instruct",
                "version": "1",
                "licence": "Apache-2.0",
                "files": {"model.safetensors": "0" * 64},
            }
        )
    )
    result = CliRunner().invoke(app, ["models", "verify"])
    assert result.exit_code == 1
    assert "model.safetensors" in result.stderr


def test_the_help_loads_no_model_library() -> None:
    script = (
        "import sys; from typer.testing import CliRunner; from guardrail.integrations.cli import app; "
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0; "
        "print(sorted({'onnxruntime', 'tokenizers', 'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_detect_loses_only_the_row_that_breaks_the_detector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(texts: Sequence[str]) -> list[Verdict]:
        if any("canary" in text for text in texts):
            raise KeyError(texts[0])
        return WordDetector().detect(texts)

    class BreakingGuard(WordGuard):
        def __init__(self, **arguments: Any) -> None:
            super().__init__(detector=breaks, **arguments)

    monkeypatch.setattr("guardrail.guard.Guard", BreakingGuard)
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    texts = [CLEAN, "canary-19c2 is here", TOXIC]
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    result = CliRunner().invoke(app, ["detect", str(source), str(target)])
    first, third = map(json.loads, target.read_text().splitlines())
    (second,) = read_rows(tmp_path / "out.jsonl.bad.jsonl")
    assert (first["verdict"]["flagged"], third["verdict"]["flagged"]) == (False, True)
    assert second["line"] == 2
    assert "KeyError" in second["error"]
    assert "canary" not in second["error"]
    assert result.exit_code == 1
    assert "2 rows judged, 1 flagged\n1 row could not be judged: see" in result.stderr
