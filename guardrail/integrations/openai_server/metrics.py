"""What is counted, for Prometheus: requests, outcomes, failures. No label holds text of anyone's."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from guardrail.guard import Guard
from guardrail.integrations.web.errors import ApiError
from guardrail.outcome import Outcome
from guardrail.policy import Policy

__all__ = ["CONTENT_TYPE", "Metrics", "MetricsMiddleware"]

CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
CUT_CODES = frozenset(
    {"guard_unavailable", "timeout", "upstream_disconnected", "upstream_malformed", "upstream_timeout"}
)
"""Errors that end streams, as a metric names them; all others are ``upstream_error``."""


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
        self.failed_checks = self._counter("failed_checks", "Refused rewrites by check.", "check")
        self.model_seconds = self._counter("model_seconds", "Waiting for models, by kind.", "kind")
        self.cut_streams = self._counter("cut_streams", "Streams that ended with an error.", "code")
        self.limited = self._counter("limited", "Requests refused by a limit.", "limit")
        self.open = Gauge("guardrail_requests_open", "Requests being answered.", registry=self.registry)
        self.seconds = Histogram(
            "guardrail_request_seconds",
            "Seconds from a request's head to the last byte of its answer.",
            ["path"],
            buckets=SECONDS,
            registry=self.registry,
        )

    def watch(self, guard: Guard) -> None:
        """Adds how the guard shares model calls, read anew for each exposition."""
        self.registry.register(_Queues(guard))

    def _counter(self, name: str, documentation: str, *labels: str) -> Counter:
        return Counter(f"guardrail_{name}", documentation, labels, registry=self.registry)

    def count(self, outcome: Outcome, *, policy: Policy) -> None:
        """Takes note of one moderated text."""
        mode, name = "enforced" if policy.enforce else "monitored", policy.name or "default"
        self.outcomes.labels(str(outcome.decided), mode, name).inc()
        for reason in outcome.degraded:
            self.degraded.labels(reason, name).inc()
        for edit in outcome.edits:
            self.edits.labels(str(edit.decided), mode, name).inc()
            for check in edit.failed_checks:
                self.failed_checks.labels(check).inc()
        for kind in ("detect", "rewrite", "embed", "verify"):
            self.model_seconds.labels(kind).inc(getattr(outcome.timings, kind))

    def count_cut(self, error: ApiError) -> None:
        """Takes note of a stream that broke off."""
        code = error.body["error"]["code"]
        self.cut_streams.labels(code if code in CUT_CODES else "upstream_error").inc()

    def exposition(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)


class _Queues(Collector):
    """The queues of a guard's model calls; see ``Guard.statistics``."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def collect(self) -> Iterator[Metric]:
        """The measurements of now."""
        found = self._guard.statistics()
        waiting = GaugeMetricFamily("guardrail_queue_texts", "Texts that wait for a model.", labels=["place"])
        backlog = GaugeMetricFamily("guardrail_backlog", "Requests before a full queue.", labels=["place"])
        running = GaugeMetricFamily("guardrail_calls_running", "Model calls being made.", labels=["place"])
        calls = CounterMetricFamily("guardrail_model_calls", "Shared model calls.", labels=["place"])
        texts = CounterMetricFamily("guardrail_model_texts", "Texts of shared calls.", labels=["place"])
        for place, queue in found.queues.items():
            waiting.add_metric([place], queue.waiting_texts)
            backlog.add_metric([place], queue.backlog)
            running.add_metric([place], queue.running)
            calls.add_metric([place], queue.calls)
            texts.add_metric([place], queue.texts)
        yield from (waiting, backlog, running, calls, texts)


class MetricsMiddleware:
    """Counts and times the requests of an application; a path that it does not serve counts as ``other``."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, paths: frozenset[str]) -> None:
        self.app = app
        self._metrics = metrics
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
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

        with self._metrics.open.track_inprogress():
            try:
                await self.app(scope, receive, noting)
            finally:
                self._metrics.requests.labels(path, status).inc()
                self._metrics.seconds.labels(path).observe(perf_counter() - started)
