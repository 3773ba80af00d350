"""The rollout's port: how things stand, for whoever asks, and commands, for who has the control credential."""

import asyncio
import threading
from collections.abc import Callable, Sequence

import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from infra.errors import OnstreamError
from infra.explain import explain
from serving.guard import bearer
from serving.ports import require_free
from serving.rollout.commands import Command, Done
from serving.rollout.desk import Desk

_CARRIED_OUT_S = 30.0  # a tick that is in the middle of a swap; most commands take milliseconds


def application(
    state: Callable[[], dict[str, object]], desk: Desk, token: str, others: Sequence[Route] = ()
) -> Starlette:
    """`GET /status`, and `POST /command` with `Authorization: Bearer`: see `serving.rollout.commands`; and `others`."""

    async def status(_request: Request) -> JSONResponse:
        return JSONResponse(state())

    async def command(request: Request) -> JSONResponse:
        try:
            asked = Command.model_validate_json(await request.body())
        except ValidationError as exc:
            return JSONResponse({"error": "; ".join(explain(error, Command) for error in exc.errors())}, 400)
        answer = desk.ask(asked)
        try:
            told = await asyncio.wait_for(asyncio.wrap_future(answer), _CARRIED_OUT_S)
        except TimeoutError:
            went = "has this in work: see `onstream rollout history`" if answer.running() else "did not take this"
            return JSONResponse({"error": f"after {_CARRIED_OUT_S:.0f} s the controller {went}"}, 503)
        except OnstreamError as exc:
            return JSONResponse({"error": f"not carried out: {exc}"}, 503)
        return JSONResponse(told.model_dump(), 200 if isinstance(told, Done) else 409)

    return Starlette(
        routes=[
            Route("/status", status, methods=["GET"]),
            Route("/command", bearer(command, token, "control"), methods=["POST"]),
            *others,
        ]
    )


def serve(app: Starlette, host: str, port: int) -> None:
    """Answer in a thread, until the process ends. Raises `StartError` where the port is taken."""
    require_free(host, port, "serving.rollout.port")
    server = uvicorn.Server(uvicorn.Config(app, host=host, port=port, log_level="warning"))
    threading.Thread(target=server.run, name="serving.rollout.port", daemon=True).start()
