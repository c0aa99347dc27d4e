"""Is it alive, can it work, what has it done: for orchestrators and Prometheus. No label holds anyone's text.

With ``PROMETHEUS_MULTIPROC_DIR`` set, as ``guardrail serve --workers`` does, each process writes what it
counts into that folder, and every one of them can report the metrics of all.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

import anyio
from fastapi import APIRouter
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from guardrail.engine.batching import QueueStatistics
from guardrail.errors import GuardrailError
from guardrail.guard import Guard
from guardrail.integrations.completions.timing import first_text
from guardrail.integrations.web.errors import ApiError, JsonReply
from guardrail.outcome import Outcome
from guardrail.policy import Policy

if TYPE_CHECKING:
    from guardrail.integrations.web.telemetry import Telemetry

__all__ = ["Metrics", "MetricsMiddleware", "Readiness", "health_routes", "upstream_time"]

logger = logging.getLogger("guardrail.server")

PARTS = ("detector", "lexicon", "rewriter", "verifier")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
CUT_CODES = frozenset(
    {
        *("guard_unavailable", "timeout", "too_costly"),
        *("upstream_disconnected", "upstream_malformed", "upstream_timeout"),
    }
)
"""Errors that end streams, as a metric names them; all others are ``upstream_error``."""
MODELS = ("detect", "rewrite", "embed", "verify")
QUEUE_SECONDS = 1.0
"""How often queues are looked at for those who ask another process."""


@dataclass(slots=True)
class RequestTimes:
    """Seconds that one request waited for the API behind the proxy and for the guard's models."""

    upstream: float = 0.0
    guard: float = 0.0


_times: ContextVar[RequestTimes | None] = ContextVar("guardrail_request_times", default=None)


@contextmanager
def upstream_time() -> Iterator[None]:
    """Around each wait for the upstream."""
    times = _times.get()
    started = perf_counter()
    try:
        yield
    finally:
        if times is not None:
            times.upstream += perf_counter() - started


class Metrics:
    """The measurements of one server, in a registry of its own.

    ``mode`` is ``monitored`` if nothing was done; ``action`` is then what an enforcing policy would do.
    ``policy`` is the name of the policy that decided, ``default`` for one without a name.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Requests by path and status.", "path", "status")
        decided = ("action", "mode", "policy")
        self.outcomes = self._counter("outcomes", "Moderated texts by action.", *decided)
        self.degraded = self._counter("degraded", "Texts without a full pass, by reason.", "reason", "policy")
        self.edits = self._counter("edits", "Flagged segments by action.", *decided)
        self.failed_checks = self._counter("failed_checks", "Refused rewrites by check.", "check", "policy")
        self.model_seconds = self._counter("model_seconds", "Waiting for models, by kind.", "kind")
        self.cut_streams = self._counter("cut_streams", "Streams that ended with an error.", "code")
        self.limited = self._counter("limited", "Requests refused by a limit.", "limit")
        self.open = self._gauge("requests_open", "Requests being answered.")
        self.seconds = self._histogram("request", "Seconds from a request's head to its answer's last byte.")
        self.first_text = self._histogram("first_text", "Seconds from a request's head to a stream's text.")
        self.upstream_seconds = self._histogram("upstream", "Seconds that a request waited for the upstream.")
        self.guard_seconds = self._histogram("guard", "Seconds that a request waited for the guard's models.")
        self._queues = _Queues(self)
        self._guards: tuple[Guard, ...] = ()

    def watch(self, *guards: Guard) -> None:
        """Adds how these share model calls, as it is whenever somebody asks."""
        self._guards += guards

    async def look_at_queues(self) -> None:
        """Takes note of the queues again and again, for those who ask another process."""
        while True:
            self._queues.update(self._guards)
            await anyio.sleep(QUEUE_SECONDS)

    def waited(self) -> float:
        """Seconds for which a text has waited for its detector."""
        found = (guard.statistics().queues.get("detector") for guard in self._guards)
        return max((queue.waited for queue in found if queue is not None), default=0.0)

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"guardrail_{name}", documentation, labels, registry=self.registry)

    def _gauge(self, name: str, documentation: str, *labels: str) -> Gauge:
        return Gauge(
            f"guardrail_{name}", documentation, labels, registry=self.registry, multiprocess_mode="livesum"
        )

    def _histogram(self, name: str, documentation: str) -> Histogram:
        return Histogram(
            f"guardrail_{name}_seconds", documentation, ["path"], buckets=SECONDS, registry=self.registry
        )

    def count(self, outcome: Outcome, policy: Policy) -> None:
        """Takes note of one text that was moderated under a policy."""
        mode, name = "enforced" if policy.enforce else "monitored", policy.name or "default"
        self.outcomes.labels(str(outcome.decided), mode, name).inc()
        for reason in outcome.degraded:
            self.degraded.labels(reason, name).inc()
        for edit in outcome.edits:
            self.edits.labels(str(edit.decided), mode, name).inc()
            for check in edit.failed_checks:
                self.failed_checks.labels(check, name).inc()
        for kind in MODELS:
            self.model_seconds.labels(kind).inc(getattr(outcome.timings, kind))
        if (times := _times.get()) is not None:
            times.guard += sum(getattr(outcome.timings, kind) for kind in MODELS)

    def count_request(self, path: str, status: str, seconds: float, times: RequestTimes) -> None:
        """Takes note of a request that is over."""
        self.requests.labels(path, status).inc()
        self.seconds.labels(path).observe(seconds)
        if times.upstream:
            self.upstream_seconds.labels(path).observe(times.upstream)
        if times.guard:
            self.guard_seconds.labels(path).observe(times.guard)

    def count_cut(self, error: ApiError) -> None:
        """Takes note of a stream that broke off."""
        code = error.body["error"]["code"]
        self.cut_streams.labels(code if code in CUT_CODES else "upstream_error").inc()

    def exposition(self) -> bytes:
        """All of it in Prometheus' text format."""
        self._queues.update(self._guards)
        if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            return generate_latest(self.registry)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # has no types
        return generate_latest(registry)


