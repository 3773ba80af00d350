"""Clients that leave before they are answered."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

R = TypeVar("R")


async def while_there(request: Request, work: Awaitable[R]) -> R:
    """The result of `work` for a request that was read whole; where its client leaves, `work` is cancelled.

    Raises:
        ClientDisconnect: the client left.
    """
    task, is_gone = asyncio.current_task(), False
    assert task is not None

    async def watch() -> None:
        nonlocal is_gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        is_gone = True
        task.cancel()

    watching = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if is_gone and not task.uncancel():  # else somebody else has cancelled it, too
            raise ClientDisconnect from None
        raise
    finally:
        watching.cancel()
