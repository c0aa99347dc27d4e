"""Two wheels hold one package each with all that it needs at run time, and nothing else."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import pytest

import guardrail

ROOT = Path(__file__).parents[1]
PROJECTS = {"guardrail": ROOT, "guardrail_training": ROOT / "training"}
"""What each wheel holds, and the folder of its pyproject.toml."""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, zipfile.ZipFile]]:
    folder = tmp_path_factory.mktemp("wheels")
    with contextlib.ExitStack() as opened:
        yield {
            package: opened.enter_context(zipfile.ZipFile(build(project, folder / package)))
            for package, project in PROJECTS.items()
        }


@pytest.fixture
def wheel(wheels: dict[str, zipfile.ZipFile]) -> zipfile.ZipFile:
    return wheels["guardrail"]


@pytest.fixture
def trainers(wheels: dict[str, zipfile.ZipFile]) -> zipfile.ZipFile:
    return wheels["guardrail_training"]


def build(project: Path, out: Path, kind: str = "wheel") -> Path:
    """The one file that building a project makes."""
    command = [
        sys.executable,
        "-m",
        "build",
        f"--{kind}",
        "--no-isolation",
        "--outdir",
        str(out),
        str(project),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.iterdir()
    return path


def required(wheel: zipfile.ZipFile) -> list[str]:
    return Parser().parsestr(metadata(wheel, "METADATA")).get_all("Requires-Dist") or []


def version(wheel: zipfile.ZipFile) -> str:
    return str(Parser().parsestr(metadata(wheel, "METADATA"))["Version"])


def metadata(wheel: zipfile.ZipFile, name: str) -> str:
    (member,) = [member for member in wheel.namelist() if member.endswith(f".dist-info/{name}")]
    return wheel.read(member).decode()


@pytest.mark.parametrize("package", PROJECTS)
def test_a_package_is_the_only_top_level_name_of_its_wheel(
    wheels: dict[str, zipfile.ZipFile], package: str
) -> None:
    tops = {name.partition("/")[0] for name in wheels[package].namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {package}


@pytest.mark.parametrize("package", PROJECTS)
def test_every_file_of_a_package_is_in_its_wheel(wheels: dict[str, zipfile.ZipFile], package: str) -> None:
    folder = PROJECTS[package] / package
    expected = {
        f"{package}/{path.relative_to(folder).as_posix()}"
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in wheels[package].namelist() if name.startswith(f"{package}/")} == expected


@pytest.mark.parametrize(
    "member",
    [
        "guardrail/py.typed",
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


@pytest.mark.parametrize(
    "member", ["guardrail_training/py.typed", "guardrail_training/recipes/sft/smollm2-detox.toml"]
)
def test_the_trainers_carry_their_recipes_and_the_type_marker(trainers: zipfile.ZipFile, member: str) -> None:
    assert trainers.getinfo(member)


def test_the_core_needs_no_torch(wheel: zipfile.ZipFile) -> None:
    core = {line.partition(">")[0] for line in required(wheel) if "extra ==" not in line}
    known = {"numpy", "onnxruntime", "platformdirs", "rich", "tenacity", "tokenizers", "tomli", "typer"}
    assert core == known  # tomli for Python 3.10 alone, whose library reads no TOML


def test_the_trainers_require_the_runtime_in_their_own_version(
    wheel: zipfile.ZipFile, trainers: zipfile.ZipFile
) -> None:
    assert version(wheel) == version(trainers) == guardrail.__version__
    assert f"detox-guardrail[torch]=={version(wheel)}" in required(trainers)
    assert any(re.match(r"detox-guardrail-train; extra == .train.$", line) for line in required(wheel))


def test_the_trainers_source_distribution_makes_the_same_wheel(
    trainers: zipfile.ZipFile, tmp_path: Path
) -> None:
    with tarfile.open(build(PROJECTS["guardrail_training"], tmp_path / "sdist", "sdist")) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    with zipfile.ZipFile(build(source, tmp_path / "wheel")) as again:
        assert again.namelist() == trainers.namelist()
        assert metadata(again, "METADATA") == metadata(trainers, "METADATA")


def test_each_wheel_installs_its_own_command(wheel: zipfile.ZipFile, trainers: zipfile.ZipFile) -> None:
    assert "guardrail = guardrail.integrations.cli:app" in metadata(wheel, "entry_points.txt")
    assert "guardrail-train" not in metadata(wheel, "entry_points.txt")
    assert "guardrail-train = guardrail_training.cli:app" in metadata(trainers, "entry_points.txt")


def test_both_are_under_one_licence() -> None:
    assert (ROOT / "training" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
