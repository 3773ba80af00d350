"""Telemetry: off unless asked for, and one trace across processes through record headers."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from infra import telemetry


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Spans that ended, with a provider for this test alone: the API takes one for the whole process."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "console"},
    ],
)
def test_nothing_is_installed_unless_it_is_asked_for(environ: dict[str, str]) -> None:
    before = trace.get_tracer_provider(), metrics.get_meter_provider()
    telemetry.setup("test", environ)
    assert (trace.get_tracer_provider(), metrics.get_meter_provider()) == before


def test_without_setup_spans_are_not_recorded_and_no_headers_go_out() -> None:
    with telemetry.span(telemetry.CHAT, {"a": 1}) as span:
        assert not span.is_recording()
        assert telemetry.headers_out() == {}
    telemetry.count(telemetry.REQUESTS, 1, arm="stable")
    telemetry.record(telemetry.SWAP_PAUSE, 0.1)
    telemetry.gauge(telemetry.REWARD_MEAN, 0.5)


def test_what_is_asked_for_is_exported_by_the_time_the_process_ends() -> None:
    program = (
        "from infra import telemetry\n"
        "telemetry.setup('trainer', {'OTEL_TRACES_EXPORTER': 'console', 'OTEL_METRICS_EXPORTER': 'console'})\n"
        "with telemetry.span(telemetry.UPDATE, {'turns': 3}):\n"
        "    telemetry.count(telemetry.TURNS_TRAINED, 3)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    for expected in ('"update policy"', '"turns": 3', '"service.name": "trainer"', '"onstream.trainer.turns"'):
        assert expected in done.stdout


def test_span_context_survives_record_headers(exported: InMemorySpanExporter) -> None:
    with telemetry.span(telemetry.CHAT, kind=SpanKind.SERVER):
        headers = telemetry.headers_out() | {"schema": "trace/1"}
    with telemetry.span(telemetry.CLOSE_SESSION, {"turns": 2}, parent=headers, kind=SpanKind.CONSUMER):
        pass
    chat, close = by_name(exported)[telemetry.CHAT], by_name(exported)[telemetry.CLOSE_SESSION]
    assert chat.context is not None
    assert close.context is not None
    assert close.parent is not None
    assert close.context.trace_id == chat.context.trace_id
    assert close.parent.span_id == chat.context.span_id
    assert close.parent.is_remote
    assert (chat.kind, close.kind) == (SpanKind.SERVER, SpanKind.CONSUMER)
    assert dict(close.attributes or {}) == {"turns": 2}


def test_a_span_inside_another_is_its_child(exported: InMemorySpanExporter) -> None:
    with telemetry.span(telemetry.UPDATE), telemetry.span(telemetry.PUBLISH):
        pass
    outer, inner = by_name(exported)[telemetry.UPDATE], by_name(exported)[telemetry.PUBLISH]
    assert inner.parent == outer.context


@pytest.mark.parametrize("headers", [None, {}, {"schema": "trace/1"}, {"traceparent": "nonsense"}])
def test_a_record_without_context_begins_a_trace(
    headers: dict[str, str] | None, exported: InMemorySpanExporter
) -> None:
    with telemetry.span(telemetry.SCORE, parent=headers):
        pass
    assert by_name(exported)[telemetry.SCORE].parent is None


def test_no_headers_go_out_outside_a_span(exported: InMemorySpanExporter) -> None:
    assert telemetry.headers_out() == {}
    with telemetry.span(telemetry.CHAT):
        assert set(telemetry.headers_out()) == {"traceparent"}
    assert telemetry.headers_out() == {}
