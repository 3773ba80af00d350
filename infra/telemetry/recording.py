"""Spans that cost a request little: the SDK's sampler, ids and processors, around a span of our own.

The SDK's span locks, checks and copies whenever an attribute is set. Ours is written by the one task that it is around,
with names and types of our tables, and goes to the SDK's processors when it ends. `OTEL_SPAN_..._LIMIT` do not bind it:
what our tables allow stays below the SDK's own limits.
"""

from collections.abc import Mapping, Sequence
from time import time_ns

from opentelemetry.context import Context
from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    get_current_span,
)
from opentelemetry.util.types import AnyValue, Attributes

from infra.telemetry.names import SCHEMA_URL, SCOPE

_SCOPE = InstrumentationScope(SCOPE, "", SCHEMA_URL)
_UNSET = Status()


class Recording(NonRecordingSpan):
    """A span that is kept. An exception is not: `failed` says what is told of one."""

    def __init__(
        self,
        tracer: "Tracer",
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: Attributes,
        links: Sequence[Link],
    ) -> None:
        super().__init__(context)
        self._tracer, self._name, self._parent, self._kind, self._links = tracer, name, parent, kind, links
        self._attributes = dict(attributes) if attributes else {}
        self._events: list[sdk.Event] = []
        self._status = _UNSET
        self._is_over = False
        self._begun_ns = time_ns()

    def is_recording(self) -> bool:
        return not self._is_over

    def set_attribute(self, key: str, value: AnyValue) -> None:
        if not self._is_over:
            self._attributes[key] = value

    def set_attributes(self, attributes: Mapping[str, AnyValue]) -> None:
        if not self._is_over:
            self._attributes.update(attributes)

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        if not self._is_over:
            self._events.append(sdk.Event(name, attributes, timestamp))

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        if not self._is_over:
            self._status = status if isinstance(status, Status) else Status(status, description)

    def end(self, end_time: int | None = None) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._tracer.ended(
            sdk.ReadableSpan(
                self._name,
                self.get_span_context(),
                self._parent,
                self._tracer.resource,
                self._attributes,
                self._events,
                self._links,
                self._kind,
                status=self._status,
                start_time=self._begun_ns,
                end_time=end_time or time_ns(),
                instrumentation_scope=_SCOPE,
            )
        )


class Tracer:
    """Begins spans as the SDK's tracer would: with its sampler and its ids, for its processors."""

    def __init__(self, provider: sdk.TracerProvider) -> None:
        its = provider.get_tracer(SCOPE, schema_url=SCHEMA_URL)
        assert isinstance(its, sdk.Tracer)
        self.resource, self.ended = its.resource, its.span_processor.on_end
        self._sampler, self._ids = its.sampler, its.id_generator

    def start_span(
        self, name: str, context: Context | None, kind: SpanKind, attributes: Attributes, links: Sequence[Link]
    ) -> Span:
        """A span below the one in `context` (none given: the current one), or the first of a trace."""
        parent: SpanContext | None = get_current_span(context).get_span_context()
        if parent is not None and parent.is_valid:
            trace_id, is_random = parent.trace_id, parent.trace_flags.random_trace_id
        else:
            parent, trace_id, is_random = None, self._ids.generate_trace_id(), self._ids.is_trace_id_random()
        sampled = self._sampler.should_sample(context, trace_id, name, kind, attributes, links)
        flags = TraceFlags.SAMPLED if sampled.decision.is_sampled() else TraceFlags.DEFAULT
        mine = SpanContext(
            trace_id,
            self._ids.generate_span_id(),
            is_remote=False,
            trace_flags=TraceFlags(flags | TraceFlags.RANDOM_TRACE_ID if is_random else flags),
            trace_state=sampled.trace_state,
        )
        if not sampled.decision.is_recording():
            return NonRecordingSpan(mine)
        return Recording(self, name, mine, parent, kind, sampled.attributes, links)
