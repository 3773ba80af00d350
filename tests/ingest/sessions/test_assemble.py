"""The ingest stage on the in-memory log: nothing repeated, nothing torn, nothing lost."""

from collections import Counter
from collections.abc import Callable, Iterable

import pytest

from infra.config import Config, IngestConfig, LogConfig, ModelConfig
from infra.errors import LogError, RecordError
from ingest.log import letters
from ingest.log.letters import Failure
from ingest.log.memory import InMemoryLog
from ingest.log.protocol import Message, TopicSpec
from ingest.log.reader import replay, send
from ingest.log.topics import ALL, FATES, FEEDBACK, TRACES, TRAJECTORIES, dead_letters, late_letters
from ingest.records import codec
from ingest.records.events import Fate, FateKind, Feedback, Headers, Trace, Trajectory, key_of, session_key
from ingest.sessions.assemble import GROUP, Assembler

MakeTrace = Callable[..., Trace]
MakeFeedback = Callable[..., Feedback]

PARTITIONS = 3
CONFIG = Config(
    model=ModelConfig(path="unused"),
    log=LogConfig(partitions=PARTITIONS),
    ingest=IngestConfig(inactivity_s=60.0, horizon_s=3600.0),
)
SETTLED_S = 31.0


class World:
    """A log, a clock that moves only when told, and the stages that read the one by the other."""

    def __init__(self, log: InMemoryLog) -> None:
        self.log, self.now = log, 0.0
        log.create(TopicSpec(topic.name, PARTITIONS, None) for topic in ALL)

    def stage(self, max_messages: int = 500) -> Assembler:
        return Assembler(self.log, CONFIG, clock=lambda: self.now, max_messages=max_messages)

    def put(self, *records: Trace | Feedback) -> None:
        for record in records:
            if isinstance(record, Trace):
                send(self.log, TRACES, session_key(record.session_id), record)
            else:
                send(self.log, FEEDBACK, key_of(session_id=record.session_id, trace_id=record.trace_id), record)

    def run(self, stage: Assembler, until: float) -> None:
        """Steps of ten seconds, to the end of what there is to read at each."""
        while self.now < until:
            self.now = min(until, self.now + 10.0)
            stage.step(0.0)

    def trajectories(self) -> list[Trajectory]:
        return list(replay(self.log, TRAJECTORIES, Trajectory))

    def dead_feedback(self) -> list[Message]:
        return list(self.log.replay(dead_letters(FEEDBACK.name, GROUP)))

    def uncommitted(self) -> int:
        return self.log.lag(GROUP, [TRACES.name])[TRACES.name]


@pytest.fixture
def world() -> World:
    return World(InMemoryLog())


def numbers(trajectories: Iterable[Trajectory]) -> list[tuple[str, list[str]]]:
    """Session and its turns' numbers, of each trajectory, in order of sessions."""
    return sorted((t.session_id, [turn.trace_id.partition("-")[2] for turn in t.turns]) for t in trajectories)


def test_a_session_becomes_one_trajectory_under_its_key(
    world: World, make_trace: MakeTrace, make_feedback: MakeFeedback
) -> None:
    first, second = make_trace(n=0, at=0.0), make_trace(n=1, at=20.0, prompt=(1, 2, 3, 4, 5))
    stage = world.stage()
    world.put(first, make_feedback(at=5.0, trace_id=first.trace_id), second)
    world.run(stage, until=200.0)
    (trajectory,) = world.trajectories()
    assert [turn.trace_id for turn in trajectory.turns] == [first.trace_id, second.trace_id]
    assert (len(trajectory.chains), len(trajectory.feedback)) == (1, 1)
    (message,) = world.log.replay(TRAJECTORIES.name)
    assert message.key == session_key("s")


