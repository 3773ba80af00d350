"""The rollout's port: what is told to all, and commands for who has the control token."""

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest
from rollouts import World

from infra.errors import LogError
from serving.rollout import port
from serving.rollout.commands import Command, Do, Done, Refused
from serving.rollout.desk import Answer, Desk
from serving.rollout.process import state_of

TOKEN = "secret"
ASKED = {"do": "freeze", "author": "ann", "reason": "so"}


class Counter:
    """The port over a desk; `answers` is what the controller makes of a command, and is served when asked for."""

    def __init__(self) -> None:
        self.desk, self.answers = Desk(), dict[Do, Callable[[Command], Answer]]()
        self.app = port.application(lambda: {"state": "idle"}, self.desk, TOKEN)
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://rollout")

    async def post(self, body: Any, token: str = TOKEN) -> httpx.Response:
        headers = {"authorization": f"Bearer {token}"}
        if isinstance(body, str):
            return await self.client.post("/command", content=body, headers=headers)
        return await self.client.post("/command", json=body, headers=headers)


@pytest.fixture
async def counter() -> AsyncIterator[Counter]:
    made = Counter()
    yield made
    await made.client.aclose()


def at_once(counter: Counter, carry_out: Callable[[Command], Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    """The controller's tick comes with the command."""
    ask = counter.desk.ask

    def asked(command: Command) -> Any:
        answer = ask(command)
        with suppress(LogError):
            counter.desk.serve(carry_out)
        return answer

    monkeypatch.setattr(counter.desk, "ask", asked)


async def test_the_status_needs_no_token_and_a_command_does(counter: Counter) -> None:
    assert (await counter.client.get("/status")).json() == {"state": "idle"}
    answer = await counter.post(ASKED, token="wrong")
    assert (answer.status_code, "control token" in answer.json()["error"]) == (401, True)
    assert not counter.desk.is_called


async def test_what_is_done_is_answered_with_its_release(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    at_once(counter, lambda command: (seen.append(command), Done(release=7, told="frozen"))[1], monkeypatch)
    answer = await counter.post(ASKED)
    assert (answer.status_code, answer.json()) == (200, {"release": 7, "told": "frozen"})
    assert seen == [Command(do=Do.FREEZE, author="ann", reason="so")]


async def test_what_is_refused_is_answered_with_why(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once(counter, lambda _command: Refused(error="it is frozen"), monkeypatch)
    answer = await counter.post(ASKED)
    assert (answer.status_code, answer.json()) == (409, {"error": "it is frozen"})


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({**ASKED, "do": "launch"}, "do"),
        ({**ASKED, "author": ""}, "author"),
        ({"do": "freeze", "author": "ann"}, "reason"),
        ({**ASKED, "version": -1}, "version"),
        ({**ASKED, "versoin": 3}, "did you mean `version`?"),
        ("{not json", "JSON"),
    ],
)
async def test_a_body_that_is_no_command_is_answered_with_what_is_wrong(
    counter: Counter, body: Any, named: str
) -> None:
    answer = await counter.post(body)
    assert answer.status_code == 400
    assert named in answer.json()["error"]
    assert not counter.desk.is_called


async def test_a_command_that_no_tick_takes_is_withdrawn(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port, "_CARRIED_OUT_S", 0.01)
    assert (await counter.post(ASKED)).status_code == 503
    assert counter.desk.serve(lambda _command: pytest.fail("carried out all the same")) == 0


async def test_an_outage_in_the_middle_of_a_command_is_told(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_command: Command) -> Answer:
        raise LogError("the broker is away")

    at_once(counter, fails, monkeypatch)
    answer = await counter.post(ASKED)
    assert (answer.status_code, answer.json()) == (503, {"error": "not carried out: the broker is away"})


def test_the_state_says_mode_holdback_what_is_held_and_who_disagrees(world: World) -> None:
    assert state_of(None) == {"state": "starting"}
    world.to_canary()
    world.to_promotion()
    world.order(Do.PAUSE)
    world.hands["s"].refuses.add(1)
    world.hands["s"].version = 0
    world.ticks(1)
    told = state_of(world.rollout)
    assert (told["mode"], told["holdback"], told["stable"], told["share"]) == ("paused", 0, 1, 0.25)
    assert told["held"] == {"s": [0, 1], "c": [0, 1]}
    assert told["release"] == world.served.last
    (line,) = told["disagreement"]  # type: ignore[misc]
    assert line.startswith("s has 0, the log gives it 1, since ")
