"""Spans as the bytes of an OTLP request.

The library's `encode_spans` copies every span four times on its way into a request, 27 us each beside what a router
does for its users. Here a plain span of ours is written as its bytes at once; one with events, links or lists is the
library's work, as others' spans, resources and scopes are. A test holds both to the same request.
"""

import time
from collections.abc import Sequence
from functools import lru_cache
from struct import Struct
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Encoded
from opentelemetry.proto.trace.v1.trace_pb2 import SpanFlags, Status
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import StatusCode

from infra.telemetry.names import SpanRole
from infra.telemetry.recording import Ended, Recording

_KINDS = {role: Encoded.SpanKind.Value(f"SPAN_KIND_{role.name}") for role in SpanRole}
_FIELDS = {str: "string_value", bool: "bool_value", int: "int_value", float: "double_value"}
_AT_ONCE, _REST_S = 128, 0.0005  # a batch would hold Python's lock for 2 ms, while a request waits
_REPEATING = 40  # characters: longer texts are ids, of one span each, and would push what repeats out of the caches
_HERE = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_REMOTE = _HERE | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
# Of every span, each field behind its tag: trace_id, span_id, start_time_unix_nano, end_time_unix_nano, flags.
_SPAN = Struct("<2s16s2s8sBQBQ2sI")
_TRACE_ID, _SPAN_ID, _PARENT_ID, _START, _END, _FLAGS = b"\x0a\x10", b"\x12\x08", b"\x22\x08", 0x39, 0x41, b"\x85\x01"


def encoded(spans: Sequence[ReadableSpan]) -> bytes:
    """An `ExportTraceServiceRequest` of `spans`, as `encode_spans` makes one."""
    places: dict[tuple[int, int], tuple[ReadableSpan, list[bytes]]] = {}
    for number, span in enumerate(spans, 1):
        if number % _AT_ONCE == 0:
            time.sleep(_REST_S)
        one = _plain(span.kept) if isinstance(span, Ended) else None
        if one is None:
            one = encode_spans([span]).resource_spans[0].scope_spans[0].spans[0].SerializeToString()
        places.setdefault((id(span.resource), id(span.instrumentation_scope)), (span, []))[1].append(_field(0x12, one))
    return b"".join(_of_one_origin(*place) for place in places.values())


def _of_one_origin(first: ReadableSpan, spans: list[bytes]) -> bytes:
    """A request of spans that have resource and scope in common."""
    (resource,) = encode_spans([first]).resource_spans
    scope = resource.scope_spans.pop()
    scope.ClearField("spans")
    return _field(0x0A, resource.SerializeToString() + _field(0x12, scope.SerializeToString() + b"".join(spans)))


def _plain(span: Recording) -> bytes | None:
    """As bytes; `None`: it is not plain, or has an attribute that OTLP cannot hold, which the library sees to."""
    if span.events or span.links or span.status.description:
        return None
    try:
        parts = [
            _text(name, told) if type(told) is str and len(told) > _REPEATING else _attribute(name, told)
            for name, told in span.attributes.items()
        ]
    except (KeyError, TypeError, ValueError):
        return None
    parent = span.parent
    parts += (
        _SPAN.pack(
            _TRACE_ID,
            bytes.fromhex(span.traceparent[3:35]),
            _SPAN_ID,
            bytes.fromhex(span.traceparent[36:52]),
            _START,
            span.begun_ns,
            _END,
            span.ended_ns,
            _FLAGS,
            _REMOTE if parent and parent.is_remote else _HERE,
        ),
        _about(span.name.name, span.of, span.name.role, span.status.status_code),
    )
    if parent:
        parts.append(_PARENT_ID + parent.span_id.to_bytes(8, "big"))
    if span.state:
        parts.append(Encoded(trace_state=span.state.to_header()).SerializeToString())
    return b"".join(parts)


@lru_cache(maxsize=1024)
def _about(name: str, of: str, role: SpanRole, code: StatusCode) -> bytes:
    """A span of what it has in common with many."""
    one = Encoded(name=name.format(of), kind=_KINDS[role])
    one.status.code = getattr(Status.StatusCode, f"STATUS_CODE_{code.name}")
    found: bytes = one.SerializeToString()
    return found


@lru_cache(maxsize=1024, typed=True)
def _attribute(name: str, told: Any) -> bytes:
    """A span of one attribute and nothing else: spans that are put behind one another are one with all of it."""
    one = Encoded()
    setattr(one.attributes.add(key=name).value, _FIELDS[type(told)], told)
    found: bytes = one.SerializeToString()
    return found


def _text(name: str, told: str) -> bytes:
    """`_attribute` of a text that is this span's alone."""
    value = _field(0x0A, told.encode())  # AnyValue.string_value
    return _field(0x4A, _key(name) + _field(0x12, value))  # Span.attributes, KeyValue.value


@lru_cache(maxsize=1024)
def _key(name: str) -> bytes:
    """A `KeyValue` of its key."""
    return _field(0x0A, name.encode())


def _field(tag: int, value: bytes) -> bytes:
    """A field that has a length before it: seven bits a byte, the lowest first."""
    head, left = bytearray((tag,)), len(value)
    while left > 127:
        head.append(left & 127 | 128)
        left >>= 7
    head.append(left)
    return bytes(head) + value


class Exporter(OTLPSpanExporter):
    """The library's exporter, with this encoding."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        sent = self._client.export(encoded(spans))
        return SpanExportResult.SUCCESS if sent.success else SpanExportResult.FAILURE