@pytest.mark.parametrize("last_step", ["poll", "close", "flush", "commit"])
def test_a_crash_after_any_step_neither_repeats_nor_tears_nor_loses(
    world: World, make_trace: MakeTrace, last_step: str
) -> None:
    stage = world.stage()
    world.put(make_trace("open", 0, at=60.0), make_trace("ended", 0, at=0.0), make_trace("ended", 1, at=10.0))
    world.now = 80.0
    stage.poll(0.0)
    world.now = 112.0
    steps = {"close": stage.close_ended, "flush": lambda: world.log.flush(1.0), "commit": stage.commit}
    for name, step in steps.items():
        if last_step == "poll":
            break
        step()
        if name == last_step:
            break
    assert len(world.trajectories()) == (0 if last_step == "poll" else 1)
    stage.close()

    world.put(make_trace("open", 1, at=110.0))
    world.run(world.stage(), until=400.0)
    assert numbers(world.trajectories()) == [("ended", ["0", "1"]), ("open", ["0", "1"])]
    assert world.uncommitted() == 0


def test_positions_do_not_pass_an_open_session(world: World, make_trace: MakeTrace) -> None:
    stage = world.stage()
    world.put(make_trace(at=0.0))
    world.run(stage, until=40.0)
    assert world.uncommitted() == 1
    world.run(stage, until=100.0)
    assert (world.uncommitted(), len(world.trajectories())) == (0, 1)


def test_turns_that_lie_side_by_side_after_an_outage_are_one_session(world: World, make_trace: MakeTrace) -> None:
    world.put(make_trace(n=0, at=0.0), *(make_trace(f"other {n}", 0, at=2.0) for n in range(6)))
    world.put(make_trace(n=1, at=5.0), *(make_trace(f"later {n}", 0, at=500.0) for n in range(6)))
    world.now = 600.0
    stage = world.stage(max_messages=1)
    for _ in range(20):
        world.now += SETTLED_S
        stage.step(0.0)
    assert ("s", ["0", "1"]) in numbers(world.trajectories())
    assert len(world.trajectories()) == 13


def test_turns_behind_newer_ones_are_one_session(world: World, make_trace: MakeTrace) -> None:
    """One engine's spool was drained before another's."""
    world.put(*(make_trace(f"other {n}", 0, at=500.0) for n in range(6)))
    world.put(make_trace(n=0, at=0.0), make_trace(n=1, at=5.0))
    world.now = 600.0
    stage = world.stage(max_messages=1)
    for _ in range(60):
        world.now += 1.0
        stage.step(0.0)
    assert ("s", ["0", "1"]) in numbers(world.trajectories())


def test_unread_feedback_holds_its_session_open(
    world: World, make_trace: MakeTrace, make_feedback: MakeFeedback
) -> None:
    trace = make_trace(at=0.0)
    world.put(make_feedback(0, at=1.0, session_id="s"), trace, make_feedback(1, at=2.0, trace_id=trace.trace_id))
    world.now = 600.0
    stage = world.stage(max_messages=1)
    for _ in range(4):
        world.now += SETTLED_S
        stage.step(0.0)
    assert [len(trajectory.feedback) for trajectory in world.trajectories()] == [2]


def test_sessions_close_by_stream_time_while_there_is_more_to_read(world: World, make_trace: MakeTrace) -> None:
    stage = world.stage(max_messages=2)
    world.put(*(make_trace("s", n, at=n * 100.0) for n in range(6)))
    world.now = 1000.0
    stage.step(0.0)
    assert world.trajectories() == []
    world.now += SETTLED_S
    stage.step(0.0)
    assert numbers(world.trajectories()) == [("s", ["0"]), ("s", ["1"])]


def test_a_spool_that_waited_for_the_broker_too_still_joins(world: World, make_trace: MakeTrace) -> None:
    world.put(make_trace(n=0, at=0.0))
    world.now = 1000.0
    stage = world.stage()
    stage.step(0.0)
    world.now += SETTLED_S / 2
    world.put(make_trace(n=1, at=30.0))
    world.run(stage, until=1100.0)
    assert numbers(world.trajectories()) == [("s", ["0", "1"])]


def test_a_broker_restart_neither_repeats_nor_tears_nor_loses(world: World, make_trace: MakeTrace) -> None:
    stage = world.stage()
    world.put(make_trace("early", 0, at=0.0))
    world.run(stage, until=50.0)
    world.put(make_trace("s", 0, at=40.0))
    world.run(stage, until=80.0)
    world.log.restart()
    world.put(make_trace("s", 1, at=85.0))
    world.run(stage, until=100.0)
    world.log.restart()
    world.run(stage, until=300.0)
    assert numbers(world.trajectories()) == [("early", ["0"]), ("s", ["0", "1"])]
    assert world.uncommitted() == 0


