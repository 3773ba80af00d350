"""Upstreams that behave, and misbehave, as engines do on the wire; and a router in front of them."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import uvicorn
from ports import free_port
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from serving import headers
from serving.router.front import Router
from serving.spool import Spool


class Upstream:
    """An OpenAI-shaped server. `fails_with` answers every request with that status; `dies_after` words a stream ends
    without an end; `pause_s` is the time between two words."""

    def __init__(self, text: str = "one two three four") -> None:
        self.text = text
        self.port = free_port()
        self.fails_with: int | None = None
        self.dies_after: int | None = None
        self.pause_s = 0.0
        self.seen: list[dict[str, str]] = []

    async def chat(self, request: Request) -> Response:
        self.seen.append(dict(request.headers))
        if self.fails_with is not None:
            return JSONResponse({"error": "broken"}, self.fails_with)
        body = await request.json()
        completion_id = f"chatcmpl-{request.headers[headers.REQUEST_ID]}"
        if body.get("stream"):
            return StreamingResponse(self._stream(completion_id), media_type="text/event-stream")
        choice = {"index": 0, "message": {"role": "assistant", "content": self.text}, "finish_reason": "stop"}
        return JSONResponse({"id": completion_id, "choices": [choice]})

    async def _stream(self, completion_id: str) -> AsyncIterator[str]:
        for n, word in enumerate(self.text.split()):
            if self.dies_after == n:
                raise ConnectionResetError("this upstream dies here, as it was told to")
            yield f"data: {json.dumps({'id': completion_id, 'word': word})}\n\n"
            await asyncio.sleep(self.pause_s)
        yield "data: [DONE]\n\n"

    async def health(self, _request: Request) -> Response:
        return Response(status_code=self.fails_with or 200)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Upstream"]:
        app = Starlette(
            routes=[Route("/v1/chat/completions", self.chat, methods=["POST"]), Route("/health", self.health)]
        )
        async with serving(app, self.port):
            yield self


@asynccontextmanager
async def serving(app: Starlette, port: int) -> AsyncIterator[None]:
    """`app` on a port of this machine, in this process."""
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="critical", lifespan="off"))
    task = asyncio.create_task(server._serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        await task


class Front:
    """A router over some upstreams, and a client of it."""

    def __init__(self, router: Router, client: httpx.AsyncClient, spool: Spool) -> None:
        self.router, self.client, self.spool = router, client, spool

    async def chat(self, stream: bool = False, **extra: str) -> httpx.Response:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
        return await self.client.post("/v1/chat/completions", json=body, headers=extra)


MakeFront = Callable[..., Awaitable[Front]]
