"""The rewards stage on the in-memory log, with a scorer that waits, on a clock that skips every wait."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra import config
from infra.errors import LogError, RecordError
from ingest.log.memory import InMemoryLog
from ingest.log.protocol import TopicSpec
from ingest.log.reader import replay, send
from ingest.log.topics import FATES, REWARDS, TRAJECTORIES, dead_letters
from ingest.log.trajectories import trajectory_of
from ingest.records import codec
from ingest.records.events import Fate, FateKind, Feedback, Headers, Reward, Trajectory, Turn, session_key
from ingest.records.named import IDS_HEADER, ids_header
from rewards import spec
from rewards.desks import Desks
from rewards.evaluate import Question, evaluate
from rewards.scorers import Cost, FeedbackScorer, Outcome, Services
from rewards.spec import RewardSpec, Scoring
from rewards.stage import GROUP, Stage, told

MakeTurn = Callable[..., Turn]
MakeTrajectory = Callable[..., Trajectory]
MakeWorld = Callable[..., "World"]


class Hurried:
    """Asks in a loop whose waits are skipped: every look for answers is 10 seconds later than the one before."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._found = loop, list[tuple[Question, Outcome]]()
        self._desks = Desks(Services(), lambda question, outcome: self._found.append((question, outcome)))
        self._work = loop.create_task(self._desks.work())

    def ask(self, questions: Iterable[Question]) -> None:
        self._loop.call_soon(self._desks.put, tuple(questions))

    def answers(self) -> Iterator[tuple[Question, Outcome]]:
        self._loop.run_until_complete(asyncio.sleep(10.0))
        while self._found:
            yield self._found.pop(0)

    def drop(self, questions: Iterable[Question]) -> None:
        self._loop.call_soon(self._desks.drop, tuple(questions))

    def close(self) -> None:
        self._desks.stop()
        self._loop.run_until_complete(self._work)


class World:
    """A log and the stages that read it, at second 5 unless `now` moves.

    `patient` is asked about every turn whose reply is not `nothing`.
    """

    def __init__(self, log: InMemoryLog, folder: Path, make_asking: Callable[[], Hurried], patient: Any) -> None:
        self.log, self.patient, self._make_asking, self.now, self._folder = log, patient, make_asking, 5.0, folder
        log.create(TopicSpec(topic.name, 2, None) for topic in (TRAJECTORIES, REWARDS))

    def stage(self, max_waiting: int = 100, spec_id: str = "test@0") -> Stage:
        components = [{"name": "thumb", "scorer": "x"}, {"name": "patient", "scorer": "y"}]
        written = RewardSpec.model_validate({"name": "test", "components": components})
        scoring = Scoring(written, (FeedbackScorer(), self.patient), (), spec_id)
        settings = config.Config(
            run_dir=str(self._folder),
            model=config.ModelConfig(path="model"),
            rewards=config.RewardsConfig(max_waiting=max_waiting),
        )
        return Stage(self.log, settings, scoring, self._make_asking(), clock=lambda: self.now)

    def put(self, *trajectories: Trajectory) -> None:
        for trajectory in trajectories:
            send(self.log, TRAJECTORIES, session_key(trajectory.session_id), trajectory)

    def rewards(self) -> list[Reward]:
        return list(replay(self.log, REWARDS, Reward))

    def uncommitted(self) -> int:
        return self.log.lag(GROUP, [TRAJECTORIES.name])[TRAJECTORIES.name]


@pytest.fixture
def patient(make_patient: Any) -> Any:
    return make_patient(window_s=100.0)


@pytest.fixture
def make_asking(loop: asyncio.AbstractEventLoop) -> Iterator[Callable[[], Hurried]]:
    made: list[Hurried] = []

    def make() -> Hurried:
        made.append(Hurried(loop))
        return made[-1]

    yield make
    for asking in made:
        asking.close()


@pytest.fixture
def make_world(tmp_path: Path, make_asking: Callable[[], Hurried], patient: Any) -> MakeWorld:
    return lambda log=None: World(log or InMemoryLog(), tmp_path, make_asking, patient)


@pytest.fixture
def world(make_world: MakeWorld) -> World:
    return make_world()


@pytest.fixture
def make_session(make_trajectory: MakeTrajectory, make_turn: MakeTurn) -> MakeTrajectory:
    """A trajectory of session `s<n>` with one turn; with `is_quick` the patient scorer is not asked about it."""

    def make(n: int = 0, is_quick: bool = False) -> Trajectory:
        turn = make_turn(n, reply="nothing" if is_quick else "a long answer")
        return make_trajectory(turn, trajectory_id=f"j{n}", session_id=f"s{n}")

    return make


