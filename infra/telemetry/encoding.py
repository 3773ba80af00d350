"""Spans as OTLP, put together in place.

The library's `encode_spans` copies every span four times on its way into a request, 27 us each beside what a router
does for its users. Here a plain span is written where it stays; one with events, links or lists is the library's work,
as resources and scopes are. A test holds both to the same request.
"""

import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, SpanFlags
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Encoded
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanKind

_KINDS = {kind: Encoded.SpanKind.Value(f"SPAN_KIND_{kind.name}") for kind in SpanKind}
_FIELDS = {str: "string_value", bool: "bool_value", int: "int_value", float: "double_value"}
_AT_ONCE, _REST_S = 128, 0.0005  # a batch would hold Python's lock for 4 ms, while a request waits
_HERE = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_REMOTE = _HERE | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


def encoded(spans: Sequence[ReadableSpan]) -> ExportTraceServiceRequest:
    """What `encode_spans` makes of `spans`, but that those of one resource and scope may stand apart."""
    request = ExportTraceServiceRequest()
    places: dict[tuple[int, int], ScopeSpans] = {}
    for number, span in enumerate(spans, 1):
        if number % _AT_ONCE == 0:
            time.sleep(_REST_S)
        origin = id(span.resource), id(span.instrumentation_scope)
        place = places.get(origin)
        if place is None:
            request.MergeFrom(encode_spans([span]))
            place = places[origin] = request.resource_spans[-1].scope_spans[0]
        elif not _put(place, span):
            place.spans.MergeFrom(encode_spans([span]).resource_spans[0].scope_spans[0].spans)
    return request


def _put(place: ScopeSpans, span: ReadableSpan) -> bool:
    """Whether it could be; what is not plain, and an attribute that OTLP cannot hold, is the library's to see to."""
    context, parent, status = span.context, span.parent, span.status
    if span.events or span.links or status.description:
        return False
    try:
        attributes = b"".join([_attribute(name, told) for name, told in (span.attributes or {}).items()])
    except (KeyError, TypeError, ValueError):
        return False
    assert context is not None
    put = place.spans.add(
        trace_id=context.trace_id.to_bytes(16, "big"),
        span_id=context.span_id.to_bytes(8, "big"),
        trace_state=context.trace_state.to_header() if context.trace_state else "",
        parent_span_id=parent.span_id.to_bytes(8, "big") if parent else b"",
        name=span.name,
        kind=_KINDS[span.kind],
        start_time_unix_nano=span.start_time,
        end_time_unix_nano=span.end_time,
        dropped_attributes_count=span.dropped_attributes,
        flags=_REMOTE if parent and parent.is_remote else _HERE,
    )
    put.status.code = status.status_code.value
    put.MergeFromString(attributes)
    return True


@lru_cache(maxsize=1024, typed=True)
def _attribute(name: str, told: Any) -> bytes:
    """A span of one attribute and nothing else: spans that are put behind one another are one with all of it."""
    one = Encoded()
    setattr(one.attributes.add(key=name).value, _FIELDS[type(told)], told)
    found: bytes = one.SerializeToString()
    return found


class Exporter(OTLPSpanExporter):
    """The library's exporter, with this encoding."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        sent = self._client.export(encoded(spans).SerializeToString())
        return SpanExportResult.SUCCESS if sent.success else SpanExportResult.FAILURE
