"""Spans as OTLP: what the library makes of them, for less."""

from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from infra.telemetry.encoding import encoded

RESOURCE = Resource({"service.name": "onstream-router"}, "https://schema")
SCOPE = InstrumentationScope("onstream", "", "https://scope")


def context(number: int, is_remote: bool = False) -> SpanContext:
    return SpanContext(number << 64 | 1, number, is_remote, TraceFlags(3), TraceState([("a", "b")]))


def span(**about: Any) -> ReadableSpan:
    usual: dict[str, Any] = {
        "name": "POST /",
        "context": context(7),
        "resource": RESOURCE,
        "instrumentation_scope": SCOPE,
    }
    return ReadableSpan(**usual | {"attributes": {"a": "b"}, "start_time": 10, "end_time": 20} | about)


@pytest.mark.parametrize(
    "about",
    [
        {},
        *({"kind": kind} for kind in SpanKind),
        {"context": SpanContext(1, 2, False)},
        {"parent": context(8)},
        {"parent": context(8, is_remote=True)},
        {"attributes": {}},
        {"attributes": {"text": "", "int": -3, "float": 0.5, "true": True, "false": False, "zero": 0}},
        {"attributes": {"reasons": ("stop", "length")}},
        {"attributes": {"too large": 1 << 70, "no text": "\ud800", "a": "b"}},
        {"status": Status(StatusCode.ERROR)},
        {"status": Status(StatusCode.OK)},
        {"status": Status(StatusCode.ERROR, "why")},
        {"events": [Event("scored", {"value": 0.5}, 15)]},
        {"links": [Link(context(9))]},
    ],
    ids=lambda about: "-".join(about) or "plain",
)
def test_a_span_is_encoded_as_the_library_encodes_it(about: dict[str, Any]) -> None:
    given = [span(), span(**about), span()]
    assert encoded(given) == encode_spans(given)


def test_spans_of_other_resources_and_scopes_keep_theirs() -> None:
    vllm = {"instrumentation_scope": InstrumentationScope("vllm")}
    other = {"resource": Resource({"service.name": "vllm"})}
    given = [span(), span(**vllm), span(**other), span(kind=SpanKind.SERVER), span(**vllm)]
    found = {
        (place.resource.SerializeToString(), scope.scope.name, scope.schema_url, len(scope.spans))
        for place in encoded(given).resource_spans
        for scope in place.scope_spans
    }
    expected = {
        (place.resource.SerializeToString(), scope.scope.name, scope.schema_url, len(scope.spans))
        for place in encode_spans(given).resource_spans
        for scope in place.scope_spans
    }
    assert found == expected
    assert len(expected) == 3
