"""The replay lane from end to end: what users asked, asked again by idle engines, through capture, ingest and rewards
to advantages within groups, and to the one fate of each answer. The stages are the real ones over an in-memory log; the
engine answers fixed words.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from math import sqrt
from pathlib import Path
from typing import Any

import httpx
import pytest
from answering import TOKEN
from captured import Captured, of_user
from starlette.requests import Request
from starlette.responses import Response

from infra.config import CONTROL_TOKEN_VAR, Config
from infra.lifecycle import Stop
from ingest.log import reader, topics
from ingest.log.memory import InMemoryLog
from ingest.log.protocol import Message
from ingest.records.codec import ERASED_HEADER
from ingest.records.events import (
    Fate,
    FateKind,
    Mode,
    Release,
    ReleaseKind,
    Reward,
    Trace,
    Trajectory,
    TrialState,
    key_of,
    session_key,
)
from ingest.sessions.assemble import Assembler
from ingest.store.versions import VersionStore
from rewards.asking import Background
from rewards.scorers import Services
from rewards.spec import RewardSpec, build
from rewards.stage import Stage
from serving import headers
from serving.rollout.lane.lane import End, Lane
from serving.spool import Shipper
from trainer.advantages.baselines import Baselines
from trainer.advantages.batch import make_batch
from trainer.advantages.groups import Shape
from trainer.inbox import Inbox
from trainer.learner.update import StepMetrics, UpdateMetrics
from trainer.loop import Trainer

NO_ENGINE = {"id": "none", "arm": "candidate", "port": 1, "control_port": 2}
USERS, SIZE = 3, 3
LONG, SHORT = "an answer of five words", "no"


class Talking(Captured):
    """Answers the lane with `says` in turn, and users with `text`; `asked` is set once the lane asked `num` times.

    Before that the lane is told the statuses of `refuses`, and after each answer `then` is awaited.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "stable", 0, LONG)
        self.says, self.num, self.asked = [LONG, SHORT, SHORT], USERS * SIZE, asyncio.Event()
        self.replays: list[dict[str, Any]] = []
        self.refuses: list[int] = []
        self.then: Callable[[], Awaitable[None]] | None = None

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        self.prompt = [ord(letter) for letter in body["messages"][-1]["content"]]
        self.text = LONG
        is_lanes = "x-onstream-group" in request.headers
        if is_lanes and self.refuses:
            return Response(status_code=self.refuses.pop(0))
        if is_lanes:
            self.text = self.says[len(self.replays) % len(self.says)]
            self.replays.append(body)
            if len(self.replays) == self.num:
                self.asked.set()
        answer = await super()._chat(request)
        if is_lanes and self.then:
            await self.then()
        return answer


class Taught:
    """A learner that keeps what it was taught."""

    def __init__(self) -> None:
        self.advantages: list[float] = []

    def load(self, folder: Path) -> None: ...

    def restore(self, folder: Path) -> None: ...

    def anchor(self, folder: Path | None) -> None: ...

    def save(self, folder: Path) -> None:
        (folder / "weights").write_text("1")

    def update(self, minibatches: Any) -> UpdateMetrics:
        self.advantages += [float(x) for mini in minibatches for micro in mini for x in micro.advantages_N]
        step = StepMetrics(False, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, len(self.advantages))
        return UpdateMetrics.of([step])

    def export(self, folder: Path) -> None:
        folder.mkdir()
        (folder / "model.safetensors").write_text("[1]")


def said_before(number: int) -> list[dict[str, str]]:
    """The messages of turn `number` of a session in which every answer was the same."""
    said = [{"role": "user", "content": "question 0"}]
    for n in range(1, number + 1):
        said += [{"role": "assistant", "content": LONG}, {"role": "user", "content": f"question {n}"}]
    return said


