"""Rows a second of ``guardrail filter``: one process, two processes, and Ray with two workers.

Run: ``python -m benchmarks.rows [--rows N ...]``. Comments of one or two sentences, one in eight of them
hostile, are judged and masked (no rewriter). Every run is a process of its own that loads its models, as on
the command line; what a run of a single row takes is taken off the cost of a row. The largest size is run in
all three ways, the others in one process, which shows how the cost grows; days for a billion rows are that
cost times a billion. Ray's parts are of 10,000 rows, so that two workers need 20,000 or more.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter

from benchmarks.measure import PACKAGES, Claim, report
from benchmarks.prose import PROSE

HOSTILE = ("You are a worthless idiot.", "Shut up, moron.", "What a bunch of stupid liars they are.")
HOSTILE_SHARE = 1 / 8
SEED = 19
MAX_GROWTH = 1.3
"""How much more a row of the largest file may cost than one of the smallest."""
BILLION = 10**9
RUN = "from guardrail.integrations.cli import app; app()"


def comments(count: int) -> Iterator[str]:
    """Comments that hardly repeat each other, the same for the same count."""
    drawn = random.Random(SEED)
    words = PROSE.replace(".", "").replace(",", "").split()
    for number in range(count):
        sentence = " ".join(drawn.choices(words, k=drawn.randint(6, 14))).capitalize()
        hostile = f" {drawn.choice(HOSTILE)}" if drawn.random() < HOSTILE_SHARE else ""
        yield f"{sentence} {number}.{hostile}"


def write(path: Path, texts: Sequence[str]) -> None:
    """A JSON Lines file of the texts."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"id": i, "text": text}) + "\n" for i, text in enumerate(texts))


def seconds(folder: Path, *commands: Sequence[str]) -> float:
    """Seconds until all commands, run at once, have ended; CalledProcessError if one fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    started = perf_counter()
    running = [
        subprocess.Popen(
            [sys.executable, "-c", RUN, "filter", "--config", str(folder / "mask.toml"), *command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
        )
        for command in commands
    ]
    for process in running:
        _, errors = process.communicate()
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, process.args, stderr=errors)
    return perf_counter() - started


def in_processes(folder: Path, texts: Sequence[str], processes: int) -> float:
    """Seconds of so many local processes, each with its share of the texts."""
    commands = []
    for number in range(processes):
        source, target = folder / f"in-{number}.jsonl", folder / f"out-{number}.jsonl"
        write(source, texts[number::processes])
        commands.append(["--overwrite", str(source), str(target)])
    return seconds(folder, *commands)


def on_ray(folder: Path, texts: Sequence[str], workers: int) -> float:
    """Seconds of one job on a cluster that is started for it."""
    source, target = folder / f"ray-in-{len(texts)}", folder / f"ray-out-{len(texts)}"
    source.mkdir()
    write(source / "all.jsonl", texts)
    options = ["--engine", "ray", "--workers", str(workers)]
    return seconds(folder, [*options, str(source), str(target)])


def main() -> None:
    """Measures, prints and writes ``results/rows.json``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    sizes = sorted(parser.parse_args().rows)
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "mask.toml").write_text('[policy]\nladder = ["mask", "block"]\n', encoding="utf-8")
        texts = list(comments(sizes[-1]))
        start_up = in_processes(folder, texts[:1], 1)
        cluster = on_ray(folder, texts[:1], 2)

        def add(way: str, count: int, took: float, start: float = start_up) -> float:
            each = (took - start) / count
            rows.append(
                {
                    "way": way,
                    "rows": count,
                    "seconds": took,
                    "rows a second": count / took,
                    "milliseconds a row": 1e3 * each,
                    "days for a billion rows": BILLION * each / 86_400,
                }
            )
            return each

        costs = [add("one process", size, in_processes(folder, texts[:size], 1)) for size in sizes]
        two = add("two processes", sizes[-1], in_processes(folder, texts, 2))
        ray = add("Ray, two workers", sizes[-1], on_ray(folder, texts, 2), cluster)
    report(
        "rows",
        rows,
        [
            Claim(
                f"a row of {sizes[-1]:,} costs at most {MAX_GROWTH:g} times one of {sizes[0]:,}",
                costs[-1] / costs[0],
                costs[-1] / costs[0] <= MAX_GROWTH,
            ),
            Claim(
                "Ray with two workers at least .8 times as fast as two processes", two / ray, two / ray >= 0.8
            ),
        ],
        packages=(*PACKAGES, "ray"),
        settings={
            "start-up seconds of one process": round(start_up, 2),
            "start-up seconds of Ray": round(cluster, 2),
            "hostile share": HOSTILE_SHARE,
        },
    )


if __name__ == "__main__":
    main()
