"""The laws of ``guardrail.testing`` on this package and on current releases of others, side by side.

Each is installed into an environment of its own below a folder, which is kept for the next run, and is given
a detector by the kit in the way that its documentation shows (``benchmarks/peers/``). Writes
``results/conformance.json`` and the table in ``docs/conformance.md``.

Run: ``python -m benchmarks.conformance --environments FOLDER [--only NAME ...]``. The environments take about
3 GB; a run takes minutes for each. Results of those that are not run are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "conformance.json"
DOCUMENT = ROOT / "docs" / "conformance.md"
BEGIN, END = "<!-- table: benchmarks.conformance -->", "<!-- end of table -->"
# What importing this package needs; its models are not used.
NEEDS = ("numpy", "onnxruntime", "platformdirs", "rich", "tenacity", "tokenizers", "typer")
LIMIT = 600
SIGNS = {"holds": "yes", "broken": "**no**", "not applicable": "\u2013", "not reached": "?"}


@dataclass(frozen=True, slots=True)
class PeerPackage:
    """A package, and the module in ``benchmarks/peers`` that makes its guard."""

    package: str
    module: str


PEERS = (
    PeerPackage("detox-guardrail", "ours"),
    PeerPackage("langchain", "langchain"),
    PeerPackage("gorget", "gorget"),
    PeerPackage("guardrails-ai", "guardrails_ai"),
    PeerPackage("nemoguardrails", "nemo"),
    PeerPackage("openai-guardrails", "openai_guardrails"),
)


def python_for(peer: PeerPackage, folder: Path) -> Path:
    """The interpreter of the peer's environment, made if it is not there."""
    home = folder / peer.package
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        venv.create(home, with_pip=True)
        wanted = [] if peer.module == "ours" else [peer.package]
        command = [str(python), "-m", "pip", "install", "--quiet", "--quiet", *wanted, *NEEDS]
        subprocess.run(command, check=True, timeout=LIMIT)
        (home / "ready").touch()
    return python


def version_of(peer: PeerPackage, python: Path) -> str:
    """The version that is installed there."""
    if peer.module == "ours":
        code = "import guardrail; print(guardrail.__version__)"
    else:
        code = f"import importlib.metadata as m; print(m.version({peer.package!r}))"
    done = subprocess.run([python, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def examined(peer: PeerPackage, folder: Path) -> dict[str, object]:
    """Version and findings of one peer; if it takes too long, those that it had by then."""
    python = python_for(peer, folder)
    out = folder / f"{peer.module}.json"
    out.unlink(missing_ok=True)
    log = folder / f"{peer.module}.log"
    command = [str(python), "-m", "benchmarks.conformance_side", peer.module, str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    ended = "finished"
    with log.open("w", encoding="utf-8") as output:
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, stdout=output, stderr=output, timeout=LIMIT, check=False
            )
            if done.returncode:
                ended = f"ended with status {done.returncode}"
        except subprocess.TimeoutExpired:
            ended = f"stopped after {LIMIT} s"
    findings = json.loads(out.read_text(encoding="utf-8")) if out.exists() else []
    print(f"{peer.package}: {len(findings)} laws, {ended}")
    return {"version": version_of(peer, python), "ended": ended, "findings": findings}


def table(peers: dict[str, dict[str, object]]) -> str:
    """A row for each law, a column for each peer."""
    names = [peer.package for peer in PEERS if peer.package in peers]
    results = {
        name: {finding["law"]: finding["result"] for finding in peers[name]["findings"]}  # type: ignore[attr-defined]
        for name in names
    }
    laws = max((list(found) for found in results.values()), key=len)
    lines = ["| law | " + " | ".join(f"{name} {peers[name]['version']}" for name in names) + " |"]
    lines.append("|---" * (len(names) + 1) + "|")
    for law in laws:
        cells = (SIGNS[results[name].get(law, "not reached")] for name in names)
        lines.append(f"| {law.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Runs the peers one after the other, and writes results and table after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--environments", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--only", nargs="*", choices=[peer.package for peer in PEERS])
    given = parser.parse_args()
    given.environments.mkdir(parents=True, exist_ok=True)
    content = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {"peers": {}}
    for peer in PEERS:
        if given.only and peer.package not in given.only:
            continue
        try:
            content["peers"][peer.package] = examined(peer, given.environments.absolute())
        except subprocess.SubprocessError as error:
            print(f"{peer.package}: not installed: {error}", file=sys.stderr)
            continue
        content |= {"benchmark": "conformance", "python": platform.python_version()}
        RESULTS.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
        shown = f"{before}{BEGIN}\n\n{table(content['peers'])}\n\n{END}{rest.partition(END)[2]}"
        DOCUMENT.write_text(shown, encoding="utf-8")


if __name__ == "__main__":
    main()
