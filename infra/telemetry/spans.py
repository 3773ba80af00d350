"""Spans, and the trace context that travels in headers of requests and records.

Only `traceparent` is written into records: `tracestate` and baggage are a client's own words, and records' headers are
not sealed. An error leaves its class in a span and nothing of its message, which may hold what a user typed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Self

from opentelemetry import context, trace
from opentelemetry.trace import INVALID_SPAN, Link, NonRecordingSpan, Span, SpanContext, TraceFlags, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from infra.telemetry.names import ERROR, MAX_LINKS, SpanName

if TYPE_CHECKING:
    from infra.telemetry.instruments import Labels
    from infra.telemetry.recording import Tracer

TRACEPARENT = "traceparent"
TRACEPARENT_FORM = "00-%032x-%016x-%02x"
_PROPAGATOR = TraceContextTextMapPropagator()

_tracer: "Tracer | None" = None  # as OpenTelemetry's own providers: one for the process


def install(tracer: "Tracer | None") -> None:
    """Make spans with `tracer` from now on; `None` is off."""
    global _tracer
    _tracer = tracer


def is_tracing() -> bool:
    """Whether spans are made."""
    return _tracer is not None


class Around(NonRecordingSpan):
    """A span around a block. This one only passes its context on: it is not kept, or came from elsewhere."""

    is_ambient: bool
    traceparent: str
    """Its context as a header's value."""
    state: TraceState | None = None
    """What a sampler says beside it; no header has it."""

    def __init__(self, traceparent: str, state: TraceState | None, is_ambient: bool) -> None:
        self.traceparent, self.state, self.is_ambient = traceparent, state, is_ambient

    def get_span_context(self) -> SpanContext:
        _, trace_id, span_id, flags = self.traceparent.split("-")
        return SpanContext(int(trace_id, 16), int(span_id, 16), False, TraceFlags(int(flags, 16)), self.state)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.traceparent})"

    def __enter__(self) -> Self:
        self._token = _around.set(self)
        if self.is_ambient:
            self._ambient = context.attach(trace.set_span_in_context(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, where: TracebackType | None
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """Be around nothing any more."""
        if self.is_ambient:
            context.detach(self._ambient)
        with suppress(ValueError):  # a generator that is closed from elsewhere, where another is around
            _around.reset(self._token)


_around: ContextVar[Around | None] = ContextVar("span", default=None)


class _Nothing:
    """Around a block while spans are off."""

    def __enter__(self) -> Span:
        return INVALID_SPAN

    def __exit__(self, *_: object) -> None:
        pass


_NOTHING = _Nothing()


def span(
    name: SpanName,
    attributes: "Labels | None" = None,
    parent: Mapping[str, str] | None = None,
    links: Iterable[Mapping[str, str]] = (),
    of: str = "",
) -> Around | _Nothing:
    """A span around a block; `of` is what stands for `{}` in its name.

    `parent` and `links` are headers; those without a trace context are passed over. While spans are off, a parent's
    context is passed on and nothing else is done.
    """
    above = context_of(parent) if parent is not None and TRACEPARENT in parent else None
    if _tracer is None:
        return _pass_on(above) or _NOTHING
    if above is None and (now := _around.get()) is not None:
        above = now.get_span_context()
    return _tracer.begin(name, of, {**attributes} if attributes else {}, linked(links) if links else (), above)


Begin = Callable[[SpanName, str, "Labels", Sequence[Link], SpanContext | None], Around | None]
"""Begins a span: its name, what stands for `{}` in it, attributes that nobody changes, links and parent."""


def beginner() -> Begin:
    """What begins spans, for who begins one for each request and pays for no call more than it must.

    Its caller is `put_around` and `take_away` itself, and ends the span.
    """
    return _tracer.begin if _tracer is not None else lambda _name, _of, _about, _links, above: _pass_on(above)


def _pass_on(above: SpanContext | None) -> Around | None:
    """A context as it came, while spans are off."""
    if above is None:
        return None
    traceparent = TRACEPARENT_FORM % (above.trace_id, above.span_id, above.trace_flags)
    return Around(traceparent, above.trace_state, is_ambient=True)


def context_of(headers: Mapping[str, str]) -> SpanContext | None:
    """The trace context in some headers."""
    found = trace.get_current_span(_PROPAGATOR.extract(headers, context.Context())).get_span_context()
    return found if found.is_valid else None


def failed(current: Span, kind: str) -> None:
    """Mark a span as failed: `kind` is an exception's class or an HTTP status."""
    current.set_attribute(ERROR, kind)
    current.set_status(trace.StatusCode.ERROR)


def linked(headers: Iterable[Mapping[str, str]]) -> list[Link]:
    """Links to the contexts in some headers, each once; `MAX_LINKS` at most."""
    found: dict[str, Link] = {}
    for one in headers:
        told = one.get(TRACEPARENT)
        if told is None or told in found:
            continue
        above = context_of({TRACEPARENT: told})
        if above is not None:
            found[told] = Link(above)
        if len(found) == MAX_LINKS:
            break
    return list(found.values())


around: Callable[[], Around | None] = _around.get
"""The span around the caller, if there is one."""
put_around: Callable[[Around | None], Token[Around | None]] = _around.set
"""Put a span around the caller that is no `with`; what it returns is for `take_away`."""
take_away: Callable[[Token[Around | None]], None] = _around.reset


def current() -> Span:
    """The span around the caller; one that keeps nothing, outside."""
    return _around.get() or INVALID_SPAN


def headers_out() -> dict[str, str]:
    """The current trace context as a header (`traceparent`); empty outside a span."""
    now = _around.get()
    return {} if now is None else {TRACEPARENT: now.traceparent}


def context_in(headers: Mapping[str, str]) -> dict[str, str]:
    """Of a message's headers, those that hold its trace context."""
    return {TRACEPARENT: headers[TRACEPARENT]} if TRACEPARENT in headers else {}
