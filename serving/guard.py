"""A credential in front of a route: the control port and the scoring port have each their own."""

import hmac
import os
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse

from infra.config import CONTROL_TOKEN_VAR, SCORING_TOKEN_VAR
from infra.errors import StartError

Handler = Callable[[Request], Awaitable[JSONResponse]]


def bearer(handler: Handler, token: str, name: str) -> Handler:
    """`handler` for those who send `Authorization: Bearer <token>`; 401 for others, who learn the token's `name`."""

    async def checked(request: Request) -> JSONResponse:
        given = request.headers.get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            return JSONResponse({"error": f"this port needs the {name} token"}, 401)
        return await handler(request)

    return checked


def control_token() -> str:
    """The control plane's credential. Raises `StartError` when the environment holds none."""
    return _required(CONTROL_TOKEN_VAR, "engines and rollout")


def scoring_token() -> str:
    """The scoring ports' credential. Raises `StartError` when the environment holds none."""
    return _required(SCORING_TOKEN_VAR, "engines and rewards")


def _required(variable: str, who: str) -> str:
    token = os.environ.get(variable, "")
    if not token:
        raise StartError(f"{variable} is not set: {who} share it as their credential")
    return token
