"""One way of rewriting in a process of its own: asked task by task, or timed from its start.

``python -m benchmarks.rewriter_side WAY FOLDER`` serves tasks over the sentences in FOLDER/sentences.json;
``python -m benchmarks.rewriter_side WAY FOLDER --cold`` rewrites the first one and prints what it costs.
Needs no more than the way does: the default one no torch.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

from benchmarks.side import memory, serve
from guardrail import Guard, models
from guardrail.rewriters.adapter import read_adapter

ADAPTER = models.SHIPPED / "rewriter"
WAYS = ("onnx", "onnx-float32", "torch")
GENERATE = {"generate": {}, "generate-lookup": {"prompt_lookup_num_tokens": 4}}
TOGETHER = 64
WIDTHS = (1, 8, 16)
CONTEXT = 60
PASSES = 30


def rewriter_of(way: str, *, threads: int) -> Any:
    """The shipped adapter on its base, in one of this package's ways."""
    if way == "torch":
        from guardrail.rewriters.lora import LoraRewriter

        return LoraRewriter.load(ADAPTER)
    from guardrail.rewriters.onnx import OnnxRewriter

    if way == "onnx-float32":
        return OnnxRewriter.load(ADAPTER, precision="float32", threads=threads)
    return OnnxRewriter.load(ADAPTER, threads=threads)


class Own:
    """Tasks of a rewriter of this package, alone and in a guard; what it writes is kept by sentence."""

    def __init__(self, way: str, sentences: Sequence[str], *, threads: int) -> None:
        self.sentences = sentences
        self.written: dict[str, Any] = {}
        self._rewriter = rewriter_of(way, threads=threads)
        self._guard = Guard(rewriter=self._rewriter)
        self._candidates = self._guard.policy.candidates

    def check(self, sentence: str) -> int:
        """The whole path: detected, rewritten, verified."""
        self.written[f"check {sentence}"] = str(self._guard.check(sentence).action)
        return 0

    def greedy(self, sentence: str) -> int:
        """The greedy candidate."""
        self.written[f"greedy {sentence}"] = self._rewriter.rewrite([sentence], 1)[0]
        return 0

    def candidates(self, sentence: str) -> int:
        """All candidates that the default policy asks for."""
        self.written[f"candidates {sentence}"] = self._rewriter.rewrite([sentence], self._candidates)[0]
        return 0

    def together(self) -> int:
        """Many sentences in one call."""
        self._guard.check_many(self.sentences[:TOGETHER])
        return 0

    def one_by_one(self) -> int:
        """The same ones, one after another."""
        for sentence in self.sentences[:TOGETHER]:
            self._guard.check(sentence)
        return 0


class Generate:
    """The greedy candidate by transformers' ``generate``, with the adapter merged into the base."""

    def __init__(self, sentences: Sequence[str], **options: Any) -> None:
        import torch

        from guardrail_training import modeling
        from guardrail_training.modeling.stacked import merge

        folder = models.for_torch(models.require(models.REWRITER_BASE))
        self.sentences = sentences
        self.written: dict[str, Any] = {}
        self._options = options
        self._torch = torch
        self._tokenizer = modeling.load_tokenizer(folder)
        self._model = modeling.load_base(folder, dtype=torch.float32)
        adapter = read_adapter(ADAPTER)
        self._template = adapter.template
        merge(self._model, adapter)
        self._model.config.use_cache = True

    def greedy(self, sentence: str) -> int:
        """The greedy candidate."""
        prompt = self._template.encode(self._tokenizer, sentence)
        ids = self._torch.tensor([prompt])
        with self._torch.inference_mode():
            (found,) = self._model.generate(
                ids,
                attention_mask=self._torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=2 * len(prompt),
                **self._options,
            )
        new = found[len(prompt) :]
        self.written[f"greedy {sentence}"] = [self._tokenizer.decode(new, skip_special_tokens=True).strip()]
        return len(new)


def passes(threads: int) -> dict[str, Any]:
    """Milliseconds of a pass by the number of new tokens, and the bytes that it reads, by precision."""
    from guardrail.models.weights import read_weights
    from guardrail.rewriters.runtime.factors import factors_of
    from guardrail.rewriters.runtime.graph import write_graph
    from guardrail.rewriters.runtime.session import Runtime

    folder = models.require(models.REWRITER_BASE)
    found: dict[str, Any] = {}
    for precision in ("int8", "float32"):
        graph = write_graph(read_weights(folder), precision=precision)
        size = sum(array.nbytes for array in graph.arrays.values())
        del graph
        runtime = Runtime(partial(read_weights, folder), positions=2048, precision=precision, threads=threads)
        factors = factors_of(read_adapter(ADAPTER), runtime.shape)
        size += sum(array.nbytes for array in factors.values())
        found[precision] = {"bytes": size} | {
            str(width): 1e3 * seconds_of_a_pass(runtime, factors, width) for width in WIDTHS
        }
    return found


def reader_of_widths(runtime: Any, factors: Any) -> Callable[[int], None]:
    """What reads so many tokens behind ``CONTEXT`` others."""
    import numpy as np

    from guardrail.rewriters.runtime.session import MASKED, Slots

    slots = Slots(runtime.shape, 256)

    def read(count: int) -> None:
        first, end = slots.used, slots.used + count
        seen = np.where(np.tri(count, end, first, dtype=bool), np.float32(0), MASKED)
        runtime.read(
            factors,
            slots,
            [500] * count,
            positions=range(first, end),
            bias=seen,
            picked=[count - 1],
            likeliest=50,
        )

    def read_behind_context(count: int) -> None:
        slots.used = CONTEXT
        read(count)

    read(CONTEXT)
    return read_behind_context


def seconds_of_a_pass(runtime: Any, factors: Any, width: int) -> float:
    """Median seconds of reading so many tokens behind ``CONTEXT`` others."""
    read, seconds = reader_of_widths(runtime, factors), []
    for _ in range(PASSES):
        started = perf_counter()
        read(width)
        seconds.append(perf_counter() - started)
    return statistics.median(seconds)


def tasks_of(
    way: str, sentences: Sequence[str], *, threads: int, folder: Path
) -> dict[str, Callable[[], int]]:
    """What the side does when it is asked."""

    def write(content: object) -> int:
        (folder / f"{way}.json").write_text(json.dumps(content), encoding="utf-8")
        return 0

    if way == "passes":
        return {"measure": lambda: write(passes(threads))}
    if way in GENERATE:
        side: Any = Generate(sentences, **GENERATE[way])
        kinds: tuple[str, ...] = ("greedy",)
        tasks: dict[str, Callable[[], int]] = {}
    else:
        side, kinds = Own(way, sentences, threads=threads), ("check", "greedy", "candidates")
        tasks = {"together": side.together, "one by one": side.one_by_one}
    for kind in kinds:
        tasks |= {f"{kind} {i}": partial(getattr(side, kind), text) for i, text in enumerate(sentences)}
    return tasks | {"write": lambda: write(side.written)}


def main() -> None:
    """Serves tasks, or rewrites once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=(*WAYS, *GENERATE, "passes"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cold", action="store_true")
    asked = parser.parse_args()
    sentences = json.loads((asked.folder / "sentences.json").read_text(encoding="utf-8"))
    threads = int(os.environ["OMP_NUM_THREADS"])
    if asked.cold:
        Own(asked.way, sentences, threads=threads).check(sentences[0])
        print(json.dumps(memory() | {"cpu_seconds": process_time()}), flush=True)
        return
    serve(tasks_of(asked.way, sentences, threads=threads, folder=asked.folder))


if __name__ == "__main__":
    main()
