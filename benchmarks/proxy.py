"""What the proxy costs before an upstream that answers at once, against that upstream alone: one run.

Run: ``python -m benchmarks.proxy [--workers N] [--answers N] [--many N]``. Server, upstream and client are
processes of their own on this machine; the policy masks, the answers have 55 words. ``--many`` is the number
of answers behind which the memory is looked at. CPU seconds are those of the server alone, all of its
processes together; they hardly depend on who else uses the machine, the times on the clock do. Answers a
second on two cores are extrapolated: two over the CPU seconds of an answer, as two workers with a core each
would give.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

from benchmarks.measure import Claim, report
from benchmarks.proxy_client import ProxyAnswer, ask_all
from benchmarks.proxy_upstream import answer, tokens

PACKAGES = ("detox-guardrail", "fastapi", "httpx", "numpy", "onnxruntime", "tokenizers", "uvicorn")
COMMAND = (sys.executable, "-c", "from guardrail.integrations.cli import app; app()", "serve", "--port", "0")
PACE = 50.0
STREAMS = (1, 16)
FLOOD = 128
CORES = 2
TICKS = os.sysconf("SC_CLK_TCK")


class ServerProcesses:
    """The processes of a running server."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.port = port
        self._process = process

    def _processes(self) -> Iterator[list[str]]:
        """The fields of /proc/PID/stat behind the name, of the process and of those that it started."""
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                content = path.read_text(encoding="utf-8")
            except OSError:
                continue
            fields = content.rpartition(")")[2].split()
            if str(self._process.pid) in (path.parent.name, fields[1]):
                yield fields

    def cpu_seconds(self) -> float:
        """Processor time of all of them so far."""
        return sum(int(fields[11]) + int(fields[12]) for fields in self._processes()) / TICKS

    def megabytes(self) -> float:
        """Resident memory of all of them."""
        return sum(int(fields[21]) for fields in self._processes()) * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextmanager
