"""Work behind users: it runs only while no user waits, and is given up the moment one arrives."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from starlette.types import ASGIApp, Receive, Scope, Send

from infra.lifecycle import Deadline

T = TypeVar("T")


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
    """ASGI middleware that counts POST requests, captured or not, from their first byte to their last."""

    def __init__(self, app: ASGIApp, users: Users) -> None:
        self._app, self._users = app, users

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        with self._users.one():
            await self._app(scope, receive, send)


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
