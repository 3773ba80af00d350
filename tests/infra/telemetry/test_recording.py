"""Spans of our own: they are sampled, kept and sent as the SDK's would be."""

import contextvars
import logging
from collections.abc import Generator

import pytest
from opentelemetry import trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import DEFAULT_ON, ParentBasedTraceIdRatio, Sampler, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from told import Told

from infra import telemetry
from infra.telemetry import instruments, metrics, names, spans
from infra.telemetry.logs import OtlpHandler
from infra.telemetry.recording import Tracer

PARENT = f"00-{'a' * 32}-{'b' * 16}"
PARENTS = [{}, *({"traceparent": f"{PARENT}-{flags}"} for flags in ("00", "01", "02", "03"))]
SAMPLERS = [DEFAULT_ON, ParentBasedTraceIdRatio(0.0), ParentBasedTraceIdRatio(1.0), TraceIdRatioBased(0.0)]


@pytest.mark.parametrize("parent", PARENTS, ids=str)
@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda one: one.get_description())
def test_what_is_kept_and_handed_on_is_what_the_sdk_keeps_and_hands_on(
    sampler: Sampler, parent: dict[str, str], told: Told
) -> None:
    provider = TracerProvider(sampler)
    theirs = provider.get_tracer("theirs").start_span("POST /", TraceContextTextMapPropagator().extract(parent))
    spans.install(Tracer(provider, told.later))
    with telemetry.span(names.REQUEST, parent=parent, of="POST /") as ours:
        assert ours.is_recording() is theirs.is_recording()
        out = telemetry.headers_out()
    expected, found = theirs.get_span_context(), ours.get_span_context()
    assert found.trace_flags == expected.trace_flags
    assert (found.trace_id == expected.trace_id) is bool(parent)
    assert out == {"traceparent": f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"}


def test_below_a_span_that_is_not_kept_none_is_kept(told: Told) -> None:
    with telemetry.span(names.SCORE, parent={"traceparent": f"{PARENT}-00"}, of="x"), telemetry.span(names.UPDATE):
        assert telemetry.headers_out()["traceparent"].startswith(f"00-{'a' * 32}")
    assert told.spans == ()


def test_other_libraries_find_the_span_around_them_except_where_every_request_would_pay(told: Told) -> None:
    with telemetry.span(names.UPDATE) as update:
        assert trace.get_current_span() is update
        with telemetry.span(names.REQUEST, of="POST /") as request:
            assert trace.get_current_span() is update
            assert telemetry.current() is request
    assert trace.get_current_span() is trace.INVALID_SPAN
    assert told.span("POST /").parent == update.get_span_context()


def test_a_log_line_has_the_ids_of_the_span_that_it_was_written_in(told: Told) -> None:
    exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
    provider = LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    with telemetry.span(names.REQUEST, of="POST /") as request:
        OtlpHandler(provider).handle(logging.makeLogRecord({"name": "serving", "msg": "it fails"}))
    (line,) = exporter.get_finished_logs()
    found, expected = line.log_record, request.get_span_context()
    assert (found.trace_id, found.span_id) == (expected.trace_id, expected.span_id)


def test_a_values_exemplar_is_of_the_span_that_it_was_seen_in(told: Told) -> None:
    with telemetry.span(names.REQUEST, of="POST /") as request:
        telemetry.record(metrics.FIRST_BYTE, 0.02, {names.ENGINE: "stable-0"})
    (exemplar,) = told.value(metrics.FIRST_BYTE).exemplars
    found = request.get_span_context()
    assert (exemplar.value, exemplar.trace_id, exemplar.span_id) == (0.02, found.trace_id, found.span_id)


def test_of_a_bucket_one_value_in_a_second_has_an_exemplar_and_each_bucket_has_its_own(
    told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(instruments.time, "monotonic", lambda: now)

    def exemplars(*values: float) -> list[float]:
        for value in values:
            with telemetry.span(names.REQUEST, of="POST /"):
                telemetry.record(metrics.FIRST_BYTE, value, {names.ENGINE: "stable-0"})
        return sorted(one.value for one in told.value(metrics.FIRST_BYTE).exemplars)

    with telemetry.span(names.SCORE, parent={"traceparent": f"{PARENT}-00"}, of="x"):
        telemetry.record(metrics.FIRST_BYTE, 0.014, {names.ENGINE: "stable-0"})  # its span is not kept
    assert exemplars(0.015, 0.016, 90.0) == [0.015, 90.0]
    now += 0.9
    assert exemplars(0.017) == []
    now += 0.2
    assert exemplars(0.018) == [0.018]


def test_a_generator_that_is_closed_from_elsewhere_leaves_what_is_around_the_others(told: Told) -> None:
    def around() -> Generator[None]:
        with telemetry.span(names.REQUEST, of="POST /"):
            yield

    generator = around()
    contextvars.copy_context().run(next, generator)
    with telemetry.span(names.UPDATE) as update:
        generator.close()
        assert telemetry.current() is update
    assert told.span("POST /").parent is None


def test_a_span_that_has_ended_tells_nothing_more(told: Told) -> None:
    with telemetry.span(names.REQUEST, of="POST /") as request:
        pass
    request.end()
    request.set_attribute(names.STATUS, 200)
    request.set_attributes({names.ARM: "stable"})
    assert not request.is_recording()
    (kept,) = told.spans
    assert dict(kept.attributes or {}) == {}


def test_a_span_that_was_sent_shows_all_that_was_written_into_it(told: Told) -> None:
    with telemetry.span(names.UPDATE, {names.VERSION: 3}) as update:
        telemetry.failed(update, "OSError")
    (kept,) = told.spans
    assert kept.to_json()
    assert (kept.name, kept.attributes) == ("update policy", {names.VERSION: 3, names.ERROR: "OSError"})
    assert kept.status.status_code is trace.StatusCode.ERROR
    assert not hasattr(kept, "of no span")
