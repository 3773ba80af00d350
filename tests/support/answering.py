"""An engine that answers chat completions as a test says, with a control port that tells its version."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from ports import free_port
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from upstreams import serving

from infra.config import EngineSlot

TOKEN = "control"


def completion(text: str, finish_reason: str = "stop", **message: Any) -> dict[str, Any]:
    """A chat completion's body."""
    said = {"role": "assistant", "content": text, **message}
    return {"choices": [{"index": 0, "message": said, "finish_reason": finish_reason}]}


def question(body: dict[str, Any]) -> str:
    """The last message of a request."""
    return str(body["messages"][-1]["content"])


@dataclass
class Answering:
    """`answer` makes a completion's body of a request's; an `int` is a status. `version` is what it says it serves,
    after what `before` holds of it."""

    answer: Callable[[dict[str, Any]], dict[str, Any] | int]
    version: int = 0
    before: list[int] = field(default_factory=list)
    port: int = field(default_factory=free_port)
    control_port: int = field(default_factory=free_port)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        made = self.answer(body)
        if isinstance(made, int):
            return JSONResponse({"error": f"status {made} as it was told to"}, made)
        return JSONResponse(made)

    async def _status(self, request: Request) -> Response:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return Response(status_code=401)
        version = self.before.pop(0) if self.before else self.version
        return JSONResponse({"version": version, "in_flight": 0})

    def slot(self, arm: str) -> EngineSlot:
        name = f"{arm}-{self.port}"
        return EngineSlot.model_validate({"id": name, "arm": arm, "port": self.port, "control_port": self.control_port})

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Answering"]:
        users = Starlette(routes=[Route("/v1/chat/completions", self._chat, methods=["POST"])])
        control = Starlette(routes=[Route("/status", self._status)])
        async with serving(users, self.port), serving(control, self.control_port):
            yield self
