"""The rewards stage on the in-memory log."""

from collections.abc import Callable

import pytest

from infra.errors import LogError, RecordError
from ingest.events import Fate, FateKind, Feedback, Headers, Reward, Trajectory, Turn, session_key
from ingest.log import InMemoryLog, TopicSpec
from ingest.reader import replay, send
from ingest.topics import FATES, REWARDS, TRAJECTORIES, dead_letters
from rewards import spec
from rewards.spec import evaluate
from rewards.stage import GROUP, Stage, told

MakeTrajectory = Callable[..., Trajectory]


class World:
    """A log and the stages that read it, at second 5 for ever."""

    def __init__(self, log: InMemoryLog) -> None:
        self.log = log
        log.create(TopicSpec(topic.name, 2, None) for topic in (TRAJECTORIES, REWARDS))

    def stage(self) -> Stage:
        return Stage(self.log, spec.load(""), flush_timeout_s=1.0, clock=lambda: 5.0)

    def put(self, *trajectories: Trajectory) -> None:
        for trajectory in trajectories:
            send(self.log, TRAJECTORIES, session_key(trajectory.session_id), trajectory)

    def rewards(self) -> list[Reward]:
        return list(replay(self.log, REWARDS, Reward))

    def uncommitted(self) -> int:
        return self.log.lag(GROUP, [TRAJECTORIES.name])[TRAJECTORIES.name]


@pytest.fixture
def world() -> World:
    return World(InMemoryLog())


def test_every_trajectory_gets_a_reward_under_its_sessions_key(world: World, make_trajectory: MakeTrajectory) -> None:
    trajectories = [make_trajectory(trajectory_id=f"j{n}", session_id=f"s{n}") for n in range(5)]
    world.put(*trajectories)
    world.stage().step(0.0)
    made = {reward.trajectory_id: reward for reward in world.rewards()}
    assert {name: reward.trajectory for name, reward in made.items()} == {t.trajectory_id: t for t in trajectories}
    assert {message.key for message in world.log.replay(REWARDS.name)} == {session_key(f"s{n}") for n in range(5)}
    assert (world.uncommitted(), made["j0"].at) == (0, 5.0)


def test_a_crash_before_the_commit_repeats_the_same_rewards(world: World, make_trajectory: MakeTrajectory) -> None:
    world.put(make_trajectory())
    first = world.stage()
    first.score(0.0)
    first.close()
    world.stage().step(0.0)
    one, again = world.rewards()
    assert one.reward_id == again.reward_id


def test_a_crash_before_scoring_loses_nothing(world: World, make_trajectory: MakeTrajectory) -> None:
    world.put(make_trajectory())
    world.stage().close()
    world.stage().step(0.0)
    assert len(world.rewards()) == 1


def test_what_was_committed_is_not_scored_again(world: World, make_trajectory: MakeTrajectory) -> None:
    world.put(make_trajectory())
    first = world.stage()
    first.step(0.0)
    world.log.restart()
    assert first.step(0.0) == 0
    first.close()
    assert world.stage().step(0.0) == 0
    assert len(world.rewards()) == 1


def test_nothing_is_committed_that_was_not_flushed(make_trajectory: MakeTrajectory) -> None:
    class Unreachable(InMemoryLog):
        def flush(self, timeout_s: float) -> None:
            raise LogError("flush: nobody acknowledged")

    world = World(Unreachable())
    world.put(make_trajectory())
    with pytest.raises(LogError):
        world.stage().step(0.0)
    assert world.uncommitted() == 1


def test_an_unreadable_trajectory_goes_to_the_dead_letters_and_blocks_nothing(
    world: World, make_trajectory: MakeTrajectory
) -> None:
    world.log.append(TRAJECTORIES.name, session_key("s"), b"broken", {"schema": "trajectory/1"})
    world.put(make_trajectory())
    world.stage().step(0.0)
    assert [letter.value for letter in world.log.replay(dead_letters(TRAJECTORIES.name, GROUP))] == [b"broken"]
    assert (len(world.rewards()), world.uncommitted()) == (1, 0)


def test_a_reward_too_large_for_the_log_gives_its_traces_a_fate(make_trajectory: MakeTrajectory) -> None:
    class Narrow(InMemoryLog):
        def append(self, topic: str, key: str, value: bytes, headers: Headers) -> None:
            if topic == REWARDS.name:
                raise RecordError(f"{topic}: too large")
            super().append(topic, key, value, headers)

    world = World(Narrow())
    world.put(make_trajectory())
    world.stage().step(0.0)
    (fate,) = replay(world.log, FATES, Fate)
    assert (fate.trace_id, fate.kind, fate.reason) == ("t0", FateKind.DEAD_LETTERED, "rewards: too large")
    assert world.uncommitted() == 0


def test_a_reward_in_a_line_tells_each_components_part(
    make_trajectory: MakeTrajectory, make_turn: Callable[..., Turn], make_thumb: Callable[..., Feedback]
) -> None:
    turns = (make_turn(0, followup="tell me more"), make_turn(1))
    liked = evaluate(spec.load(""), make_trajectory(*turns, feedback=(make_thumb(0.5, "t1"),)), at=5.0)
    assert told(liked) == (
        "value 0.750, thumb 0.750 over 1 of 2 turns (no feedback), "
        "followup unscored (follow-up says neither; no follow-up)"
    )
    assert told(evaluate(spec.load(""), make_trajectory(), at=5.0)).startswith(
        "value 0.500 for silence, thumb unscored"
    )