def outcomes(world: World) -> dict[str, list[float | str | None]]:
    """What the patient scorer said, by trajectory."""
    return {
        made.trajectory_id: [c.unscored if c.value is None else c.value for c in made.components if c.name == "patient"]
        for made in world.rewards()
    }


def run(*stages: Stage, steps: int = 1) -> None:
    for _ in range(steps):
        for stage in stages:
            stage.step(0.0)


def test_every_trajectory_gets_a_reward_under_its_sessions_key(world: World, make_trajectory: MakeTrajectory) -> None:
    trajectories = [make_trajectory(trajectory_id=f"j{n}", session_id=f"s{n}") for n in range(5)]
    world.put(*trajectories)
    world.stage().step(0.0)
    made = {reward.trajectory_id: reward for reward in world.rewards()}
    assert {name: trajectory_of(world.log, reward) for name, reward in made.items()} == {
        t.trajectory_id: t for t in trajectories
    }
    assert {message.key for message in world.log.replay(REWARDS.name)} == {session_key(f"s{n}") for n in range(5)}
    assert (world.uncommitted(), made["j0"].at) == (0, 5.0)


def test_a_slow_scorer_delays_only_what_it_is_asked_about(world: World, make_session: MakeTrajectory) -> None:
    world.patient.takes_s, world.patient.cost = 35.0, Cost(timeout_s=50.0, window_s=100.0)
    stage = world.stage()
    world.put(make_session(0), make_session(1, is_quick=True))
    stage.step(0.0)
    assert [made.trajectory_id for made in world.rewards()] == ["j1"]
    world.put(make_session(2, is_quick=True))
    stage.step(0.0)
    assert {made.trajectory_id for made in world.rewards()} == {"j1", "j2"}
    run(stage, steps=2)
    assert outcomes(world) == {"j0": [1.0], "j1": ["nothing to ask"], "j2": ["nothing to ask"]}


def test_an_outage_that_ends_within_the_window_gives_the_score(world: World, make_session: MakeTrajectory) -> None:
    world.patient.is_away = True
    stage = world.stage()
    world.put(make_session())
    run(stage, steps=6)
    assert world.rewards() == []
    world.patient.is_away = False
    run(stage, steps=3)
    assert outcomes(world) == {"j0": [1.0]}
    assert world.uncommitted() == 0


def test_an_outage_that_outlasts_the_window_gives_its_reason(world: World, make_session: MakeTrajectory) -> None:
    world.patient.is_away = True
    stage = world.stage()
    world.put(make_session())
    run(stage, steps=11)
    assert outcomes(world) == {"j0": ["no answer within 100 s: no engine answered"]}
    assert world.uncommitted() == 0


def test_positions_do_not_pass_what_waits(world: World, make_session: MakeTrajectory) -> None:
    world.patient.is_away = True
    stage = world.stage()
    same_key = [make_session(0, is_quick=n != 1).model_copy(update={"trajectory_id": f"j{n}"}) for n in range(4)]
    world.put(*same_key)
    stage.step(0.0)
    assert ({made.trajectory_id for made in world.rewards()}, world.uncommitted()) == ({"j0", "j2", "j3"}, 3)
    world.patient.is_away = False
    run(stage, steps=3)
    assert (len(world.rewards()), world.uncommitted()) == (4, 0)


@pytest.mark.parametrize("last_step", ["nothing", "read", "write", "flush", "commit"])
def test_a_crash_after_any_step_neither_repeats_nor_loses(
    world: World, make_session: MakeTrajectory, last_step: str
) -> None:
    world.put(*(make_session(n, is_quick=n % 2 == 0) for n in range(6)))
    world.patient.is_away = True
    stage = world.stage()
    steps: dict[str, Callable[[], object]] = {
        "read": lambda: stage.read(0.0),
        "write": stage.write,
        "flush": lambda: world.log.flush(1.0),
        "commit": stage.commit,
    }
    for name, step in steps.items():
        if last_step == "nothing":
            break
        step()
        if name == last_step:
            break
    assert len(world.rewards()) == (0 if last_step in ("nothing", "read") else 3)
    stage.close()
    world.patient.is_away = False
    run(world.stage())
    assert Counter(made.trajectory_id for made in world.rewards()) == {f"j{n}": 1 for n in range(6)}
    assert [outcomes(world)[f"j{n}"] for n in (1, 3, 5)] == [[1.0]] * 3
    assert world.uncommitted() == 0


