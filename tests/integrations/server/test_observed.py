"""What is seen from outside: traces, spans, metrics, logs, readiness; and that none of it holds text."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from guardrail.config import ServerSettings
from guardrail.config.settings import Url
from guardrail.integrations.openai_server import Keys, create_app
from guardrail.integrations.openai_server.server import JsonFormatter
from guardrail.integrations.web.telemetry import Telemetry
from tests.fakes import WordDetector
from tests.integrations.server.running import (
    CLEAN,
    MENDED,
    TOXIC,
    Upstream,
    completion,
    delta,
    fake_guard,
    get,
    post,
    proxy,
    serving,
)
from tests.waiting import wait_until

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"
CANARY = "canarybird"
DASHBOARD = Path(__file__).parents[3] / "docs" / "deploy" / "grafana.json"


class Recorded:
    """Spans and metrics as they were recorded."""

    def __init__(self) -> None:
        self._exporter, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        meters = MeterProvider(metric_readers=[self._reader])
        self.telemetry = Telemetry(tracer_provider=provider, meter_provider=meters)

    def spans(self, name: str) -> list[Any]:
        """Spans of that name which have ended."""
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def shown(self) -> str:
        """All of it as JSON."""
        metrics = self._reader.get_metrics_data()
        return "".join(span.to_json() for span in self._exporter.get_finished_spans()) + (
            metrics.to_json() if metrics else ""
        )


def observed_app(upstream: Upstream, recorded: Recorded) -> Any:
    settings = ServerSettings(upstream=Url(f"{upstream.url}/v1"))
    return create_app(fake_guard(), settings=settings, keys=Keys(), telemetry=recorded.telemetry)


def test_a_request_is_a_span_of_the_clients_trace_and_the_parent_of_what_goes_upstream(
    upstream: Upstream,
) -> None:
    upstream.reply = lambda asked: completion([f"{CLEAN} {TOXIC}"])
    recorded = Recorded()
    with serving(observed_app(upstream, recorded)) as url:
        answer = post(f"{url}/v1/chat/completions", json={}, headers={"traceparent": TRACEPARENT})
        wait_until(lambda: recorded.spans("POST /v1/chat/completions"))
    assert answer.json()["choices"][0]["message"]["content"] == f"{CLEAN} {MENDED}"
    (request,) = recorded.spans("POST /v1/chat/completions")
    assert f"{request.context.trace_id:032x}" == TRACE
    assert f"{request.parent.span_id:016x}" == PARENT
    assert request.attributes["http.response.status_code"] == 200
    (asked,) = upstream.asked
    assert asked.header("traceparent") == f"00-{TRACE}-{request.context.span_id:016x}-01"
    run = next(span for span in recorded.spans("run_guardrail") if span.events)
    assert run.parent.span_id == request.context.span_id
    assert run.attributes["gen_ai.security.verdict.type"] == "modify"
    assert run.attributes["guardrail.action"] == "rewritten"
    assert run.events[0].attributes["gen_ai.security.policy.rule.id"] == "toxicity"


@pytest.mark.parametrize("shown", [TRACEPARENT, "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "idiot"])
def test_without_telemetry_the_clients_own_trace_goes_upstream_and_into_the_log(
    url: str, upstream: Upstream, caplog: pytest.LogCaptureFixture, shown: str
) -> None:
    lines: list[dict[str, Any]] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(JsonFormatter().format(record)))

    access, handler = logging.getLogger("guardrail.access"), Lines()
    access.addHandler(handler)
    try:
        with caplog.at_level(logging.INFO, "guardrail.access"):
            post(f"{url}/v1/chat/completions", json={}, headers={"traceparent": shown})
            wait_until(lambda: lines)
    finally:
        access.removeHandler(handler)
    assert upstream.asked[0].header("traceparent") == shown
    found = {name: lines[0].get(name) for name in ("trace_id", "span_id")}
    expected = (TRACE, PARENT) if shown == TRACEPARENT else (None, None)
    assert tuple(found.values()) == expected


def test_no_span_metric_or_log_holds_text(upstream: Upstream, caplog: pytest.LogCaptureFixture) -> None:
    upstream.says(delta(f"{CANARY} one. {TOXIC} {CANARY}. "), delta(reason="stop"), "[DONE]")
    recorded = Recorded()
    asked = {"stream": True, "model": CANARY, "messages": [{"role": "user", "content": CANARY}]}
    with caplog.at_level(logging.DEBUG), serving(observed_app(upstream, recorded)) as url:
        answer = post(f"{url}/v1/chat/completions", json=asked)
        post(f"{url}/{CANARY}?{CANARY}={CANARY}", json=asked)
        post(f"{url}/v1/detoxify", json={"input": f"{CANARY} {TOXIC}"})
        metrics = get(f"{url}/metrics").text
        wait_until(lambda: len(recorded.spans("POST other")) == 1)
    assert CANARY in answer.text
    assert "run_guardrail" in recorded.shown()
    assert "gen_ai.server.time_to_first_token" in recorded.shown()
    logged = [record.getMessage() for record in caplog.records if record.name.startswith("guardrail")]
    assert logged
    for shown in (recorded.shown(), metrics, *logged):
        assert CANARY not in shown
        assert "idiot" not in shown


def test_every_metric_of_the_dashboard_is_in_the_exposition(upstream: Upstream) -> None:
    upstream.says(delta(f"{TOXIC} "), delta(reason="stop"), "[DONE]")
    panels = json.loads(DASHBOARD.read_text())["panels"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    named = {name for expression in expressions for name in re.findall(r"guardrail_\w+", expression)}
    with proxy(upstream) as url:
        post(f"{url}/v1/chat/completions", json={"stream": True})
        exposed = get(f"{url}/metrics").text
    families = set(re.findall(r"^# TYPE (guardrail_\w+)", exposed, re.MULTILINE))
    assert len(named) > 10
    assert {re.sub(r"_bucket$", "", name) for name in named} <= families
    for name in ("first_text", "upstream", "guard"):
        assert f'guardrail_{name}_seconds_count{{path="/v1/chat/completions"}} 1.0' in exposed


def test_readiness_says_which_part_cannot_work() -> None:
    class Broken(WordDetector):
        def detect(self, texts: Any) -> Any:
            raise OSError("no such device")

    with proxy(guard=fake_guard(detector=Broken())) as url:
        wait_until(lambda: get(f"{url}/readyz").json()["status"] != "loading")
        answer = get(f"{url}/readyz")
    assert answer.status_code == 503
    assert answer.json()["parts"]["detector"] == "detector_error"
    assert answer.json()["parts"]["rewriter"] == "ready"


def test_without_the_extra_nothing_is_imported_and_the_option_names_it() -> None:
    script = (
        "import sys\n"
        "from guardrail.config import Config, ServerSettings\n"
        "from guardrail.integrations.asgi import configured_app\n"
        "configured_app(Config())\n"
        "assert not {'opentelemetry.sdk', 'guardrail.integrations.web.telemetry'} & set(sys.modules)\n"
        "sys.modules['opentelemetry'] = None\n"
        "configured_app(Config(server=ServerSettings(otel=True)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'detox-guardrail[otel]'" in done.stderr
