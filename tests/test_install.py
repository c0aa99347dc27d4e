"""What a plain install brings along is small, and is all that pulling a base and rewriting need."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest

from guardrail.manifest import sha256_of
from tests.models import gguf_files

ROOT = Path(__file__).parents[1]
PIP_AND_SETUPTOOLS = 30_000_000
LIMIT = 350_000_000
PROGRAM = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

blocked = set(sys.argv[3:])
sys.meta_path.insert(0, Absent())

from guardrail import Guard, Verdict, models
from guardrail.rewriters.onnx import OnnxRewriter
from guardrail.rewriters.sampling import Decoding

base = models.pull(sys.argv[1], progress=False)
endless = Decoding(temperature=1.5, top_k=300, top_p=1.0, length_ratio=1.0, spare_tokens=150)
rewriter = OnnxRewriter.load(sys.argv[2], base_folder=base, decoding=endless)
def rude(texts):
    return [Verdict({"rude": float("fool" in text)}, flagged="fool" in text, spans=[]) for text in texts]

print(len(rewriter.rewrite(["You are a fool."], 6)[0]))
print(Guard(detector=rude, rewriter=rewriter).check("You are a fool.").degraded)
"""


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def required(name: str) -> set[str]:
    """A distribution and, without extras, everything that it requires and that is installed here."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        current = normal(waiting.pop())
        try:
            requires = distribution(current).requires or []
        except PackageNotFoundError:  # a requirement of another Python or system
            continue
        if current not in found:
            found.add(current)
            waiting += [
                re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in requires if "extra ==" not in line
            ]
    return found


@pytest.fixture(scope="module")
def core() -> set[str]:
    tomllib = pytest.importorskip("tomllib")  # Python 3.11

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in project["dependencies"]]
    return set().union(*map(required, named))


def test_a_plain_install_has_no_torch_and_is_small(core: set[str]) -> None:
    assert not core & {"torch", "transformers", "peft", "safetensors", "gguf", "scikit-learn", "scipy"}
    files = [file.locate() for name in core for file in distribution(name).files or []]
    files += list((ROOT / "guardrail").rglob("*"))
    size = sum(Path(path).stat().st_size for path in files if Path(path).is_file())
    assert size + PIP_AND_SETUPTOOLS <= LIMIT


def test_what_a_plain_install_lacks_is_not_needed_to_pull_a_base_and_to_rewrite(
    core: set[str], tiny_base: Path, make_adapter, tmp_path: Path, empty_cache: Path
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    gguf = gguf_files.write_gguf(tiny_base, own / "tiny.Q4_1.gguf")
    adapter = make_adapter(seed=1, manifest={"trained_on": sha256_of(gguf)})
    blocked = [
        top
        for top, names in packages_distributions().items()
        if not {normal(name) for name in names} & (core | {"detox-guardrail", "detox-guardrail-train"})
    ]
    assert {"torch", "transformers", "safetensors", "gguf"} <= set(blocked)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(own), str(adapter), *blocked],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    count, degraded = done.stdout.splitlines()
    assert int(count) > 0
    assert degraded == "()"
