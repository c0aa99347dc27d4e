"""Spans and metrics of OpenTelemetry for what a guard decides and a server answers (extra ``otel``).

Names are those of the semantic conventions for HTTP and generative AI; for guardrails these are a proposal
(``run_guardrail``, ``gen_ai.security.*``), and what it has no name for is ``guardrail.*``. No span, event or
metric holds text: labels, scores, actions, names of checks.

    guard = Guard(on_outcome=lambda outcome: telemetry.record(outcome, policy))     # without a server
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from time import time_ns
from typing import Any

from guardrail.errors import MissingExtraError
from guardrail.outcome import Action, Edit, Outcome
from guardrail.policy import Policy

try:
    from opentelemetry import metrics, trace
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as error:
    raise MissingExtraError(feature="OpenTelemetry", extra="otel") from error

__all__ = ["RequestSpan", "Telemetry", "set_up_export"]

NAME = "guardrail"
VERDICTS = {
    Action.PASSED: "allow",
    Action.REWRITTEN: "modify",
    Action.MASKED: "modify",
    Action.BLOCKED: "deny",
}
"""What the proposal calls our actions; ``guardrail.action`` has them in our own words."""
METHODS = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"))
SERVER_ERROR = 500
_PROPAGATOR = TraceContextTextMapPropagator()


def set_up_export() -> None:
    """Sends what is recorded by OTLP over HTTP, as the ``OTEL_...`` variables say.

    Where the program has providers already, as under ``opentelemetry-instrument``, these stay.
    """
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    named = "OTEL_SERVICE_NAME" in os.environ or "service.name" in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    resource = Resource.create({} if named else {"service.name": NAME})
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        provider = TracerProvider(resource=resource)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(provider)
    if type(metrics.get_meter_provider()).__name__ == "_ProxyMeterProvider":
        reader = PeriodicExportingMetricReader(OTLPMetricExporter())
        metrics.set_meter_provider(MeterProvider(resource=resource, metric_readers=[reader]))


class RequestSpan:
    """The span of a request that is being answered."""

    def __init__(self, span: Span) -> None:
        self._span = span
        context = span.get_span_context()
        self.trace_id = trace.format_trace_id(context.trace_id)
        self.span_id = trace.format_span_id(context.span_id)
        self.traceparent = f"00-{self.trace_id}-{self.span_id}-{int(context.trace_flags):02x}"

    def answered(self, status: int) -> None:
        """The answer has begun."""
        self._span.set_attribute("http.response.status_code", status)
        if status >= SERVER_ERROR:
            self._span.set_status(Status(StatusCode.ERROR))


class Telemetry:
    """Records spans and metrics with the given providers, by default those of the program."""

    def __init__(self, *, tracer_provider: Any = None, meter_provider: Any = None) -> None:
        self._tracer = trace.get_tracer(NAME, tracer_provider=tracer_provider)
        meter = metrics.get_meter(NAME, meter_provider=meter_provider)
        self._requests = meter.create_histogram("http.server.request.duration", unit="s")
        self._first_text = meter.create_histogram("gen_ai.server.time_to_first_token", unit="s")
        self._runs = meter.create_histogram("guardrail.run.duration", unit="s")
        self._edits = meter.create_counter("guardrail.edits", unit="{segment}")
        self._failed = meter.create_counter("guardrail.failed_checks", unit="{candidate}")

    @contextmanager
    def request(self, method: str, path: str, traceparent: str | None) -> Iterator[RequestSpan]:
        """Around the answer to a request; ``path`` is one of the server's own, and no text."""
        carrier = {} if traceparent is None else {"traceparent": traceparent}
        method = method if method in METHODS else "_OTHER"
        with self._tracer.start_as_current_span(
            f"{method} {path}",
            context=_PROPAGATOR.extract(carrier),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method, "http.route": path},
            record_exception=False,  # its message may quote a text
            set_status_on_exception=False,
        ) as span:
            yield RequestSpan(span)

    def answered(self, method: str, path: str, status: str, seconds: float, first: float | None) -> None:
        """Takes note of a request that is over; ``first`` are the seconds until a stream's first text."""
        attributes: dict[str, str | int] = {
            "http.request.method": method if method in METHODS else "_OTHER",
            "http.route": path,
        }
        if status.isdecimal():
            attributes["http.response.status_code"] = int(status)
        self._requests.record(seconds, attributes)
        if first is not None:
            self._first_text.record(first, {"http.route": path})

    def record(self, outcome: Outcome, policy: Policy) -> None:
        """One text that was moderated: a span that ends now, with an event for each flagged segment."""
        seconds = outcome.timings.total
        now = time_ns()
        action = str(outcome.action)
        span = self._tracer.start_span(
            "run_guardrail",
            start_time=now - round(seconds * 1e9),
            attributes={
                "gen_ai.operation.name": "run_guardrail",
                "gen_ai.security.guardrail.name": NAME,
                "gen_ai.security.policy.id": policy.digest(),
                "gen_ai.security.policy.name": policy.use,
                "gen_ai.security.verdict.type": VERDICTS[outcome.action],
                "guardrail.action": action,
                "guardrail.degraded": outcome.degraded,
            },
        )
        for edit in outcome.edits:
            span.add_event("gen_ai.security.finding", _finding(edit))
            self._edits.add(1, {"guardrail.action": str(edit.action), "guardrail.policy": policy.use})
            for check in edit.failed_checks:
                self._failed.add(1, {"guardrail.check": check, "guardrail.policy": policy.use})
        span.end(now)
        self._runs.record(seconds, {"guardrail.action": action, "guardrail.policy": policy.use})


def _finding(edit: Edit) -> dict[str, Any]:
    """What was found in a segment, and which rule decided: the likeliest label."""
    scores = edit.verdict.scores
    label = max(scores, key=scores.__getitem__, default="")
    return {
        "gen_ai.security.risk.finding": label,
        "gen_ai.security.risk.score": float(scores.get(label, 0.0)),
        "gen_ai.security.policy.rule.id": label,
        "guardrail.action": str(edit.action),
        "guardrail.failed_checks": tuple(edit.failed_checks),
    }
