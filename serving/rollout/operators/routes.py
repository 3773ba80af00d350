"""`GET /story` and `GET /history` of the controller's port, for who has the control credential."""

from collections.abc import Callable

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from serving.guard import Handler, bearer
from serving.rollout.operators.books import Answered, Books, Query


def routes(books: Books, token: str) -> list[Route]:
    """To be mounted beside `/status` and `/command`. They read in threads of their own: nothing waits for them."""
    return [
        Route("/story", bearer(_asking(books.story), token, "control"), methods=["GET"]),
        Route("/history", bearer(_asking(books.history), token, "control"), methods=["GET"]),
    ]


def _asking(ask: Callable[[Query], Answered]) -> Handler:
    async def answer(request: Request) -> JSONResponse:
        status, body = await run_in_threadpool(ask, dict(request.query_params))
        return JSONResponse(body, status)

    return answer
