"""The controller killed at every moment around what it does to the world, and started again: the same decisions."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from fuses import Fuse
from rollouts import World

from infra.config import EngineSlot
from ingest.log import topics
from ingest.log.protocol import Message
from ingest.records.events import ReleaseKind, Reward, TrialState, Version
from serving.rollout.commands import Command, Do
from serving.rollout.controller import Rollout
from serving.rollout.evidence import Standing, Verdict
from serving.rollout.writing import FencedError

EFFECTS = ("ingest.log.memory.InMemoryLog.append", "rollouts.Hand.load", "rollouts.Hand.probe")
STORY = [
    (1, TrialState.EVALUATING), (1, TrialState.SUITES), (1, TrialState.CANARY), (1, TrialState.CANARY),
    (1, TrialState.PROMOTED), (1, TrialState.ROLLED_BACK),
    (2, TrialState.EVALUATING), (2, TrialState.SUITES), (2, TrialState.CANARY), (2, TrialState.REJECTED),
]  # fmt: skip


@dataclass
class Passing:
    """A check that has passed before it began."""

    def make(
        self, _candidate: Version, _stable: int, _mine: Sequence[EngineSlot], _others: Sequence[EngineSlot]
    ) -> "Passing":
        return self

    def take(self, reward: Reward) -> None: ...

    def look(self) -> Standing:
        return Standing(Verdict.PASS, "all tasks", {})

    def close(self) -> None: ...


def told(world: World) -> list[tuple[int, TrialState]]:
    steps = [one for one in world.released if one.kind is ReleaseKind.TRIAL and one.candidate and one.state]
    return [(one.candidate, one.state) for one in steps if one.candidate is not None and one.state is not None]


def prepare(folder: Path) -> World:
    world = World(folder)
    world.checks = {TrialState.SUITES: Passing().make}
    world.restarted()
    world.champion()
    world.publish(1, parent=0)
    return world


class Story:
    """What users and the trainer do, each once, when the log says that it is time."""

    def __init__(self, world: World, fuse: Fuse) -> None:
        self._world, self._fuse = world, fuse
        self._done: set[str] = set()

    def is_over(self) -> bool:
        """Do what it is time for; whether the end was reached."""
        with self._fuse.paused():
            world, served = self._world, self._world.served
            is_first = served.candidate == 1 and served.state is TrialState.CANARY
            is_second = served.candidate == 2 and served.state is TrialState.CANARY
            self._once("few", is_first and served.share == 0.3, lambda: world.trial_sessions(8, 0.5, 0.9))
            self._once("many", is_first and served.share == 0.5, lambda: world.trial_sessions(160, 0.5, 0.9))
            self._once("turned", served.holdback == 0, lambda: world.watch_sessions(160, 0.0, 0.6))
            self._once("next", served.state is TrialState.ROLLED_BACK, lambda: world.publish(2, parent=0))
            self._once("worse", is_second, lambda: world.trial_sessions(60, 0.5, 0.0, version=2))
            is_ended = served.trials.get(2) is TrialState.REJECTED
            return is_ended and {hand.version for hand in world.hands.values()} == {0}

    def _once(self, name: str, is_time: bool, do: Callable[[], object]) -> None:
        if is_time and name not in self._done:
            self._done.add(name)
            do()

    def run(self) -> None:
        """Tick to the end."""
        for _ in range(60):
            if self.is_over():
                return
            self._world.rollout.tick()
        pytest.fail(f"not over: {told(self._world)}")


def killed(folder: Path, at: int) -> tuple[World, Fuse]:
    """The story with a kill at the `at`-th moment, if there are so many."""
    folder.mkdir()
    world, fuse = prepare(folder), Fuse(at)
    story = Story(world, fuse)
    with fuse.around(*EFFECTS):
        story.run()
    if fuse.is_blown:
        world.restarted()
        story.run()
    return world, fuse


@pytest.mark.parametrize("keep_every_s", [30.0, 0.0])
def test_a_kill_at_any_moment_changes_no_decision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep_every_s: float
) -> None:
    monkeypatch.setattr("serving.rollout.controller._KEEP_EVERY_S", keep_every_s)
    monkeypatch.setattr("os.fsync", lambda _handle: None)
    for at in itertools.count(1):
        world, fuse = killed(tmp_path / str(at), at)
        assert told(world) == STORY, fuse.name
        assert (world.served.stable, world.served.holdback) == (0, None), fuse.name
        assert [one.release for one in world.released] == list(range(len(world.released))), fuse.name
        if not fuse.is_blown:
            return


def test_rewards_that_come_twice_and_in_another_order_change_no_decision(tmp_path: Path) -> None:
    world = prepare(tmp_path)
    send = world.log.append
    held: list[tuple[str, str, bytes, dict[str, str]]] = []

    def append(topic: str, key: str, value: bytes, headers: dict[str, str]) -> Message:
        """Rewards are kept back in pairs, and come in reverse and twice."""
        if topic != topics.REWARDS.name:
            return send(topic, key, value, headers)
        held.append((topic, key, value, headers))
        if len(held) == 2:
            for one in (*reversed(held), held[0]):
                last = send(*one)
            held.clear()
        return last if not held else Message(topic, 0, 0, key, value, headers)

    world.log.append = append  # type: ignore[method-assign]
    Story(world, Fuse(0)).run()
    assert told(world) == STORY


def test_of_two_controllers_at_once_only_the_newer_one_acts(tmp_path: Path) -> None:
    world = prepare(tmp_path)
    older = world.rollout
    newer = world.restarted()
    num = len(world.released)
    with pytest.raises(FencedError):
        older._writer.write(ReleaseKind.BOOTSTRAP, "nobody shall heed this", engines={"s": 7, "c": 7})
    assert len(world.released) == num + 1, "it is on the log"
    for _ in range(3):
        newer.tick()
    assert 7 not in {number for hand in world.hands.values() for number in hand.loads}
    assert world.served == newer.served
    with pytest.raises(FencedError):
        older.desk.ask(Command(do=Do.FREEZE, author="ann", reason="so"))
        older.tick()


def test_a_release_is_acted_on_once_it_was_read_back_and_not_before(tmp_path: Path) -> None:
    world = prepare(tmp_path)
    older, begun = world.rollout, []
    real = world.log.append

    def append(topic: str, key: str, value: bytes, headers: dict[str, str]) -> Message:
        """Another controller claims the log just before the trial's first release."""
        if topic == topics.RELEASES.name and not begun:
            begun.append(True)
            world.restarted()
        return real(topic, key, value, headers)

    world.log.append = append  # type: ignore[method-assign]
    with pytest.raises(FencedError, match="epoch 4 writes releases now"):
        for _ in range(5):
            older.tick()
    assert world.served.state is None and world.hands["c"].loads == []


