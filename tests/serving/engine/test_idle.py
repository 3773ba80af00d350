"""Work behind users: begun only while there is none, given up when one comes, begun again when the last has gone."""

import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from infra.lifecycle import Deadline
from serving import headers
from serving.engine.idle import BusyError, Users, UsersMiddleware, behind

FOREVER, NOW = Deadline.after(3600.0), Deadline.after(0.0)


class Work:
    """Waits to be let go; knows how often it was begun, and given up."""

    def __init__(self) -> None:
        self.begun = self.given_up = 0
        self.started, self.may_end = asyncio.Event(), asyncio.Event()

    async def __call__(self) -> str:
        self.begun += 1
        self.started.set()
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            self.started.clear()
            raise
        return "done"


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_work_runs_to_its_end_while_nobody_is_there() -> None:
    work = Work()
    work.may_end.set()
    assert await behind(Users(), work, NOW) == "done"
    assert (work.begun, work.given_up) == (1, 0)


async def test_work_does_not_begin_while_a_user_is_in_flight() -> None:
    users, work = Users(), Work()
    work.may_end.set()
    with users.one():
        task = asyncio.create_task(behind(users, work, FOREVER))
        await settle()
        assert work.begun == 0
    assert await task == "done"


async def test_work_is_given_up_when_a_user_arrives_and_begun_again_when_the_last_has_gone() -> None:
    users, work = Users(), Work()
    task = asyncio.create_task(behind(users, work, FOREVER))
    await work.started.wait()
    with users.one():
        with users.one():
            await settle()
            assert (work.begun, work.given_up) == (1, 1)
        await settle()
        assert work.begun == 1
    await work.started.wait()
    work.may_end.set()
    assert await task == "done"
    assert (work.begun, work.given_up) == (2, 1)


async def test_users_who_stay_longer_than_the_patience_are_told() -> None:
    users, work = Users(), Work()
    with users.one(), pytest.raises(BusyError, match="busy with users"):
        await behind(users, work, Deadline.after(0.01))
    assert work.begun == 0


async def test_without_patience_work_that_was_given_up_is_not_begun_again() -> None:
    users, work = Users(), Work()
    task = asyncio.create_task(behind(users, work, NOW))
    await work.started.wait()
    with users.one(), pytest.raises(BusyError):
        await task
    assert (work.begun, work.given_up) == (1, 1)


async def test_what_work_raises_is_raised() -> None:
    async def broken() -> None:
        raise ValueError("too long")

    with pytest.raises(ValueError, match="too long"):
        await behind(Users(), broken, FOREVER)


async def test_whoever_stops_waiting_leaves_no_work_behind() -> None:
    work = Work()
    task = asyncio.create_task(behind(Users(), work, FOREVER))
    await work.started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.given_up == 1


async def test_posts_are_users_and_a_look_at_the_health_is_not() -> None:
    users = Users()
    seen: list[int] = []

    async def look(_request: Request) -> Response:
        seen.append(users.num)
        return JSONResponse({})

    app = UsersMiddleware(Starlette(routes=[Route("/", look, methods=["GET", "POST"])]), users)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://e0") as client:
        await client.post("/")
        await client.get("/")
    assert (seen, users.num) == ([1, 0], 0)


async def test_a_user_whose_request_fails_has_gone_too() -> None:
    users = Users()

    async def broken(_request: Request) -> Response:
        raise RuntimeError("a defect")

    app = UsersMiddleware(Starlette(routes=[Route("/", broken, methods=["POST"])]), users)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://e0") as client:
        with pytest.raises(RuntimeError, match="a defect"):
            await client.post("/")
    assert users.num == 0


OF_THE_LANE = {headers.GROUP: '{"size": 2, "propensity": 0.1}'}


class Engine:
    """Answers once it may, unless its client has gone; knows what it counted as users meanwhile."""

    def __init__(self) -> None:
        self.users, self.may_end, self.begun = Users(), asyncio.Event(), asyncio.Event()
        self.num_users: list[int] = []
        self.given_up = 0

    async def answer(self, request: Request) -> Response:
        self.num_users.append(self.users.num)
        await request.body()
        self.begun.set()
        gone = asyncio.ensure_future(request.receive())
        done = asyncio.ensure_future(self.may_end.wait())
        await asyncio.wait((gone, done), return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            self.given_up += 1
        for one in (gone, done):
            one.cancel()
        return JSONResponse({"choices": []})

    def client(self) -> httpx.AsyncClient:
        app = UsersMiddleware(Starlette(routes=[Route("/", self.answer, methods=["POST"])]), self.users)
        return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://e0")


async def test_a_replay_of_the_lane_is_answered_while_there_is_no_user_and_counts_as_none() -> None:
    engine = Engine()
    engine.may_end.set()
    async with engine.client() as client:
        answer = await client.post("/", headers=OF_THE_LANE, json={"a": 1})
    assert (answer.status_code, answer.json()) == (200, {"choices": []})
    assert (engine.num_users, engine.given_up) == ([0], 0)


async def test_a_replay_is_not_begun_while_a_user_is_there() -> None:
    engine = Engine()
    async with engine.client() as client:
        with engine.users.one():
            answer = await client.post("/", headers=OF_THE_LANE)
    assert answer.status_code == 429 and not engine.begun.is_set()


async def test_a_replay_is_given_up_the_moment_a_user_arrives_who_is_answered() -> None:
    engine = Engine()
    async with engine.client() as client:
        replay = asyncio.create_task(client.post("/", headers=OF_THE_LANE))
        await engine.begun.wait()
        user = asyncio.create_task(client.post("/"))
        assert (await replay).status_code == 429
        assert engine.given_up == 1
        engine.may_end.set()
        assert (await user).status_code == 200
    assert engine.num_users == [0, 1] and engine.users.num == 0


async def test_what_does_not_heed_that_its_client_has_gone_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.engine.idle._LETS_GO_S", 0.01)
    users, work = Users(), Work()

    async def deaf(_request: Request) -> Response:
        await work()
        return JSONResponse({})

    app = UsersMiddleware(Starlette(routes=[Route("/", deaf, methods=["POST"])]), users)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://e0") as client:
        replay = asyncio.create_task(client.post("/", headers=OF_THE_LANE))
        await work.started.wait()
        with users.one():
            assert (await replay).status_code == 429
    assert work.given_up == 1


async def test_what_a_replay_raises_is_raised() -> None:
    async def broken(_request: Request) -> Response:
        raise RuntimeError("a defect")

    app = UsersMiddleware(Starlette(routes=[Route("/", broken, methods=["POST"])]), Users())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://e0") as client:
        with pytest.raises(RuntimeError, match="a defect"):
            await client.post("/", headers=OF_THE_LANE)
