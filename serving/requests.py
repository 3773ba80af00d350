"""What telemetry hears of users' requests at the router's door: a span and a duration each, to the last byte."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

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
    """The same request as one that comes from the span around the caller."""
    now = telemetry.headers_out()
    if not now:
        return scope
    kept = [(name, value) for name, value in scope["headers"] if name != _CONTEXT]
    return {**scope, "headers": [*kept, (_CONTEXT, now[TRACEPARENT].encode())]}


class RequestsMiddleware:
    """ASGI middleware around the router."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        begun, where = time.monotonic(), route(scope["path"])
        about: names.Told = {names.METHOD: scope["method"], names.ROUTE: where}
        told = {**about, names.OPERATION: operation(where)}
        answer: dict[str, int] = {}

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer[names.STATUS] = message["status"]
            await send(message)

        with telemetry.span(names.REQUEST, told, context_of(scope), of=f"{scope['method']} {where}") as span:
            try:
                await self._app(scope, receive, noting)
            finally:
                status = answer.get(names.STATUS, _FAILED)
                span.set_attribute(names.STATUS, status)
                if status >= _FAILED:
                    telemetry.failed(span, str(status))
                telemetry.record(metrics.REQUEST_DURATION, time.monotonic() - begun, about | {names.STATUS: status})
