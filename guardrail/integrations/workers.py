"""``serve --workers N``: processes behind one listening socket, started, watched, replaced and stopped.

    SIGTERM, SIGINT    stop taking requests, let open ones end, then end
    SIGHUP             read the configuration anew, and replace one worker after the other, each once its
                       successor is ready: no request is refused meanwhile

A worker that dies is replaced; one that never becomes ready ends a first start, and gives up a reload.
"""

from __future__ import annotations

import logging
import logging.config
import math
import multiprocessing
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from time import monotonic
from typing import Any

from guardrail.config import Config
from guardrail.errors import ConfigError, GuardrailError

__all__ = ["Supervisor", "share_of"]

logger = logging.getLogger("guardrail.server")

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
READY = b"ready"
QUEUE = 2048
"""Connections that may wait to be accepted."""
RETRY_SECONDS = 1.0
"""How long a worker that died before it was ready is waited for with its successor."""
STOP = (signal.SIGTERM, signal.SIGINT)
SPARE_SECONDS = 5.0
"""What workers get beyond their own graceful end before they are killed."""


def share_of(config: Config, workers: int) -> Config:
    """The configuration of one of so many workers: its part of the requests and of the processor cores."""
    models, server = config.models, config.server
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = models.threads or max(1, cores // workers)
    requests = math.ceil(server.max_requests / workers)
    return replace(
        config, models=replace(models, threads=threads), server=replace(server, max_requests=requests)
    )


@dataclass(slots=True, eq=False)
class WorkerProcess:
    """One process; ``line`` brings its word that it is ready, and ends with either of the two."""

    process: SpawnProcess
    line: Connection
    starting: bool = True
    ready: bool = False

    @classmethod
    def start(cls, config: Config, listener: socket.socket) -> WorkerProcess:
        """A new process that serves from the listener once its models are loaded."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=serve_here, args=(config, listener, theirs), name="guardrail-worker")
        process.start()
        theirs.close()
        return cls(process, ours)

    def stop(self) -> None:
        """Asks it to end once its open requests have."""
        if self.process.is_alive():
            self.process.terminate()


@dataclass(slots=True, eq=False)
class Supervisor:
    """Keeps so many workers running on one socket until a signal ends them.

    ``load`` gives the configuration, at first and for each reload.
    """

    load: Callable[[], Config]
    count: int
    _listener: socket.socket = field(init=False)
    _config: Config = field(init=False)
    _slots: list[WorkerProcess | None] = field(init=False, default_factory=list)
    _retry_at: dict[int, float] = field(init=False, default_factory=dict)
    _outdated: deque[int] = field(init=False, default_factory=deque)
    _successor: WorkerProcess | None = field(init=False, default=None)
    _leaving: list[WorkerProcess] = field(init=False, default_factory=list)
    _failed: bool = field(init=False, default=False)

    def run(self) -> int:
        """Serves; the exit status. ConfigError, or OSError if the address cannot be taken."""
        from guardrail.integrations.openai_server.server import logging_config

        loaded = self.load()
        self._config = share_of(loaded, self.count)
        logging.config.dictConfig(logging_config(loaded.server))
        # Without this each worker would make up a key, and their fingerprints could not be compared.
        os.environ.setdefault("GUARDRAIL_HMAC_KEY", secrets.token_hex(32))
        address = loaded.server.host, loaded.server.port
        with _listening(*address) as self._listener, _metrics_folder(), _signals() as signals:
            host, port = self._listener.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            logger.info("guardrail is running on http://%s:%d with %d workers", shown, port, self.count)
            self._slots = [self._start() for _ in range(self.count)]
            try:
                self._watch(signals)
            finally:
                self._stop()
        return int(self._failed)

    def _start(self) -> WorkerProcess:
        return WorkerProcess.start(self._config, self._listener)

    def _watch(self, signals: Connection) -> None:
        """Until a signal says stop, or the first workers cannot start."""
        while not self._failed:
            lines = [worker.line for worker in self._workers() if worker.starting]
            sentinels = [worker.process.sentinel for worker in self._workers()]
            due = min(self._retry_at.values(), default=math.inf) - monotonic()
            heard = wait([signals, *lines, *sentinels], None if due == math.inf else max(due, 0.0))
            if signals in heard:
                asked = signals.recv()
                if asked in STOP:
                    return
                self._reload()
            self._hear()
            self._bury()
            self._advance()

    def _workers(self) -> Iterator[WorkerProcess]:
        yield from (worker for worker in self._slots if worker is not None)
        yield from self._leaving
        if self._successor is not None:
            yield self._successor

    def _hear(self) -> None:
        """Takes note of who is ready."""
        for worker in self._workers():
            if worker.starting and worker.line.poll():
                worker.starting = False
                with suppress(EOFError):
                    worker.ready = worker.line.recv_bytes() == READY

    def _bury(self) -> None:
        """Replaces those that have ended, and forgets those that were to end."""
        for worker in [each for each in self._workers() if not each.process.is_alive()]:
            worker.process.join()
            worker.line.close()
            _forget_metrics(worker.process.pid)
            if worker in self._leaving:
                self._leaving.remove(worker)
            elif worker is self._successor:
                logger.error("the reload is given up: a new worker ended before it was ready")
                self._successor = None
                self._outdated.clear()
            else:
                self._lost(self._slots.index(worker), worker)

    def _lost(self, slot: int, worker: WorkerProcess) -> None:
        if not worker.ready and not any(each.ready for each in self._workers()):
            logger.error("a worker ended before it was ready, with status %s", worker.process.exitcode)
            self._failed = True
            return
        logger.error("a worker ended with status %s and is replaced", worker.process.exitcode)
        self._slots[slot] = None
        self._retry_at[slot] = monotonic() + (0.0 if worker.ready else RETRY_SECONDS)

    def _reload(self) -> None:
        """Has every worker replaced by one with the configuration of now, if that can be used."""
        try:
            self._config = share_of(self.load(), self.count)
        except GuardrailError as error:
            logger.error("nothing is reloaded: %s", error)
            return
        logger.info("reloading: one worker after the other")
        if self._successor is not None:  # it has the configuration of before
            self._leaving.append(self._successor)
            self._successor.stop()
            self._successor = None
        self._outdated = deque(range(self.count))

    def _advance(self) -> None:
        """Starts what is due, and lets a successor that is ready take its place."""
        for slot in [slot for slot, at in self._retry_at.items() if at <= monotonic()]:
            del self._retry_at[slot]
            self._slots[slot] = self._start()
        if self._successor is not None and self._successor.ready:
            slot = self._outdated.popleft()
            if (old := self._slots[slot]) is not None:
                old.stop()
                self._leaving.append(old)
            self._retry_at.pop(slot, None)
            self._slots[slot], self._successor = self._successor, None
            if not self._outdated:
                logger.info("reloaded")
        if self._outdated and self._successor is None:
            self._successor = self._start()

    def _stop(self) -> None:
        from guardrail.integrations.openai_server.server import GRACEFUL_SHUTDOWN_SECONDS

        workers = list(self._workers())
        for worker in workers:
            worker.stop()
        until = monotonic() + GRACEFUL_SHUTDOWN_SECONDS + SPARE_SECONDS
        for worker in workers:
            worker.process.join(max(0.0, until - monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.line.close()


def serve_here(config: Config, listener: socket.socket, line: Connection) -> None:
    """The work of one worker: says on the line that it is ready, and ends when the supervisor is gone."""
    from guardrail.integrations.asgi import configured_app
    from guardrail.integrations.openai_server.server import create_server, log_warnings, logging_config

    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # closing a terminal sends it to all
    logging.config.dictConfig(logging_config(config.server))
    log_warnings()
    threading.Thread(target=_end_with, args=(line,), daemon=True).start()
    try:
        app = configured_app(config, load=True)
    except GuardrailError as error:
        logger.error("a worker cannot start: %s", error)
        raise SystemExit(1) from None

    def started() -> None:
        listener.listen(QUEUE)  # what is waiting to be accepted is everybody's
        line.send_bytes(READY)

    create_server(app, config.server, on_start=started, accepted_at_once=1).run(sockets=[listener])


def _end_with(line: Connection) -> None:
    """Ends this process, gently, once the other end of the line is gone."""
    with suppress(EOFError, OSError):
        line.recv_bytes()
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise ConfigError(f"server host {host}, port {port} cannot be taken: {error.strerror}") from None
        listener.listen(QUEUE)
        yield listener


@contextmanager
def _signals() -> Iterator[Connection]:
    """Where signals are read from, as numbers."""
    heard, caught = multiprocessing.Pipe(duplex=False)
    before: dict[signal.Signals, Any] = {}
    for number in (*STOP, signal.SIGHUP):
        before[number] = signal.signal(number, lambda number, frame: caught.send(number))
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        heard.close()
        caught.close()


@contextmanager
def _metrics_folder() -> Iterator[None]:
    """Has the workers write their metrics where each of them can read those of all."""
    if os.environ.get(METRICS_FOLDER):
        yield
        return
    folder = tempfile.mkdtemp(prefix="guardrail-metrics-")
    os.environ[METRICS_FOLDER] = folder
    try:
        yield
    finally:
        del os.environ[METRICS_FOLDER]
        shutil.rmtree(folder, ignore_errors=True)


def _forget_metrics(pid: int | None) -> None:
    """What a process that has ended was just doing is no longer done; what it counted stays."""
    from prometheus_client.multiprocess import mark_process_dead

    mark_process_dead(pid)  # type: ignore[no-untyped-call]  # has no types