def test_nothing_is_committed_that_was_not_flushed(make_trace: MakeTrace) -> None:
    class Unreachable(InMemoryLog):
        def flush(self, timeout_s: float) -> None:
            raise LogError("flush: nobody acknowledged")

    world = World(Unreachable())
    stage = world.stage()
    world.put(make_trace())
    world.now = 500.0
    stage.poll(0.0)
    world.now += SETTLED_S
    with pytest.raises(LogError):
        stage.step(0.0)
    assert (len(world.trajectories()), world.uncommitted()) == (1, 1)


def test_a_trace_delivered_again_after_its_session_closed_is_not_repeated(world: World, make_trace: MakeTrace) -> None:
    stage = world.stage()
    world.put(make_trace())
    world.run(stage, until=100.0)
    world.put(make_trace())
    world.run(stage, until=300.0)
    stage.close()
    world.put(make_trace())
    world.run(world.stage(), until=600.0)
    assert len(world.trajectories()) == 1


def test_a_session_that_comes_back_gets_a_second_trajectory(world: World, make_trace: MakeTrace) -> None:
    stage = world.stage()
    world.put(make_trace(n=0, at=0.0))
    world.run(stage, until=100.0)
    world.put(make_trace(n=1, at=100.0))
    world.run(stage, until=300.0)
    assert numbers(world.trajectories()) == [("s", ["0"]), ("s", ["1"])]
    assert len({trajectory.trajectory_id for trajectory in world.trajectories()}) == 2


def test_late_feedback_changes_nothing_and_is_noted(
    world: World, make_trace: MakeTrace, make_feedback: MakeFeedback
) -> None:
    stage = world.stage()
    world.put(make_trace())
    world.run(stage, until=100.0)
    world.put(late := make_feedback(at=100.0, session_id="s"))
    world.run(stage, until=200.0)
    assert len(stage.table) == 0
    assert world.log.lag(GROUP, [FEEDBACK.name]) == {FEEDBACK.name: 0}
    assert [len(trajectory.feedback) for trajectory in world.trajectories()] == [0]
    (noted,) = world.log.replay(late_letters(FEEDBACK.name, GROUP))
    assert (noted.key, noted.value) == (session_key("s"), codec.encode(late)[0])
    assert list(world.log.replay(dead_letters(FEEDBACK.name, GROUP))) == []


def test_feedback_about_nothing_known_is_dead_lettered_as_it_came_once_its_horizon_passed(
    world: World, make_feedback: MakeFeedback
) -> None:
    stage, odd = world.stage(), b' {"feedback_id":"f0","session_id":"never","tenant":"t","value":1,"at":5}'
    world.log.append(FEEDBACK.name, session_key("never"), odd, {"schema": "feedback/1", "traceparent": "00-aa-bb-01"})
    world.run(stage, until=3600.0)
    assert world.dead_feedback() == []
    world.run(stage, until=3620.0)
    (dead,) = world.dead_feedback()
    assert (dead.key, dead.value, dead.headers["traceparent"]) == (session_key("never"), odd, "00-aa-bb-01")
    told = dead.headers["onstream.errors.message"]
    assert told == "feedback f0: nothing is known of session 'never': it did not come within 3600 s"
    assert world.log.lag(GROUP, [FEEDBACK.name]) == {FEEDBACK.name: 0}


def test_feedback_by_an_id_that_is_no_traces_is_dead_lettered_with_that_id(
    world: World, make_feedback: MakeFeedback
) -> None:
    world.put(make_feedback(trace_id="resp_abc"))
    world.run(world.stage(), until=10.0)
    (dead,) = world.dead_feedback()
    assert "nothing is known of trace 'resp_abc'" in dead.headers["onstream.errors.message"]


