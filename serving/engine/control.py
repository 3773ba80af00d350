"""An engine's control plane: on its own port, behind its own credential, and unreachable from the data plane.

vLLM's own weight routes exist only together with `/collective_rpc` (development mode), so they stay off; this small
application calls the same engine methods, by `serving.engine.loader`.
"""

import logging
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from infra import telemetry
from infra.errors import OnstreamError
from infra.telemetry import metrics, names
from serving.engine.capture import Capture
from serving.engine.idle import Users
from serving.engine.loader import Engine, Loader, SupersededError
from serving.guard import bearer

logger = logging.getLogger(__name__)


class LoadRequest(BaseModel):
    """The body of `POST /load`. `epoch` is that of the writer whose release says so; without, nobody is fenced."""

    model_config = ConfigDict(extra="forbid", strict=True)

    version: int
    epoch: int | None = None


class HoldRequest(BaseModel):
    """The body of `POST /hold`: versions to keep at hand, in the place of those named before."""

    model_config = ConfigDict(extra="forbid", strict=True)

    versions: list[int]


AnyRequest = TypeVar("AnyRequest", bound=BaseModel)


async def _body(request: Request, kind: type[AnyRequest], example: str) -> AnyRequest | JSONResponse:
    raw = await request.body()
    try:
        return kind.model_validate_json(raw)
    except ValidationError:
        return JSONResponse({"error": f"body must be {example}, got {raw!r:.200}"}, 400)


def application(
    loader: Loader, engine: Engine, capture: Capture, users: Users, engine_id: str, token: str
) -> Starlette:
    """The control application: `GET /status`, `POST /load {"version": n}` and `POST /hold {"versions": [n]}`, each with
    `Authorization: Bearer`.

    `in_flight` counts users' requests only: a swap need not wait for scorers. `held` are the versions that can be
    served without the store.
    """

    mine: names.Told = {names.ENGINE: engine_id}
    telemetry.observe(metrics.ENGINE_VERSION, lambda: [(loader.serving.version, mine)])
    telemetry.observe(metrics.IN_FLIGHT, lambda: [(users.num, mine)])

    async def status(_request: Request) -> JSONResponse:
        return JSONResponse(
            {
                "engine": engine_id,
                "version": loader.serving.version,
                "digest": loader.serving.digest,
                "in_flight": users.num,
                "held": loader.held,
            }
        )

    async def load(request: Request) -> JSONResponse:
        asked = await _body(request, LoadRequest, '{"version": <number>}')
        if isinstance(asked, JSONResponse):
            return asked
        number = asked.version
        try:
            with telemetry.span(names.SWAP, {**mine, names.VERSION: number}, parent=request.headers):
                swap = await loader.load(number, engine, capture, asked.epoch)
        except OnstreamError as exc:
            telemetry.count(metrics.SWAPS_FAILED, 0 if isinstance(exc, SupersededError) else 1, mine)
            return JSONResponse({"error": str(exc), "version": loader.serving.version}, 409)
        telemetry.record(metrics.SWAP_PAUSE, swap.pause_s, mine)
        telemetry.record(metrics.SWAP_DURATION, swap.fetch_s + swap.pause_s, mine)
        logger.info("serving version %d (fetched in %.2f s, paused %.3f s)", swap.version, swap.fetch_s, swap.pause_s)
        return JSONResponse(
            {"version": swap.version, "digest": swap.digest, "fetch_s": swap.fetch_s, "pause_s": swap.pause_s}
        )

    async def hold(request: Request) -> JSONResponse:
        asked = await _body(request, HoldRequest, '{"versions": [<number>]}')
        if isinstance(asked, JSONResponse):
            return asked
        loader.hold(asked.versions)
        return JSONResponse({"held": loader.held}, 202)

    return Starlette(
        routes=[
            Route("/status", bearer(status, token, "control"), methods=["GET"]),
            Route("/load", bearer(load, token, "control"), methods=["POST"]),
            Route("/hold", bearer(hold, token, "control"), methods=["POST"]),
        ]
    )