def test_a_broker_restart_asks_about_nothing_twice(world: World, make_session: MakeTrajectory) -> None:
    world.patient.takes_s, world.patient.cost = 15.0, Cost(timeout_s=50.0, window_s=100.0)
    stage = world.stage()
    world.put(make_session(0), make_session(1, is_quick=True))
    stage.step(0.0)
    world.log.restart()
    run(stage, steps=2)
    assert Counter(made.trajectory_id for made in world.rewards()) == {"j0": 1, "j1": 1}
    world.log.restart()
    run(stage, steps=2)
    assert (len(world.rewards()), world.uncommitted()) == (2, 0)
    assert [batch for _, batch in world.patient.asked] == [["t0"]]


def test_a_trajectory_that_comes_twice_has_one_reward(world: World, make_session: MakeTrajectory) -> None:
    stage = world.stage()
    world.put(make_session(), make_session())
    run(stage)
    world.put(make_session())
    run(stage)
    assert (len(world.rewards()), world.uncommitted()) == (1, 0)


def test_another_spec_scores_what_waited_again(world: World, make_session: MakeTrajectory) -> None:
    world.put(make_session(0), make_session(0, is_quick=True).model_copy(update={"trajectory_id": "j1"}))
    world.patient.is_away = True
    first = world.stage()
    run(first)
    first.close()
    world.patient.is_away = False
    run(world.stage(spec_id="test@1"))
    assert Counter((made.trajectory_id, made.spec) for made in world.rewards()) == {
        ("j1", "test@0"): 1,
        ("j0", "test@1"): 1,
        ("j1", "test@1"): 1,
    }


def test_the_oldest_is_finished_when_too_many_wait(world: World, make_session: MakeTrajectory) -> None:
    world.patient.is_away = True
    stage = world.stage(max_waiting=2)
    world.put(make_session(0))
    run(stage)
    world.put(*(make_session(n) for n in range(1, 4)), make_session(4, is_quick=True))
    run(stage)
    told_of = outcomes(world)
    assert told_of.pop("j4") == ["nothing to ask"]
    assert (len(told_of), told_of["j0"]) == (2, ["too many wait"])
    world.patient.is_away = False
    world.patient.asked.clear()
    run(stage, steps=3)
    assert len(world.rewards()) == 5
    assert {f"j{name[1:]}" for _, batch in world.patient.asked for name in batch}.isdisjoint(told_of)
    assert world.uncommitted() == 0


def test_a_trajectory_waits_no_longer_than_the_stage_lets_it(world: World, make_session: MakeTrajectory) -> None:
    world.patient.is_away = True
    stage = world.stage()
    world.put(make_session(0))
    run(stage)
    world.now += 200.0
    world.put(make_session(1))
    run(stage)
    assert outcomes(world) == {}
    world.now += 100.0
    run(stage)
    assert outcomes(world) == {"j0": ["it waited too long"]}


def test_partitions_that_move_take_what_waits_along(world: World, make_session: MakeTrajectory) -> None:
    world.patient.is_away = True
    first = world.stage()
    world.put(*(make_session(n) for n in range(8)))
    run(first)
    second = world.stage()
    run(first, second)
    world.put(*(make_session(n, is_quick=True) for n in range(8, 12)))
    run(first, second)
    assert (len(world.rewards()), world.uncommitted()) == (4, 12)
    world.patient.is_away = False
    run(first, second, steps=3)
    assert Counter(made.trajectory_id for made in world.rewards()) == {f"j{n}": 1 for n in range(12)}
    assert world.uncommitted() == 0


def test_partitions_of_a_crashed_process_are_taken_over_without_repeating(
    world: World, make_session: MakeTrajectory
) -> None:
    first, second = world.stage(), world.stage()
    world.put(*(make_session(n) for n in range(8)))
    run(first)
    second.read(0.0)
    second.write()
    assert len(world.rewards()) == 8
    second.close()
    run(first, steps=2)
    assert (len(world.rewards()), world.uncommitted()) == (8, 0)


def test_nothing_is_committed_that_was_not_flushed(make_world: MakeWorld, make_trajectory: MakeTrajectory) -> None:
    class Unreachable(InMemoryLog):
        def flush(self, timeout_s: float) -> None:
            raise LogError("flush: nobody acknowledged")

    world = make_world(Unreachable())
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


