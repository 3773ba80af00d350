"""Spans: one trace across processes through record headers, and nothing of a client's words in it."""

import pytest
from opentelemetry import baggage, context
from opentelemetry.trace import SpanKind, StatusCode
from told import Told

from infra import telemetry
from infra.telemetry import metrics, names

PARENT = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}


def test_while_off_spans_are_not_recorded_and_no_headers_go_out() -> None:
    with telemetry.span(names.UPDATE, {"a": 1}) as span:
        assert not span.is_recording()
        assert telemetry.headers_out() == {}
    telemetry.count(metrics.REQUESTS)
    telemetry.record(metrics.SWAP_PAUSE, 0.1)
    telemetry.gauge(metrics.REWARD_MEAN, 0.5)
    telemetry.observe(metrics.SPOOL_BYTES, lambda: 1)


def test_while_off_a_parents_context_is_passed_on() -> None:
    with telemetry.span(names.SCORE, parent=PARENT, of="trajectories"):
        assert telemetry.headers_out() == PARENT
    assert telemetry.headers_out() == {}


def test_span_context_survives_record_headers(told: Told) -> None:
    with telemetry.span(names.REQUEST, of="POST /v1/completions"):
        headers = telemetry.headers_out() | {"schema": "trace/1"}
    with telemetry.span(names.CLOSE_SESSION, {names.NUM_TURNS: 2}, parent=headers, of="traces"):
        pass
    request, close = told.span("POST /v1/completions"), told.span("process traces")
    assert request.context is not None
    assert close.context is not None
    assert close.parent is not None
    assert close.context.trace_id == request.context.trace_id
    assert close.parent.span_id == request.context.span_id
    assert close.parent.is_remote
    assert (request.kind, close.kind) == (SpanKind.SERVER, SpanKind.CONSUMER)
    assert dict(close.attributes or {}) == {"onstream.turns": 2}


def test_a_span_inside_another_is_its_child(told: Told) -> None:
    with telemetry.span(names.UPDATE), telemetry.span(names.PUBLISH):
        pass
    assert told.span("publish version").parent == told.span("update policy").context


@pytest.mark.parametrize("headers", [None, {}, {"schema": "trace/1"}, {"traceparent": "nonsense"}])
def test_a_record_without_context_begins_a_trace(headers: dict[str, str] | None, told: Told) -> None:
    with telemetry.span(names.SCORE, parent=headers, of="trajectories"):
        pass
    assert told.span("process trajectories").parent is None


def test_no_headers_go_out_outside_a_span(told: Told) -> None:
    assert telemetry.headers_out() == {}
    with telemetry.span(names.UPDATE):
        assert set(telemetry.headers_out()) == {"traceparent"}
    assert telemetry.headers_out() == {}


def test_a_clients_own_words_do_not_travel_with_the_context(told: Told) -> None:
    token = context.attach(baggage.set_baggage("name", "somebody"))
    try:
        with telemetry.span(
            names.SCORE, parent=PARENT | {"tracestate": "who=somebody", "baggage": "who=somebody"}, of="x"
        ):
            out = telemetry.headers_out()
    finally:
        context.detach(token)
    assert "somebody" not in str(out)
    assert out["traceparent"].split("-")[1] == "a" * 32


def test_links_are_those_of_headers_with_a_context_each_once_and_no_more_than_the_sdk_keeps(told: Told) -> None:
    many = [{"traceparent": f"00-{n:032x}-{n:016x}-01"} for n in range(1, 201)]
    with telemetry.span(names.TRAIN, links=[{}, {"traceparent": "nonsense"}, many[0], *many], of="rewards"):
        pass
    found = [link.context.trace_id for link in told.span("process rewards").links]
    assert found == list(range(1, names.MAX_LINKS + 1))


def test_an_error_leaves_its_class_and_nothing_of_what_it_says(told: Told) -> None:
    with pytest.raises(ValueError, match="secret"), telemetry.span(names.UPDATE):
        raise ValueError("secret")
    span = told.span("update policy")
    assert dict(span.attributes or {}) == {"error.type": "ValueError"}
    assert span.status.status_code is StatusCode.ERROR
    assert "secret" not in span.to_json()
