"""Spans as OTLP: what the library makes of them, for less."""

from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceFlags, TraceState

from infra.telemetry import encoding, names
from infra.telemetry.encoding import encoded
from infra.telemetry.later import Later
from infra.telemetry.recording import Ended, Recording, Tracer

RESOURCE = Resource({"service.name": "onstream-router"}, "https://schema")
TRACER = Tracer(TracerProvider(resource=RESOURCE, shutdown_on_exit=False), Later())
OTHER = f"00-{1:032x}-{2:016x}-01"


def context(number: int, is_remote: bool = False) -> SpanContext:
    return SpanContext(number << 64 | 1, number, is_remote, TraceFlags(3), TraceState([("a", "b")]))


def span(
    name: names.SpanName = names.REQUEST,
    of: str = "POST /",
    links: tuple[Link, ...] = (),
    parent: SpanContext | None = None,
    **written: Any,
) -> Ended:
    kept = TRACER.begin(name, of, {"a": "b"}, links, parent)
    assert isinstance(kept, Recording)
    for key, value in written.items():
        setattr(kept, key, value)
    kept.begun_ns, kept.ended_ns = 10, 20
    return Ended(kept, RESOURCE)


@pytest.mark.parametrize(
    "about",
    [
        {},
        *({"name": name, "of": "x"} for name in {name.role: name for name in names.SPANS}.values()),
        {"traceparent": OTHER},
        {"state": TraceState([("a", "b"), ("c", "d")])},
        {"parent": context(8)},
        {"parent": context(8, is_remote=True)},
        {"attributes": {}},
        {"attributes": {"text": "", "int": -3, "float": 0.5, "true": True, "false": False, "zero": 0}},
        {"attributes": {"long": "x" * 200}},
        {"attributes": {"longer": "x" * 20_000}},
        {"attributes": {"reasons": ("stop", "length")}},
        {"attributes": {"too large": 1 << 70, "no text": "\ud800", "a": "b"}},
        {"status": Status(StatusCode.ERROR)},
        {"status": Status(StatusCode.OK)},
        {"status": Status(StatusCode.ERROR, "why")},
        {"events": [Event("scored", {"value": 0.5}, 15)]},
        {"links": (Link(context(9)),)},
    ],
    ids=lambda about: "-".join(about) or "plain",
)
def test_a_span_is_encoded_as_the_library_encodes_it(about: dict[str, Any]) -> None:
    given = [span(), span(**about), span()]
    assert ExportTraceServiceRequest.FromString(encoded(given)) == encode_spans(given)


def test_a_plain_span_of_ours_is_not_the_librarys_work(monkeypatch: pytest.MonkeyPatch) -> None:
    given, asked = [span(), span(), span(attributes={"reasons": ("stop",)}), span()], list[ReadableSpan]()
    monkeypatch.setattr(encoding, "encode_spans", lambda spans: asked.extend(spans) or encode_spans(spans))
    encoded(given)
    assert asked == [given[2], given[0]]


def test_spans_of_other_resources_and_scopes_keep_theirs() -> None:
    def theirs(resource: Resource, scope: InstrumentationScope) -> ReadableSpan:
        return ReadableSpan(
            "llm_request", context(7), resource=resource, instrumentation_scope=scope, start_time=10, end_time=20
        )

    vllm, other = InstrumentationScope("vllm"), Resource({"service.name": "vllm"})
    given = [span(), theirs(RESOURCE, vllm), theirs(other, vllm), span(parent=context(8)), theirs(RESOURCE, vllm)]
    found = {
        (place.resource.SerializeToString(), scope.scope.name, scope.schema_url, len(scope.spans))
        for place in ExportTraceServiceRequest.FromString(encoded(given)).resource_spans
        for scope in place.scope_spans
    }
    expected = {
        (place.resource.SerializeToString(), scope.scope.name, scope.schema_url, len(scope.spans))
        for place in encode_spans(given).resource_spans
        for scope in place.scope_spans
    }
    assert found == expected
    assert len(expected) == 3