def upstream() -> Iterator[int]:
    """The port of the fake language model."""
    command = [sys.executable, "-m", "benchmarks.proxy_upstream"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


@contextmanager
def proxy(port: int, *, workers: int, **settings: str) -> Iterator[ServerProcesses]:
    """The server before the upstream, once it is ready; ``settings`` are those of the section [server]."""
    address = f"http://127.0.0.1:{port}/v1"
    command = [*COMMAND, "--upstream", address, "--ladder", "mask,block", "--workers", str(workers)]
    environ = os.environ | {f"GUARDRAIL_SERVER__{name.upper()}": value for name, value in settings.items()}
    with (
        TemporaryFile("w+") as log,
        subprocess.Popen(command, stderr=log, env=environ, text=True) as process,
    ):
        try:
            while not (
                found := re.search(
                    r"running on http://127.0.0.1:(\d+)", Path(f"/proc/self/fd/{log.fileno()}").read_text()
                )
            ):
                time.sleep(0.05)
            server = ServerProcesses(process, int(found[1]))
            for _ in range(4 * workers):  # each worker answers at least once
                asyncio.run(ask_all(server.port, range(2), streams=2, ask=ask(stream=True)))
            yield server
        finally:
            process.terminate()


def ask(*, stream: bool, pace: float = 0.0):  # type: ignore[no-untyped-def]  # what ask_all takes
    """Asks for one answer."""
    return lambda connection, seed: connection.ask(seed=seed, stream=stream, pace=pace)


def p50(answers: list[ProxyAnswer]) -> float:
    """Milliseconds of the median answer."""
    return 1e3 * statistics.median(each.seconds for each in answers)


def load(
    port: int, server: ServerProcesses, *, streams: int, stream: bool, answers: int
) -> dict[str, object]:
    """Times and CPU seconds at so many streams."""
    run = {"streams": streams, "ask": ask(stream=stream)}
    bare = asyncio.run(ask_all(port, range(answers), **run))  # type: ignore[arg-type]  # a dict of its arguments
    before, started = server.cpu_seconds(), time.perf_counter()
    guarded = asyncio.run(ask_all(server.port, range(answers), **run))  # type: ignore[arg-type]  # likewise
    seconds, cpu = time.perf_counter() - started, (server.cpu_seconds() - before) / answers
    assert all(each.status == 200 for each in guarded)
    return {
        "answers": "streamed" if stream else "whole",
        "at a time": streams,
        "CPU seconds an answer": cpu,
        "answers a second": answers / seconds,
        "extrapolated to two cores": CORES / cpu,
        "p50 ms": p50(guarded),
        "p50 ms bare": p50(bare),
        "p50 ms added": p50(guarded) - p50(bare),
    }


def first_text(port: int, server: ServerProcesses, *, answers: int) -> float:
    """Milliseconds of the first text behind the upstream's first whole sentence, the median; one at a time.

    The upstream writes 50 tokens a second, and a sentence is known to be whole once the next token has begun,
    which is a part of it.
    """
    late = []
    for seed in range(answers):
        text = answer(seed)
        sentence = text.index(". ") + 1
        # The mark ends a token, so that this is the one in which the sentence ends.
        assert any(len("".join(tokens(text)[:n])) == sentence for n in range(len(text)))
        (bare,) = asyncio.run(ask_all(port, [seed], streams=1, ask=ask(stream=True, pace=PACE)))
        (guarded,) = asyncio.run(ask_all(server.port, [seed], streams=1, ask=ask(stream=True, pace=PACE)))
        late.append(guarded.arrived[0][1] - bare.seconds_until(sentence))
    return 1e3 * statistics.median(late)


def flood(port: int) -> tuple[float, float]:
    """Of 128 clients at a server that takes eight at a time: the share that is refused, and its p50 ms."""
    with proxy(port, workers=1, max_requests="8") as server:
        answers = asyncio.run(ask_all(server.port, range(2 * FLOOD), streams=FLOOD, ask=ask(stream=False)))
    refused = [each for each in answers if each.status == 429]
    assert all(each.retry_after for each in refused)
    return len(refused) / len(answers), p50(refused)


def growth(server: ServerProcesses, answers: int) -> float:
    """Megabytes that the server holds more after so many answers than after a tenth of them."""
    run = {"streams": 8, "ask": ask(stream=True)}
    asyncio.run(ask_all(server.port, range(answers // 10), **run))  # type: ignore[arg-type]  # a dict of its arguments
    before = server.megabytes()
    asyncio.run(ask_all(server.port, range(answers - answers // 10), **run))  # type: ignore[arg-type]  # likewise
    return server.megabytes() - before


def main() -> None:
    """Prints cost and delay with and without the proxy, refusals under a flood, and growth of memory."""
    parser = argparse.ArgumentParser()
    for name, default in (("workers", 1), ("answers", 100), ("many", 1000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    with upstream() as port:
        with proxy(port, workers=asked.workers) as server:
            rows = [
                load(port, server, streams=streams, stream=stream, answers=asked.answers)
                for stream in (False, True)
                for streams in STREAMS
            ]
            late = first_text(port, server, answers=15)
            grown = growth(server, asked.many)
        refused, seconds = flood(port)
    cpu = max(float(str(row["CPU seconds an answer"])) for row in rows)
    added = {row["at a time"]: float(str(row["p50 ms added"])) for row in rows[2:]}
    report(
        "proxy",
        rows,
        [
            Claim("at most .03 CPU seconds an answer", cpu, cpu <= 0.03),
            Claim("at least 60 answers a second on two cores, extrapolated", CORES / cpu, CORES / cpu >= 60),
            Claim("at most 25 ms added, one stream", added[1], added[1] <= 25),
            Claim("at most 150 ms added, 16 streams", added[16], added[16] <= 150),
            Claim("first text at most 40 ms behind the first sentence", late, late <= 40),
            Claim(f"at most 10 MB more memory after {asked.many} answers", grown, grown <= 10),
            Claim(f"of {FLOOD} clients at a server for 8 some are refused", refused, refused > 0),
            Claim("a refusal takes at most 100 ms", seconds, seconds <= 100),
        ],
        packages=PACKAGES,
        settings={"workers": asked.workers, "answers": asked.answers, "memory after": asked.many},
    )


if __name__ == "__main__":
    main()