class World:
    """The log and the stages, by hand."""

    def __init__(self, folder: Path, **lane: Any) -> None:
        self.now, self.log = 10_000_000_000.0, InMemoryLog()
        self.log.create(topics.specs(partitions=2, retention_s=1e9))
        self.engine = Talking(folder)
        given = {
            "run_dir": str(folder), "model": {"path": str(folder), "name": "small"}, "log": {"partitions": 2},
            "ingest": {"inactivity_s": 4.0, "held_out_share": 0.0},
            "trainer": {"batch_turns": USERS * (SIZE + 1), "minibatch_turns": 64, "near_duplicate_from": 1.0},
            "serving": {
                "engines": [self.engine.slot.model_dump(), NO_ENGINE],
                "lane": {"share": 1.0, "group_size": SIZE, "max_age_s": 1e12, **lane},
            },
        }  # fmt: skip
        self.config = Config.model_validate(given)
        self.store = VersionStore(self.config.store.url)
        base = folder / "base"
        base.mkdir()
        (base / "model.safetensors").write_text("[0]")
        self.store.publish(0, base, None, {}, {}, 0.0)
        first = Release(release=0, epoch=1, kind=ReleaseKind.BOOTSTRAP, stable=0, reason="first", at=0.0)
        reader.send(self.log, topics.RELEASES, "", first)
        self.stop = Stop()
        self.lane = Lane(self.log, self.config, TOKEN, self.stop, now=lambda: self.now, look_s=0.01)

    async def talk(self, num: int = USERS, consents: bool = True, **more: Any) -> None:
        """Users have sessions of one turn."""
        url = f"http://127.0.0.1:{self.engine.slot.port}/v1/chat/completions"
        async with httpx.AsyncClient() as client:
            for number in range(num):
                messages = [{"role": "user", "content": f"question {number}"}]
                body = {"model": "small", "messages": messages, "user": "u", "seed": 7, "stream": False, **more}
                whose = of_user(f"s-{number}", f"user-{number}") | ({} if consents else {headers.CONSENT: "no"})
                (await client.post(url, json=body, headers=whose)).raise_for_status()

    async def talk_on(self, num_turns: int) -> None:
        """A user has one session of several turns."""
        url = f"http://127.0.0.1:{self.engine.slot.port}/v1/chat/completions"
        async with httpx.AsyncClient() as client:
            for number in range(num_turns):
                body = {"model": "small", "messages": said_before(number), "stream": False}
                whose = of_user("s-long", "user-0") | {headers.TRACE: f"{session_key('s-long')}-{number}"}
                (await client.post(url, json=body, headers=whose)).raise_for_status()

    def flow(self, waits_s: float) -> None:
        """What the engine wrote goes through ingest and rewards, and the lane reads on; `waits_s` pass meanwhile."""
        Shipper(self.engine.spool, lambda: self.log, Stop()).ship()
        stage = Assembler(self.log, self.config, clock=lambda: self.now)
        stage.poll(0.0)
        self.now += waits_s
        stage.step(0.0)
        stage.close()
        spec = RewardSpec.model_validate(
            {
                "name": "test",
                "components": [
                    {"name": "thumb", "scorer": "feedback"},
                    {"name": "substance", "scorer": "reply", "params": {"min_words": 2}},
                ],
            }
        )
        with Background(Services()) as asking:
            scores = Stage(self.log, self.config, build(spec), asking, clock=lambda: self.now)
            scores.step(0.0)
            scores.close()
        for _ in range(2):
            self.lane.read(0.0)

    async def ended(self) -> dict[End, int]:
        """The lane, until a group has ended: how."""
        running = asyncio.create_task(self.lane.run())
        async with asyncio.timeout(20.0):
            while not self.lane.ended:  # noqa: ASYNC110
                await asyncio.sleep(0)
        self.stop.set()
        await running
        return dict(self.lane.ended)

    def release(self, **fields: Any) -> None:
        told = {"epoch": 1, "stable": 0, "reason": "test", "at": 1.0, **fields}
        reader.send(self.log, topics.RELEASES, "", Release.model_validate(told))

    async def replay(self) -> None:
        """The lane, until the engine has answered what was to be asked."""
        running = asyncio.create_task(self.lane.run())
        await asyncio.wait_for(self.engine.asked.wait(), 20.0)
        self.stop.set()
        await running

    def rewards(self) -> list[Reward]:
        """Of what the lane asked for."""
        found = reader.replay(self.log, topics.REWARDS, Reward)
        return [one for one in found if one.assignment and one.assignment.group]

    def traces(self) -> dict[str, Trace]:
        return {trace.trace_id: trace for trace in reader.replay(self.log, topics.TRACES, Trace)}

    def fates(self) -> dict[str, list[FateKind]]:
        found: dict[str, list[FateKind]] = {}
        for fate in reader.replay(self.log, topics.FATES, Fate):
            for trace_id in fate.trace_ids:
                found.setdefault(trace_id, []).append(fate.kind)
        return found


