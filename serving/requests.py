"""What telemetry hears of users' requests at the router's door: a span and a duration each, to the last byte."""

import time
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from infra import telemetry
from infra.telemetry import metrics, names
from infra.telemetry.later import teller
from infra.telemetry.spans import TRACEPARENT, Around, beginner, context_of, put_around, take_away
from serving.headers import Identity

_OPERATIONS = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "chat",
    "/v1/messages": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
}
_OTHERS = ("/v1/feedback", "/v1/models")
_UNKNOWN = "/v1/{path}"
_FAILED = 500
_CONTEXT = TRACEPARENT.encode()
ASKED = "onstream.asked"
"""Where a request's scope holds whom it asks: an `Identity` and an engine's id."""
OWN_WORDS = frozenset({"tracestate", "baggage"})
"""What a client may have written beside its trace context: spans would carry it."""
_NOT_ON = frozenset({_CONTEXT, *(name.encode() for name in OWN_WORDS)})


def operation(path: str) -> str:
    """What a request asks a model for, in the words of the GenAI conventions; `other` where they have none."""
    return _OPERATIONS.get(path, "other")


def route(path: str) -> str:
    """A path as a label: one that is not known here could be anything."""
    return path if path in _OPERATIONS or path in _OTHERS else _UNKNOWN


def headers_of(scope: Scope) -> dict[str, str]:
    """The trace context that an HTTP request came with, as headers."""
    for name, value in scope["headers"]:
        if name == _CONTEXT:
            return {TRACEPARENT: value.decode("latin-1")}
    return {}


def within(scope: Scope) -> Scope:
    """The same request as one that comes from the span around the caller, without what a client wrote beside it."""
    now = telemetry.headers_out()
    if not now:
        return scope
    kept = [(name, value) for name, value in scope["headers"] if name not in _NOT_ON]
    return {**scope, "headers": [*kept, (_CONTEXT, now[TRACEPARENT].encode())]}


class Endpoint:
    """What answers requests, as an ASGI app. Telemetry hears of each, but later: between two requests a processor's
    caches forget all of this, and each call on a request's way takes microseconds."""

    def __init__(self, answer: Callable[[Request], Awaitable[Response]]) -> None:
        self._answer = answer
        self._begin, self._leave = beginner(), teller()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        if self._leave is None:
            await (await self._answer(request))(scope, receive, send)
            return
        about, of = _told(scope["method"], scope["path"])
        status, failure, begun = _FAILED, "", time.monotonic()
        came = headers_of(scope)
        span = self._begin(names.REQUEST, of, about, (), context_of(came) if came else None)
        token = put_around(span)
        try:
            answer = await self._answer(request)
            status = answer.status_code
            await answer(scope, receive, send)
        except BaseException as exc:  # also what only ends a task: its span has failed, and it goes on its way
            failure = type(exc).__qualname__
            raise
        finally:
            take_away(token)
            took_s, asked = time.monotonic() - begun, scope.get(ASKED)
            self._leave(partial(_tell, span, about, asked, status, failure, took_s, time.time_ns()))


def _tell(
    span: Around | None,
    about: names.Told,
    asked: tuple[Identity, str] | None,
    status: int,
    failure: str,
    took_s: float,
    ended_ns: int,
) -> None:
    """Tell of a request. `failure` is the class of what its handler raised, `ended_ns` since 1970."""
    labels = {**about, names.STATUS: status}
    if span is not None and span.is_recording():
        if asked is None:
            span.set_attributes(labels)
        else:  # no session: its name is the client's own text, and a trace's id begins with its key
            identity, engine = asked
            arm = identity.assignment.arm.value
            span.set_attributes({**labels, names.TRACE: identity.trace_id, names.ARM: arm, names.ENGINE: engine})
        if failure or status >= _FAILED:
            telemetry.failed(span, failure or str(status))
        span.end(ended_ns)
    telemetry.record_now(metrics.REQUEST_DURATION, took_s, labels, span)


@lru_cache
def _told(method: str, path: str) -> tuple[names.Told, str]:
    """What is told of every request to a path, and its span's name."""
    where = route(path)
    return {names.METHOD: method, names.ROUTE: where}, f"{method} {where}"
