"""What telemetry hears of users' requests at the router's door: a span and a duration each, to the last byte."""

import time
from collections.abc import Awaitable, Callable
from functools import lru_cache

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from infra import telemetry
from infra.telemetry import metrics, names
from infra.telemetry.spans import TRACEPARENT

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
OWN_WORDS = frozenset({"tracestate", "baggage"})
"""What a client may have written beside its trace context: spans would carry it."""
_NOT_ON = frozenset({_CONTEXT, *(name.encode() for name in OWN_WORDS)})


def operation(path: str) -> str:
    """What a request asks a model for, in the words of the GenAI conventions; `other` where they have none."""
    return _OPERATIONS.get(path, "other")


def route(path: str) -> str:
    """A path as a label: one that is not known here could be anything."""
    return path if path in _OPERATIONS or path in _OTHERS else _UNKNOWN


def context_of(scope: Scope) -> dict[str, str]:
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
    """What answers requests, as an ASGI app; `is_telling`: telemetry hears of them."""

    def __init__(self, answer: Callable[[Request], Awaitable[Response]], is_telling: bool) -> None:
        self._answer, self._is_telling = answer, is_telling

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        if not self._is_telling:
            await (await self._answer(request))(scope, receive, send)
            return
        about, of = _told(scope["method"], scope["path"])
        status, begun = _FAILED, time.monotonic()
        with telemetry.span(names.REQUEST, about, context_of(scope), of=of) as span:
            try:
                answer = await self._answer(request)
                status = answer.status_code
                await answer(scope, receive, send)
            finally:
                span.set_attribute(names.STATUS, status)
                if status >= _FAILED:
                    telemetry.failed(span, str(status))
                telemetry.record(metrics.REQUEST_DURATION, time.monotonic() - begun, {**about, names.STATUS: status})


@lru_cache
def _told(method: str, path: str) -> tuple[names.Told, str]:
    """What is told of every request to a path, and its span's name."""
    where = route(path)
    return {names.METHOD: method, names.ROUTE: where}, f"{method} {where}"