def test_of_two_controllers_that_claim_the_log_at_the_same_moment_one_gives_up(tmp_path: Path) -> None:
    world = prepare(tmp_path)
    real, begun, first = world.log.append, [], list[Rollout]()

    def append(topic: str, key: str, value: bytes, headers: dict[str, str]) -> Message:
        """Both have read the same head by now; another one's claim comes first."""
        if not begun:
            begun.append(True)
            world.now += 0.001
            first.append(world.restarted())
        return real(topic, key, value, headers)

    world.log.append = append  # type: ignore[method-assign]
    with pytest.raises(FencedError, match="was claimed by another process at the same time"):
        world.restarted()
    first[0].tick()
    assert world.served.epoch == first[0].served.epoch
    assert first[0].served.state is TrialState.EVALUATING


@pytest.mark.parametrize("jump_s", [-1e6, 1e6])
def test_a_controller_that_starts_with_a_wrong_clock_promotes_and_takes_back_nothing_for_it(
    tmp_path: Path, jump_s: float
) -> None:
    world = prepare(tmp_path)
    world.ticks(5)
    assert world.served.state is TrialState.CANARY
    world.now += jump_s
    world.restarted()
    world.ticks()
    assert world.served.state is (TrialState.EXPIRED if jump_s > 0 else TrialState.CANARY)
    assert (world.served.stable, world.served.promoted) == (0, ())