@pytest.fixture
async def world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> AsyncIterator[World]:
    monkeypatch.setenv(CONTROL_TOKEN_VAR, TOKEN)
    monkeypatch.setattr("os.fsync", lambda _handle: None)
    monkeypatch.setattr("trainer.loop.POLL_S", 0.0)
    monkeypatch.setattr("serving.rollout.lane.picking.coin", lambda _trace_id: 0.0)  # all are drawn
    made = World(tmp_path, **getattr(request, "param", {}))
    async with made.engine.serving():
        yield made
    made.lane.close()
    made.engine.spool.close()


async def test_a_prompt_is_asked_as_its_user_asked_it_and_the_answers_belong_to_them(world: World) -> None:
    await world.talk()
    world.flow(waits_s=100.0)
    await world.replay()
    world.flow(waits_s=0.0)
    traces = world.traces()
    replays = [trace for trace in traces.values() if trace.assignment.replay_of]
    assert len(replays) == USERS * SIZE and {trace.session_id[:7] for trace in replays} == {"replay-"}
    for trace in replays:
        anchor = traces[str(trace.assignment.replay_of)]
        assert (trace.user, trace.tenant, trace.consent) == (anchor.user, anchor.tenant, anchor.consent)
        assert trace.parent_session_id == anchor.session_id
        assert trace.assignment.group and trace.assignment.group.anchor == {"substance": 1.0}
    # as asked, but at once, without a seed that would give the same again
    questions = [[{"role": "user", "content": f"question {number}"}] for number in range(USERS)]
    asked = [{"model": "small", "messages": said} for said in questions for _ in range(SIZE)]
    assert sorted(world.engine.replays, key=str) == asked


async def test_answers_become_groups_whose_members_are_measured_against_each_other(world: World) -> None:
    await world.talk()
    world.flow(waits_s=100.0)
    await world.replay()
    world.flow(waits_s=0.0)
    closed = world.rewards()
    assert [len(one.trace_ids) for one in closed] == [SIZE] * USERS
    assert [[turn.value for turn in one.turns] for one in closed] == [[1.0, 0.0, 0.0]] * USERS
    inbox = Inbox(world.log, {}, ())
    for _ in range(2):
        inbox.poll(0.0)
    inbox.close()
    batch = make_batch(inbox.items, Baselines(), world.config.trainer, step=0)
    assert batch.groups == {Shape.COMPARED: USERS, Shape.ALIKE: 0, Shape.ALONE: 0}
    assert len(batch.turns) == USERS * (SIZE + 1) and len(batch.replays) == USERS * SIZE
    inverse = [1.0 / one.assignment.group.propensity for one in closed if one.assignment and one.assignment.group]
    weights = [one * USERS / sum(inverse) for one in inverse]
    # an answer of 1 between an anchor of 1, which counts w, and two of 0: 1 - (w + 0) / (w + 2), 0 - (w + 1) / (w + 2)
    raw = [((2 / (w + 2)), -(w + 1) / (w + 2), -(w + 1) / (w + 2)) for w in weights]
    square = sum(w * x * x for w, own in zip(weights, raw, strict=True) for x in own) / (USERS * SIZE)
    for one, w, own in zip(closed, weights, raw, strict=True):
        # a group of three counts as w turns do, each of them a third
        expected = [x / sqrt(square) * w / SIZE for x in own]
        assert [batch.advantages[name] for name in one.trace_ids] == pytest.approx(expected, abs=1e-4)
    assert batch.mean_reward == 1.0  # of what users had


