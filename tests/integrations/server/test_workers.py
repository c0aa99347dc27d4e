"""Several processes on one socket, as a user starts and signals them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from guardrail.config import Config, ModelSettings, ServerSettings
from guardrail.errors import ConfigError
from guardrail.integrations.workers import share_of
from tests.integrations.server.running import TOXIC, get, post
from tests.waiting import wait_until

METHOD = 'guardrail_requests_total{path="/v1/detoxify",status="200"}'


class Running:
    """The command with two workers; its configuration is a file that may change."""

    def __init__(self, process: subprocess.Popen[str], log: Path, config: Path) -> None:
        self.config = config
        self._process = process
        self._log = log

    @property
    def log(self) -> str:
        """All that it has logged."""
        return self._log.read_text()

    @property
    def url(self) -> str:
        """Where it serves."""
        wait_until(lambda: re.search(r"running on http", self.log) or self._process.poll() is not None)
        found = re.search(r"running on (http://\S+)", self.log)
        assert found, self.log
        return found[1]

    def started(self) -> list[int]:
        """The processes that were started so far."""
        return [int(number) for number in re.findall(r"Started server process \[(\d+)\]", self.log)]

    def finished(self) -> int:
        """How many of them have ended as they should."""
        return len(re.findall(r"Finished server process", self.log))

    def ready(self, workers: int) -> None:
        """Waits until so many were started."""
        wait_until(lambda: len(re.findall(r"startup complete", self.log)) >= workers)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self) -> int:
        """The exit status once it has ended."""
        return self._process.wait()


@contextmanager
def running(folder: Path, policy: str = 'ladder = ["mask", "block"]') -> Iterator[Running]:
    config, log = folder / "guardrail.toml", folder / "log"
    config.write_text(f'[policy]\n{policy}\n[models]\nrewriter = "none"\nverifier = "none"\n')
    command = [sys.executable, "-c", "from guardrail.integrations.cli import app; app()", "serve"]
    command += ["--port", "0", "--workers", "2", "--config", str(config)]
    with log.open("w") as written, subprocess.Popen(command, stderr=written, text=True) as process:
        try:
            yield Running(process, log, config)
        finally:
            process.terminate()


def masked(url: str) -> str:
    text = post(f"{url}/v1/detoxify", json={"input": TOXIC}).json()["outcomes"][0]["text"]
    assert isinstance(text, str)
    return text


def test_workers_count_together_are_replaced_when_they_die_and_reload_without_a_gap(tmp_path: Path) -> None:
    with running(tmp_path) as server:
        url = server.url
        for _ in range(4):
            assert masked(url) == TOXIC.replace("idiot", "i****")
        assert f"{METHOD} 4.0" in get(f"{url}/metrics").text
        server.ready(2)

        victim, _ = server.started()
        os.kill(victim, signal.SIGKILL)
        server.ready(3)
        assert "is replaced" in server.log
        assert f"{METHOD} 4.0" in get(f"{url}/metrics").text

        server.config.write_text("[policy]\nladder = 7\n")
        server.signal(signal.SIGHUP)
        wait_until(lambda: "nothing is reloaded" in server.log)
        assert masked(url) == TOXIC.replace("idiot", "i****")

        server.config.write_text(
            '[policy]\nladder = ["block"]\nrefusal = "no"\n[models]\nrewriter = "none"\nverifier = "none"\n'
        )
        server.signal(signal.SIGHUP)
        while "INFO:     reloaded" not in server.log:
            assert get(f"{url}/healthz").status_code == 200
        wait_until(lambda: server.finished() == 2)
        assert masked(url) == "no"

        server.signal(signal.SIGTERM)
        assert server.end() == 0
        assert server.finished() == 4


def test_a_worker_has_its_share_of_requests_and_cores() -> None:
    whole = Config(server=ServerSettings(max_requests=5, workers=2))
    share = share_of(whole, 2)
    assert share.server.max_requests == 3
    assert share.models.threads == max(1, len(os.sched_getaffinity(0)) // 2)
    assert share_of(Config(models=ModelSettings(threads=3)), 2).models.threads == 3
    with pytest.raises(ConfigError, match="models threads must be between 1"):
        ModelSettings(threads=0)
    with pytest.raises(ConfigError, match="server workers must be between 1"):
        ServerSettings(workers=0)