@pytest.mark.parametrize(
    ("revision", "expected"), [(1, [(("t0",), FateKind.DEAD_LETTERED, "rewards: too large")]), (2, [])]
)
def test_a_reward_too_large_for_the_log_gives_its_traces_a_fate_unless_they_had_one_before(
    make_world: MakeWorld, make_trajectory: MakeTrajectory, revision: int, expected: list[tuple[object, ...]]
) -> None:
    class Narrow(InMemoryLog):
        def append(self, topic: str, key: str, value: bytes, headers: Headers) -> None:
            if topic == REWARDS.name:
                raise RecordError(f"{topic}: too large")
            super().append(topic, key, value, headers)

    world = make_world(Narrow())
    world.put(make_trajectory(revision=revision))
    world.stage().step(0.0)
    assert [(one.trace_ids, one.kind, one.reason) for one in replay(world.log, FATES, Fate)] == expected
    assert world.uncommitted() == 0


def test_a_reward_in_a_line_tells_each_components_part(
    make_trajectory: MakeTrajectory, make_turn: Callable[..., Turn], make_thumb: Callable[..., Feedback]
) -> None:
    turns = (make_turn(0, followup="tell me more"), make_turn(1))
    liked = evaluate(spec.load(""), make_trajectory(*turns, feedback=(make_thumb(0.5, "t1"),)), at=5.0)
    assert told(liked) == (
        "value 0.750, thumb 0.750 over 1 of 2 turns (no feedback), "
        "followup unscored (follow-up says neither; no follow-up), outcome unscored (no feedback)"
    )
    assert told(evaluate(spec.load(""), make_trajectory(), at=5.0)).startswith(
        "value 0.500 for silence, thumb unscored"
    )


def erased(log: InMemoryLog, trajectory: Trajectory) -> None:
    """A trajectory as a reader finds it whose subject was erased."""
    traces = [turn.trace_id for turn in trajectory.turns]
    _, headers = codec.encode(trajectory)
    about = {codec.ERASED_HEADER: "user-anna", IDS_HEADER: ids_header(traces)}
    log.append(TRAJECTORIES.name, session_key(trajectory.session_id), b"", headers | about)


def test_a_trajectory_of_an_erased_user_ends_refused_and_blocks_nothing(
    world: World, make_trajectory: MakeTrajectory, make_turn: MakeTurn
) -> None:
    key = session_key("s0")
    erased(world.log, make_trajectory(make_turn(trace_id=f"{key}-7"), trajectory_id="j0", session_id="s0"))
    world.put(make_trajectory(trajectory_id="j1", session_id="s1"))
    world.stage().step(0.0)
    assert [reward.session_id for reward in world.rewards()] == ["s1"]
    (fate,) = replay(world.log, FATES, Fate)
    assert (fate.trace_ids, fate.kind, fate.reason) == ((f"{key}-7",), FateKind.REFUSED, "erased")
    assert world.uncommitted() == 0


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_revision_whose_user_was_erased_tells_no_fate_beside_that_of_the_first(
    world: World, make_trajectory: MakeTrajectory, make_turn: MakeTurn, is_restarted: bool
) -> None:
    made = make_trajectory(make_turn(trace_id=f"{session_key('s0')}-7"), trajectory_id="j0", session_id="s0")
    world.put(made)
    stage = world.stage()
    stage.read(0.0)
    stage.write()
    if is_restarted:
        stage.note()
        stage.close()
        stage = world.stage()
    erased(world.log, made.model_copy(update={"trajectory_id": "j0b", "revision": 2}))
    stage.step(0.0)
    assert list(replay(world.log, FATES, Fate)) == [] and len(world.rewards()) == 1


def test_a_trajectory_that_was_scored_before_its_user_was_erased_gets_no_fate_here(
    world: World, make_session: MakeTrajectory
) -> None:
    world.put(make_session(is_quick=True))
    stage = world.stage()
    stage.read(0.0)
    stage.write()
    stage.note()
    stage.close()
    for part in world.log._shared.partitions[TRAJECTORIES.name]:
        part.messages = [
            m._replace(value=b"", headers=m.headers | {codec.ERASED_HEADER: "user-anna", IDS_HEADER: "7"})
            for m in part.messages
        ]
    world.stage().step(0.0)
    assert list(replay(world.log, FATES, Fate)) == []
    assert len(world.rewards()) == 1
