"""Spans, and the trace context that travels in headers of requests and records.

Only `traceparent` is written into records: `tracestate` and baggage are a client's own words, and records' headers are
not sealed. An error leaves its class in a span and nothing of its message, which may hold what a user typed.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry import context, trace
from opentelemetry.trace import INVALID_SPAN, Link, Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from infra.telemetry.instruments import Labels
from infra.telemetry.names import ERROR, MAX_LINKS, SpanName

if TYPE_CHECKING:
    from infra.telemetry.recording import Tracer

TRACEPARENT = "traceparent"
_PROPAGATOR = TraceContextTextMapPropagator()
_KINDS = {kind.name.lower(): kind for kind in SpanKind}

_tracer: "Tracer | None" = None  # as OpenTelemetry's own providers: one for the process


def install(tracer: "Tracer | None") -> None:
    """Make spans with `tracer` from now on; `None` is off."""
    global _tracer
    _tracer = tracer


def is_tracing() -> bool:
    """Whether spans are made."""
    return _tracer is not None


@contextmanager
def span(
    name: SpanName,
    attributes: Labels | None = None,
    parent: Mapping[str, str] | None = None,
    links: Iterable[Mapping[str, str]] = (),
    of: str = "",
) -> Iterator[Span]:
    """A span around a block; `of` is what stands for `{}` in its name.

    `parent` and `links` are headers; those without a trace context are passed over. While spans are off, a parent's
    context is passed on and nothing else is done.
    """
    is_told = parent is not None and TRACEPARENT in parent
    if _tracer is None and not is_told:
        yield INVALID_SPAN
        return
    above = _PROPAGATOR.extract(parent) if is_told and parent is not None else None
    if _tracer is None:
        with trace.use_span(trace.get_current_span(above)) as passed_on:
            yield passed_on
        return
    begun = _tracer.start_span(
        name.name.format(of), above, _KINDS[name.role], attributes, linked(links) if links else ()
    )
    token = context.attach(trace.set_span_in_context(begun))  # what `use_span` does, which would keep the message
    try:
        yield begun
    except BaseException as exc:  # also what only ends a task: its span has failed, and it goes on its way
        failed(begun, type(exc).__qualname__)
        raise
    finally:
        context.detach(token)
        begun.end()


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
        above = trace.get_current_span(_PROPAGATOR.extract({TRACEPARENT: told}, context.Context())).get_span_context()
        if above.is_valid:
            found[told] = Link(above)
        if len(found) == MAX_LINKS:
            break
    return list(found.values())


def current() -> Span:
    """The span around the caller; one that keeps nothing, outside."""
    return trace.get_current_span()


def headers_out() -> dict[str, str]:
    """The current trace context as a header (`traceparent`); empty outside a span."""
    now = trace.get_current_span().get_span_context()
    if not now.is_valid:
        return {}
    return {TRACEPARENT: f"00-{now.trace_id:032x}-{now.span_id:016x}-{now.trace_flags:02x}"}


def context_in(headers: Mapping[str, str]) -> dict[str, str]:
    """Of a message's headers, those that hold its trace context."""
    return {TRACEPARENT: headers[TRACEPARENT]} if TRACEPARENT in headers else {}