def test_feedback_is_not_committed_before_its_dead_letter_is_durable(make_feedback: MakeFeedback) -> None:
    order: list[str] = []

    class Watched(InMemoryLog):
        def append(self, topic: str, key: str, value: bytes, headers: Headers) -> None:
            order.append(topic)
            super().append(topic, key, value, headers)

        def flush(self, timeout_s: float) -> None:
            order.append(f"flush, {self.lag(GROUP, [FEEDBACK.name])[FEEDBACK.name]} uncommitted")

    world = World(Watched())
    world.put(make_feedback(trace_id=f"{session_key('never')}-1", at=-4000.0))
    stage = world.stage()
    stage.poll(0.0)
    world.now = SETTLED_S
    stage.step(0.0)
    assert order[1:] == [dead_letters(FEEDBACK.name, GROUP), "flush, 1 uncommitted"]
    assert world.log.lag(GROUP, [FEEDBACK.name]) == {FEEDBACK.name: 0}


def test_feedback_dead_lettered_again_after_a_crash_counts_once(world: World, make_feedback: MakeFeedback) -> None:
    world.put(make_feedback(trace_id="resp_abc"))
    for _ in range(2):
        crashed = world.stage()
        crashed.poll(0.0)
        crashed.close()
    assert len(world.dead_feedback()) == 2
    assert list(letters.read(world.log, dead_letters(FEEDBACK.name, GROUP)).values()) == [Failure.UNCLAIMED]


def test_an_unreadable_message_goes_to_the_dead_letters_and_blocks_nothing(world: World, make_trace: MakeTrace) -> None:
    stage = world.stage()
    world.log.append(TRACES.name, session_key("s"), b"not a trace", {"schema": "trace/1"})
    world.put(make_trace())
    world.run(stage, until=200.0)
    assert [letter.value for letter in world.log.replay(dead_letters(TRACES.name, GROUP))] == [b"not a trace"]
    assert (len(world.trajectories()), world.uncommitted()) == (1, 0)


def test_a_session_too_large_for_the_log_has_a_fate_and_blocks_nothing(make_trace: MakeTrace) -> None:
    class Narrow(InMemoryLog):
        def append(self, topic: str, key: str, value: bytes, headers: Headers) -> None:
            if topic == TRAJECTORIES.name and len(value) > 3000:
                raise RecordError(f"{topic}: too large")
            super().append(topic, key, value, headers)

    world = World(Narrow())
    stage = world.stage()
    large = [make_trace("large", n, at=0.0) for n in range(9)]
    world.put(*large, make_trace("small"))
    world.run(stage, until=200.0)
    assert numbers(world.trajectories()) == [("small", ["0"])]
    fates = list(replay(world.log, FATES, Fate))
    assert {fate.trace_id for fate in fates} == {trace.trace_id for trace in large}
    assert {(fate.kind, fate.reason) for fate in fates} == {(FateKind.DEAD_LETTERED, "trajectories: too large")}
    assert world.uncommitted() == 0


def test_partitions_that_move_take_their_sessions_along(world: World, make_trace: MakeTrace) -> None:
    """Two members and four partitions fall evenly on both topics, so that a key's traces and feedback stay together."""
    world.log = InMemoryLog()
    world.log.create(TopicSpec(topic.name, 4, None) for topic in ALL)
    first = world.stage()
    world.put(*(make_trace(f"s{n}", 0, at=0.0) for n in range(8)))
    world.run(first, until=20.0)
    second = world.stage()
    world.put(*(make_trace(f"s{n}", 1, at=30.0) for n in range(8)))
    while world.now < 300.0:
        world.now += 10.0
        first.step(0.0)
        second.step(0.0)
    turns = Counter(turn.trace_id for trajectory in world.trajectories() for turn in trajectory.turns)
    assert set(turns.values()) == {1}
    assert numbers(world.trajectories()) == [(f"s{n}", ["0", "1"]) for n in range(8)]


def test_partitions_of_a_crashed_process_are_taken_over_without_repeating(world: World, make_trace: MakeTrace) -> None:
    world.log = InMemoryLog()
    world.log.create(TopicSpec(topic.name, 4, None) for topic in ALL)
    first, second = world.stage(), world.stage()
    world.put(*(make_trace(f"s{n}", 0, at=0.0) for n in range(8)))
    first.step(0.0)
    second.poll(0.0)
    world.now = 100.0
    first.step(0.0)
    second.poll(0.0)
    second.close_ended()
    second.close()
    assert len(world.trajectories()) == 8
    world.run(first, until=300.0)
    assert (len(world.trajectories()), world.uncommitted()) == (8, 0)