async def test_a_groups_prompt_is_computed_once(world: World) -> None:
    await world.talk(1)
    world.engine.num = SIZE
    world.flow(waits_s=100.0)
    await world.replay()
    world.flow(waits_s=0.0)
    inbox = Inbox(world.log, {}, ())
    for _ in range(2):
        inbox.poll(0.0)
    inbox.close()
    items = [item for item in inbox.items if item.group]
    batch = make_batch(items, Baselines(), world.config.trainer, step=0)
    (micro,) = [micro for mini in batch.minibatches for micro in mini]
    assert micro.num_trained == 5 + 1 + 1 and micro.num_turns == SIZE
    assert micro.token_ids_BT.ravel().tolist().count(ord("q")) == 1


async def test_every_answer_trains_once_and_no_twin_of_it(world: World) -> None:
    await world.talk()
    world.flow(waits_s=100.0)
    await world.replay()
    world.flow(waits_s=0.0)
    policy = Taught()
    trainer = Trainer(world.config, world.log, world.store, policy, Stop(), now=lambda: world.now)
    trainer.recover()
    for _ in range(4):
        trainer.tick()
    world.release(release=1, kind=ReleaseKind.TRIAL, candidate=1, state=TrialState.PROMOTED, stable=1)
    for _ in range(2):
        trainer.tick()
    trainer.close()
    assert world.fates() == {name: [FateKind.TRAINED] for name in world.traces()}
    assert any(policy.advantages)


async def test_of_who_was_erased_meanwhile_nothing_is_asked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.talk()
    world.flow(waits_s=100.0)
    (theirs,) = [trace.trace_id for trace in world.traces().values() if trace.user == "user-1"]
    fetch = world.log.fetch

    def erasing(topic: str, partition: int, offset: int) -> Message | None:
        found = fetch(topic, partition, offset)
        is_theirs = found is not None and found.key == key_of(session_id=None, trace_id=theirs)
        return found._replace(headers=found.headers | {ERASED_HEADER: "user-1"}) if found and is_theirs else found

    monkeypatch.setattr(world.log, "fetch", erasing)
    world.engine.num = (USERS - 1) * SIZE
    await world.replay()
    assert {body["messages"][-1]["content"] for body in world.engine.replays} == {"question 0", "question 2"}


async def test_what_chance_does_not_answer_is_not_asked_again(world: World) -> None:
    await world.talk(1, temperature=0)
    world.flow(waits_s=100.0)
    assert await world.ended() == {End.GONE: 1} and world.engine.replays == []


async def test_what_a_tool_may_answer_is_not_drawn_and_costs_no_budget(world: World) -> None:
    await world.talk(1, tools=[{"type": "function", "function": {"name": "f"}}])
    world.flow(waits_s=100.0)
    assert world.lane.picks.take(0, world.now) is None


async def test_a_session_of_several_turns_is_set_back_to_one_of_them_and_goes_no_further(world: World) -> None:
    await world.talk_on(num_turns=4)
    world.engine.num = SIZE
    world.flow(waits_s=100.0)
    await world.replay()
    world.flow(waits_s=0.0)
    traces = world.traces()
    replays = [trace for trace in traces.values() if trace.assignment.replay_of]
    (anchor,) = {str(trace.assignment.replay_of) for trace in replays}
    number = int(anchor.rsplit("-", 1)[1])
    assert number > 0  # its trace holds but its own message
    assert [body["messages"] for body in world.engine.replays] == [said_before(number)] * SIZE
    (group,) = world.rewards()
    assert [turn.value for turn in group.turns] == [1.0, 0.0, 0.0]

    inbox = Inbox(world.log, {}, ())
    for _ in range(2):
        inbox.poll(0.0)
    inbox.close()
    batch = make_batch(inbox.items, Baselines(), world.config.trainer, step=0)
    assert batch.groups == {Shape.COMPARED: 1, Shape.ALIKE: 0, Shape.ALONE: 0}
    assert [turn.trace_id for turn in batch.turns if turn.trace_id in batch.replays] == list(group.trace_ids)
    # an anchor of 1, which counts 1: 1 - 1 / 3, 0 - 2 / 3, 0 - 2 / 3, whose squares are alike
    assert [batch.advantages[name] for name in group.trace_ids] == pytest.approx([1.0, -1.0, -1.0], abs=1e-4)


