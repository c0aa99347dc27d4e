"""The wheel holds both packages with all that they need at run time, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"guardrail": ROOT / "guardrail", "guardrail_training": ROOT / "training" / "guardrail_training"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def metadata(wheel: zipfile.ZipFile, name: str) -> str:
    (member,) = [member for member in wheel.namelist() if member.endswith(f".dist-info/{name}")]
    return wheel.read(member).decode()


def test_the_two_packages_are_its_only_top_level_names(wheel: zipfile.ZipFile) -> None:
    tops = {name.partition("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_of_a_package_is_in_it(wheel: zipfile.ZipFile, package: str) -> None:
    folder = PACKAGES[package]
    expected = {
        f"{package}/{path.relative_to(folder).as_posix()}"
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in wheel.namelist() if name.startswith(f"{package}/")} == expected


@pytest.mark.parametrize(
    "member",
    [
        "guardrail/py.typed",
        "guardrail_training/py.typed",
        "guardrail/shipped/detector/model.onnx",
        "guardrail/shipped/detector/tokenizer.json",
        "guardrail/shipped/reading/languages.npz",
        "guardrail/shipped/reading/lookalikes.txt",
        "guardrail/shipped/reading/words.txt",
        "guardrail/shipped/reading/NOTICE.md",
        "guardrail/shipped/edits/substitutions.txt",
        "guardrail/shipped/edits/manifest.json",
        "guardrail/shipped/tagger/model.onnx",
        "guardrail/shipped/tagger/tokenizer.json",
        "guardrail/shipped/tagger/manifest.json",
        "guardrail/shipped/tagger/MODEL_CARD.md",
        "guardrail/shipped/detector/lexicon.txt",
        "guardrail/shipped/detector/manifest.json",
        "guardrail/shipped/detector/MODEL_CARD.md",
        "guardrail/shipped/rewriter/adapter_model.safetensors",
        "guardrail/shipped/rewriter/adapter_config.json",
        "guardrail/shipped/rewriter/manifest.json",
        "guardrail/shipped/rewriter/MODEL_CARD.md",
    ],
)
def test_it_carries_the_shipped_models_and_the_type_marker(wheel: zipfile.ZipFile, member: str) -> None:
    assert wheel.getinfo(member).file_size > 0 or member.endswith("py.typed")


def test_the_core_needs_no_torch(wheel: zipfile.ZipFile) -> None:
    required = Parser().parsestr(metadata(wheel, "METADATA")).get_all("Requires-Dist") or []
    core = {line.partition(">")[0] for line in required if "extra ==" not in line}
    known = {"numpy", "onnxruntime", "platformdirs", "rich", "tenacity", "tokenizers", "tomli", "typer"}
    assert core == known  # tomli for Python 3.10 alone, whose library reads no TOML


def test_it_installs_both_commands(wheel: zipfile.ZipFile) -> None:
    commands = metadata(wheel, "entry_points.txt")
    assert "guardrail = guardrail.integrations.cli:app" in commands
    assert "guardrail-train = guardrail_training.cli:app" in commands
