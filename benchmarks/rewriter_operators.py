"""Where the time of one pass of the default rewriter goes, by kind of work, from onnxruntime's profiler.

Run: ``python -m benchmarks.rewriter_operators [--widths 1 8 32] [--precision int8]``. Needs the base
(``guardrail models pull``). A line for each width, the number of new tokens: milliseconds of the pass, and
shares of its work. ``adapter`` is what merging a lone adapter into the base would save.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime

from benchmarks.rewriter_side import ADAPTER, reader_of_widths
from guardrail import models
from guardrail.models.weights import read_weights
from guardrail.rewriters.adapter import read_adapter
from guardrail.rewriters.runtime.factors import factors_of
from guardrail.rewriters.runtime.session import Runtime

ROUNDS = 10
DIGITS = {"QuantizeLinear", "DequantizeLinear", "Sub", "Concat", "Abs", "ReduceMax", "Max", "Div"}


def kind_of(operator: str, node: str) -> str:
    """What a node does for the pass."""
    if ".inner" in node or ".sum" in node:
        return "adapter"
    if operator == "MatMulIntegerToFloat" or (operator == "MatMul" and ".product" in node):
        return "products of the head" if node.startswith("head") else "products of the layers"
    if ".placed" in node:
        return "digits put together"
    if operator in DIGITS or ".scaled" in node:
        return "digits taken apart"
    if operator == "GroupQueryAttention":
        return "attention"
    return "the likeliest tokens" if operator == "TopK" else "rest"


def profiled(folder: Path) -> Callable[[], Any]:
    """What makes session options that profile."""
    original = onnxruntime.SessionOptions

    def options() -> Any:
        made = original()
        made.enable_profiling = True
        made.profile_file_prefix = str(folder / "profile")
        return made

    return options


def work(events: Sequence[Mapping[str, Any]], *, passes: int) -> tuple[float, dict[str, float]]:
    """Milliseconds of one of the last passes, and the shares of the kinds of work in them."""
    runs = [event for event in events if event["name"] == "model_run"][-passes:]
    spent: Counter[str] = Counter()
    for event in events:
        if event["name"].endswith("_kernel_time") and event["ts"] >= runs[0]["ts"]:
            spent[kind_of(event["args"]["op_name"], event["name"])] += event["dur"]
    total = sum(spent.values())
    shares = {kind: round(duration / total, 3) for kind, duration in spent.most_common()}
    return sum(run["dur"] for run in runs) / 1e3 / passes, shares


def main() -> None:
    """Prints a line for each width."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--widths", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--precision", choices=("int8", "float32"), default="int8")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    load = partial(read_weights, models.require(models.REWRITER_BASE))
    for width in asked.widths:
        with tempfile.TemporaryDirectory() as name:
            onnxruntime.SessionOptions, before = profiled(Path(name)), onnxruntime.SessionOptions
            runtime = Runtime(load, positions=2048, precision=asked.precision, threads=asked.threads)
            onnxruntime.SessionOptions = before
            read = reader_of_widths(runtime, factors_of(read_adapter(ADAPTER), runtime.shape))
            for _ in range(ROUNDS):
                read(width)
            events = json.loads(Path(runtime._session.end_profiling()).read_text(encoding="utf-8"))
            milliseconds, shares = work(events, passes=ROUNDS)
        print(json.dumps({"tokens": width, "milliseconds": round(milliseconds, 1), **shares}))


if __name__ == "__main__":
    main()
