"""How far the 8 bits of the default rewriter change what it writes: its greedy candidates beside float32's.

Run: ``python -m benchmarks.rewriter_agreement --data DIR [--sentences 500] [--set everyday] [--adapter
FOLDER]``, or with ``GUARDRAIL_DATA`` set; DIR holds ``paradetox/train.jsonl``, or that of the other set,
whose first sentences are taken. Needs the base (``guardrail models pull``) and sacrebleu (extra ``train``).
Prints the share of equal candidates and the chrF of one form's candidates to the other's.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.measure import report
from guardrail import models
from guardrail.rewriters.onnx import OnnxRewriter
from guardrail.rewriters.runtime.graph import Precision

TOGETHER = 4


def greedy(adapter: Path, sentences: Sequence[str], *, precision: Precision, threads: int) -> list[str]:
    """The greedy candidate of each sentence, empty if there is none."""
    rewriter = OnnxRewriter.load(adapter, precision=precision, threads=threads)
    written: list[str] = []
    for start in range(0, len(sentences), TOGETHER):
        found = rewriter.rewrite(sentences[start : start + TOGETHER], 1)
        written += ["".join(candidates) for candidates in found]
        print(f"{precision}: {len(written)} of {len(sentences)}", file=sys.stderr)
    return written


def main() -> None:
    """Writes both ways and compares."""
    from sacrebleu.metrics import CHRF

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("GUARDRAIL_DATA"))
    parser.add_argument("--set", default="paradetox", choices=("paradetox", "everyday"))
    parser.add_argument("--adapter", type=Path, default=models.SHIPPED / "rewriter")
    parser.add_argument("--sentences", type=int, default=500)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    if asked.data is None:
        parser.error("give the folder of paradetox/ and everyday/ with --data or in GUARDRAIL_DATA")
    with (Path(asked.data) / asked.set / "train.jsonl").open(encoding="utf-8") as file:
        sentences = [json.loads(line)["toxic"] for line in itertools.islice(file, asked.sentences)]
    exact, rounded = (
        greedy(asked.adapter, sentences, precision=precision, threads=asked.threads)
        for precision in ("float32", "int8")
    )
    equal = sum(one == other for one, other in zip(exact, rounded, strict=True))
    row = {
        "sentences": len(sentences),
        "equal": equal,
        "share equal": equal / len(sentences),
        "chrF": float(CHRF().corpus_score(rounded, [exact]).score),
    }
    report("rewriter_agreement", [row], [])


if __name__ == "__main__":
    main()
