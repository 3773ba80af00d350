"""Clients that leave before they are answered."""

import asyncio
from typing import Any

import pytest
from starlette.requests import ClientDisconnect, Request

from serving.leaving import while_there


class Client:
    """Leaves when told to."""

    def __init__(self) -> None:
        self.leaves = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    @property
    def request(self) -> Request:
        return Request({"type": "http"}, self.receive)


class Work:
    """Never done, unless it is told so."""

    def __init__(self) -> None:
        self.begun, self.may_end, self.is_cancelled = asyncio.Event(), asyncio.Event(), False

    async def __call__(self) -> str:
        self.begun.set()
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.is_cancelled = True
            raise
        return "done"


async def test_the_work_of_a_client_that_leaves_is_cancelled_and_its_handler_goes_on() -> None:
    client, work = Client(), Work()

    async def handler() -> str:
        with pytest.raises(ClientDisconnect):
            await while_there(client.request, work())
        await asyncio.sleep(0)
        return "went on"

    handling = asyncio.create_task(handler())
    await work.begun.wait()
    client.leaves.set()
    assert await handling == "went on"
    assert work.is_cancelled
    assert not handling.cancelling()


@pytest.mark.parametrize("is_leaving", [False, True], ids=["a client that stays", "a client that leaves just then"])
async def test_a_handler_that_is_cancelled_by_somebody_else_stays_cancelled(is_leaving: bool) -> None:
    client, work = Client(), Work()
    handling = asyncio.create_task(while_there(client.request, work()))
    await work.begun.wait()
    if is_leaving:
        client.leaves.set()
        while not handling.cancelling():  # noqa: ASYNC110
            await asyncio.sleep(0)
    handling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await handling
    assert work.is_cancelled


async def test_an_answer_leaves_nobody_waiting_for_its_client() -> None:
    client, work = Client(), Work()
    work.may_end.set()
    before = asyncio.all_tasks()
    assert await while_there(client.request, work()) == "done"
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
