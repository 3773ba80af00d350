"""Spans that cost a request little: a span of our own, with the SDK's sampler before it and its processors behind it.

The SDK's span locks, checks and copies whenever an attribute is set, and goes through a batch processor when it ends.
Ours is written by the one task that it is around, with names and types of our tables, and is left for later when it
ends. `OTEL_SPAN_..._LIMIT` do not bind it: what our tables allow stays below the SDK's own limits.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from random import Random
from time import time_ns
from types import TracebackType
from typing import Any

from opentelemetry.sdk import trace as sdk
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.sampling import DEFAULT_ON, Decision
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.util.types import AnyValue, Attributes

from infra.telemetry.instruments import Labels
from infra.telemetry.later import Later
from infra.telemetry.names import SCHEMA_URL, SCOPE, SpanName
from infra.telemetry.spans import TRACEPARENT_FORM, Around, failed

_KINDS = {kind.name.lower(): kind for kind in SpanKind}
_SCOPE = InstrumentationScope(SCOPE, "", SCHEMA_URL)
_UNSET = Status()
_RANDOM, _SAMPLED = TraceFlags.RANDOM_TRACE_ID, TraceFlags.SAMPLED
_new = object.__new__
_bits = Random().getrandbits  # noqa: S311 - ids, and no secrets


class Recording(Around):
    """A span that is kept; `Tracer.begin` makes it, in place: a request pays for each call on its way."""

    name: SpanName
    of: str
    parent: SpanContext | None
    attributes: Mapping[str, AnyValue]  # never changed in place: the thread that tells may look at it
    begun_ns: int
    ended_ns = 0
    links: Sequence[Link] = ()
    events: Sequence[sdk.Event] = ()
    status = _UNSET
    tracer: "Tracer"

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:  # also what only ends a task: its span has failed, and it goes on its way
            failed(self, kind.__qualname__)
        self.end()
        self.leave()

    def end(self, end_time: int | None = None) -> None:
        """Tell of it: later, or now where `end_time` says that it ended before."""
        if self.ended_ns:
            return
        self.ended_ns = end_time or time_ns()
        if end_time is None:
            self.tracer.later.leave(partial(self.tracer.told, self))
        else:
            self.tracer.told(self)

    def is_recording(self) -> bool:
        return not self.ended_ns

    def set_attribute(self, key: str, value: AnyValue) -> None:
        self.set_attributes({key: value})

    def set_attributes(self, attributes: Mapping[str, AnyValue]) -> None:
        if not self.ended_ns:
            self.attributes = {**self.attributes, **attributes}

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        self.events = (*self.events, sdk.Event(name, attributes, timestamp))

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        self.status = status if isinstance(status, Status) else Status(status, description)


class Ended(sdk.ReadableSpan):
    """A span that ended, as the SDK's processors and exporters know one: all of it, once they ask for more than our own
    exporter does."""

    def __init__(self, kept: Recording, resource: Resource) -> None:
        self.kept = kept
        self._context, self._resource, self._instrumentation_scope = kept.get_span_context(), resource, _SCOPE

    def __getattr__(self, name: str) -> Any:
        if "_name" in self.__dict__:
            raise AttributeError(name)
        kept = self.kept
        super().__init__(
            kept.name.name.format(kept.of),
            self._context,
            kept.parent,
            self._resource,
            kept.attributes,
            kept.events,
            kept.links,
            _KINDS[kept.name.role],
            status=kept.status,
            start_time=kept.begun_ns,
            end_time=kept.ended_ns,
            instrumentation_scope=_SCOPE,
        )
        return getattr(self, name)


class Tracer:
    """Begins spans as the SDK's tracer would, and gives the SDK's processors those that ended."""

    def __init__(self, provider: sdk.TracerProvider, later: Later) -> None:
        its = provider.get_tracer(SCOPE, schema_url=SCHEMA_URL)
        assert isinstance(its, sdk.Tracer)
        self.later = later
        self._resource, self._processor, self._sampler = its.resource, its.span_processor, its.sampler
        self._is_default = self._sampler is DEFAULT_ON

    def begin(
        self, name: SpanName, of: str, attributes: Labels, links: Sequence[Link], parent: SpanContext | None
    ) -> Around:
        """A span below `parent`, or the first of a trace; `attributes` are its own from now on."""
        if parent is None:
            trace_id, flags, state = _bits(128) or 1, _RANDOM, None
        else:
            trace_id, flags, state = parent.trace_id, parent.trace_flags & _RANDOM, parent.trace_state
        if self._is_default and (parent is None or parent.trace_flags.sampled):  # what it would say, without asking it
            flags |= _SAMPLED
        else:
            above = set_span_in_context(NonRecordingSpan(parent)) if parent else None
            kind = _KINDS[name.role]
            sampled = self._sampler.should_sample(above, trace_id, name.name.format(of), kind, attributes, links)
            attributes, state = sampled.attributes or {}, sampled.trace_state
            if sampled.decision is Decision.RECORD_AND_SAMPLE:
                flags |= _SAMPLED
            elif sampled.decision is Decision.DROP:
                return Around(TRACEPARENT_FORM % (trace_id, _bits(64) or 1, flags), state, name.is_ambient)
        kept: Recording = _new(Recording)
        kept.traceparent = TRACEPARENT_FORM % (trace_id, _bits(64) or 1, flags)
        kept.tracer, kept.name, kept.of, kept.parent, kept.is_ambient = self, name, of, parent, name.is_ambient
        kept.attributes = attributes
        if links:
            kept.links = links
        if state:
            kept.state = state
        kept.begun_ns = time_ns()
        return kept

    def told(self, span: Recording) -> None:
        """Give the processors a span that ended."""
        self._processor.on_end(Ended(span, self._resource))