async def test_an_engine_that_is_busy_or_stumbles_is_asked_again_until_the_group_is_whole(world: World) -> None:
    await world.talk(1)
    world.flow(waits_s=100.0)
    world.engine.refuses = [429, 500, 503]
    assert await world.ended() == {End.WHOLE: 1} and len(world.engine.replays) == SIZE


async def test_what_an_engine_refuses_is_not_asked_again(world: World) -> None:
    await world.talk(1)
    world.flow(waits_s=100.0)
    world.engine.refuses = [400]
    assert await world.ended() == {End.REFUSED: 1} and world.engine.replays == []


@pytest.mark.parametrize(
    "release",
    [
        {"kind": ReleaseKind.OPERATOR, "mode": Mode.FROZEN},
        {"kind": ReleaseKind.TRIAL, "candidate": 1, "state": TrialState.PROMOTED, "stable": 1},
    ],
    ids=["frozen", "another stable"],
)
async def test_a_group_ends_where_all_is_frozen_or_stable_changes(world: World, release: dict[str, Any]) -> None:
    await world.talk(1)
    world.flow(waits_s=100.0)

    async def then() -> None:
        world.release(release=1, **release)
        while world.lane._releases.served.last < 1:  # noqa: ASYNC110
            await asyncio.sleep(0)

    world.engine.then = then
    assert await world.ended() == {End.OUTDATED: 1} and len(world.engine.replays) == 1


async def test_of_who_does_not_consent_there_is_nothing_to_ask(world: World) -> None:
    await world.talk(consents=False)
    world.flow(waits_s=100.0)
    assert world.traces() == {} and world.lane.picks.take(0, world.now) is None


async def test_nothing_is_asked_while_a_user_is_there(world: World) -> None:
    await world.talk()
    world.flow(waits_s=100.0)
    with world.engine.users.one():
        running = asyncio.create_task(world.lane.run())
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert world.engine.replays == []
    await asyncio.wait_for(world.engine.asked.wait(), 20.0)
    world.stop.set()
    await running


async def test_what_a_lane_left_half_asked_trains_as_what_it_is(world: World) -> None:
    await world.talk(1)
    world.flow(waits_s=100.0)
    world.engine.num = 2
    running = asyncio.create_task(world.lane.run())
    await asyncio.wait_for(world.engine.asked.wait(), 20.0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    world.flow(waits_s=0.0)
    assert world.rewards() == []
    world.flow(waits_s=100.0)
    (one,) = world.rewards()
    assert 1 <= len(one.trace_ids) <= 2


async def test_answers_of_the_lane_are_asked_by_nobody_again(world: World) -> None:
    await world.talk()
    world.flow(waits_s=100.0)
    await world.replay()
    world.flow(waits_s=0.0)
    assert len(list(reader.replay(world.log, topics.TRAJECTORIES, Trajectory))) == 2 * USERS
    assert world.lane.picks.take(0, world.now) is None


async def test_a_lane_that_begins_anew_asks_nothing_of_before(world: World) -> None:
    await world.talk()
    world.flow(waits_s=100.0)
    again = Lane(world.log, world.config, TOKEN, world.stop, now=lambda: world.now)
    for _ in range(2):
        again.read(0.0)
    assert again.picks.take(0, world.now) is None
    assert world.lane.picks.take(0, world.now) is not None
    again.close()
