"""Work behind users: it runs only while no user waits, and is given up the moment one arrives."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra.lifecycle import Deadline
from serving import headers

T = TypeVar("T")

BUSY = JSONResponse({"error": {"message": "users come first; ask again when they have gone", "code": 429}}, 429)
_OF_THE_LANE = headers.GROUP.encode()
_LETS_GO_S = 1.0  # vLLM lets go of a request within an engine step; what does not is cancelled


class BusyError(Exception):
    """There was no idle moment in time."""


class Users:
    """How many requests of users are in flight."""

    def __init__(self) -> None:
        self._num = 0
        self._arrived, self._gone = asyncio.Event(), asyncio.Event()
        self._gone.set()

    @property
    def num(self) -> int:
        return self._num

    @contextmanager
    def one(self) -> Iterator[None]:
        """A request of a user, for the length of a block."""
        self._num += 1
        self._arrived.set()
        self._gone.clear()
        try:
            yield
        finally:
            self._num -= 1
            if not self._num:
                self._arrived.clear()
                self._gone.set()

    async def arrived(self) -> None:
        """Return while there is one."""
        await self._arrived.wait()

    async def gone(self) -> None:
        """Return while there is none."""
        await self._gone.wait()


class UsersMiddleware:
    """ASGI middleware that counts POST requests, captured or not, from their first byte to their last.

    Those of the replay lane are not users': one is answered 429 while there is a user, or given up when one arrives. To
    whoever works on it that looks like a client that has gone, which is what makes vLLM let go of a request.
    """

    def __init__(self, app: ASGIApp, users: Users) -> None:
        self._app, self._users = app, users

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
        elif any(name == _OF_THE_LANE for name, _ in scope["headers"]):
            await self._behind_users(scope, receive, send)
        else:
            with self._users.one():
                await self._app(scope, receive, send)

    async def _behind_users(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._users.num:
            await BUSY(scope, receive, send)
            return
        answer: list[Message] = []

        async def keep(message: Message) -> None:
            answer.append(message)

        work = asyncio.ensure_future(self._app(scope, _until(receive, self._users), keep))
        arrival = asyncio.ensure_future(self._users.arrived())
        try:
            await asyncio.wait((work, arrival), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                await asyncio.wait((work,), timeout=_LETS_GO_S)
                await BUSY(scope, receive, send)
                return
            work.result()
        finally:
            for future in (work, arrival):
                future.cancel()
            await asyncio.gather(work, arrival, return_exceptions=True)
        for message in answer:
            await send(message)


def _until(receive: Receive, users: Users) -> Receive:
    """The request, then that its client has gone once it has or a user arrives."""
    is_whole = False

    async def listening() -> Message:
        nonlocal is_whole
        if not is_whole:
            message = await receive()
            is_whole = not message.get("more_body", False)
            return message
        gone, arrival = asyncio.ensure_future(receive()), asyncio.ensure_future(users.arrived())
        try:
            await asyncio.wait((gone, arrival), return_when=asyncio.FIRST_COMPLETED)
            return gone.result() if gone.done() else {"type": "http.disconnect"}
        finally:
            for future in (gone, arrival):
                future.cancel()
            await asyncio.gather(gone, arrival, return_exceptions=True)

    return listening


async def behind(users: Users, work: Callable[[], Coroutine[Any, Any, T]], patience: Deadline) -> T:
    """The result of `work`, run from its beginning to its end while there is no user.

    It is cancelled when a user arrives and begun again when the last has gone. Its cancelled remains are awaited, so
    that no coroutine of it goes on beside users.

    Raises:
        BusyError: `patience` passed and there is a user still, or again.
    """
    while True:
        await _idle(users, patience)
        task, arrival = asyncio.ensure_future(work()), asyncio.ensure_future(users.arrived())
        try:
            await asyncio.wait((task, arrival), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
        finally:
            for future in (task, arrival):
                future.cancel()
            await asyncio.gather(task, arrival, return_exceptions=True)


async def _idle(users: Users, patience: Deadline) -> None:
    if not users.num:
        return
    try:
        await asyncio.wait_for(users.gone(), patience.left_s())
    except TimeoutError as exc:
        raise BusyError("busy with users") from exc