class _Queues:
    """The queues of the guards' model calls; see ``Guard.statistics``."""

    def __init__(self, metrics: Metrics) -> None:
        gauge, counter = metrics._gauge, metrics._counter
        self._waiting = gauge("queue_texts", "Texts that wait for a model.", "place")
        self._backlog = gauge("backlog", "Requests before a full queue.", "place")
        self._running = gauge("calls_running", "Model calls being made.", "place")
        self._calls = counter("model_calls", "Shared model calls.", "place")
        self._texts = counter("model_texts", "Texts of shared calls.", "place")
        self._seen: dict[str, tuple[int, int]] = {}

    def update(self, guards: tuple[Guard, ...]) -> None:
        """Takes note of the queues as they are now."""
        found = [guard.statistics().queues for guard in guards]
        for place in dict.fromkeys(place for queues in found for place in queues):
            self._set(place, [queues[place] for queues in found if place in queues])

    def _set(self, place: str, queues: list[QueueStatistics]) -> None:
        self._waiting.labels(place).set(sum(queue.waiting_texts for queue in queues))
        self._backlog.labels(place).set(sum(queue.backlog for queue in queues))
        self._running.labels(place).set(sum(queue.running for queue in queues))
        calls, texts = sum(queue.calls for queue in queues), sum(queue.texts for queue in queues)
        calls_before, texts_before = self._seen.get(place, (0, 0))
        self._calls.labels(place).inc(calls - calls_before)
        self._texts.labels(place).inc(texts - texts_before)
        self._seen[place] = calls, texts


class MetricsMiddleware:
    """Counts and times the requests of an application; a path that it does not serve counts as ``other``."""

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, paths: frozenset[str], telemetry: Telemetry | None = None
    ) -> None:
        self.app = app
        self._telemetry = telemetry
        self._metrics = metrics
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self._paths else "other"
        status = "none"
        started = perf_counter()

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        times = RequestTimes()
        token = _times.set(times)
        with self._metrics.open.track_inprogress(), first_text() as first:
            try:
                await self.app(scope, receive, noting)
            finally:
                _times.reset(token)
                seconds = perf_counter() - started
                until_text = None if first.at is None else first.at - started
                self._metrics.count_request(path, status, seconds, times)
                if until_text is not None:
                    self._metrics.first_text.labels(path).observe(until_text)
                if self._telemetry is not None:
                    self._telemetry.answered(scope["method"], path, status, seconds, until_text)


class Readiness:
    """Whether the models are loaded.

    ``state`` is ``loading``, ``ready`` or ``failed``; ``degraded`` says which models will not work although
    texts can be moderated without them, such as a rewriter whose base is missing. ``parts`` says of each
    model the state, or in place of ``ready`` the reason.
    """

    @property
    def parts(self) -> dict[str, str]:
        """The parts of the guard by name."""
        reasons = {reason.partition("_")[0]: reason for reason in self.degraded}
        if self.state == "loading" or self.error is not None:
            return dict.fromkeys(PARTS, self.error or self.state)
        return {name: reasons.get(name, "ready") for name in PARTS}

    def __init__(self, guard: Guard) -> None:
        self.state = "loading"
        self.error: str | None = None
        self.degraded: tuple[str, ...] = ()
        self._guard = guard

    async def prepare(self) -> None:
        """Loads the models, off the event loop."""
        try:
            self.degraded = await anyio.to_thread.run_sync(self._guard.load, abandon_on_cancel=True)
        except GuardrailError as error:
            self.state, self.error = "failed", type(error).__name__
            logger.error("the guard cannot work: %s", error)
        else:
            blind = any(reason.startswith("detector") for reason in self.degraded)
            self.state = "failed" if blind else "ready"


def health_routes(readiness: Readiness, metrics: Metrics) -> APIRouter:
    """/healthz, /readyz and /metrics."""
    router = APIRouter()

    @router.get("/healthz")
    async def alive() -> Response:
        return JsonReply({"status": "ok"})

    @router.get("/readyz")
    async def ready() -> Response:
        answer = {"status": readiness.state, "degraded": list(readiness.degraded), "parts": readiness.parts}
        return JsonReply(answer, status_code=200 if readiness.state == "ready" else 503)

    @router.get("/metrics")
    async def counted() -> Response:
        return Response(metrics.exposition(), headers={"content-type": CONTENT_TYPE_LATEST})

    return router
