"""The ingest stage on the in-memory log: nothing repeated, nothing torn, nothing lost."""

from collections import Counter
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

import pytest

from infra.config import Config, IngestConfig, LogConfig, ModelConfig
from infra.errors import LogError, RecordError
from ingest.log import letters
from ingest.log.letters import Failure
from ingest.log.memory import InMemoryLog
from ingest.log.protocol import Message, TopicSpec
from ingest.log.reader import replay, send
from ingest.log.topics import ALL, FATES, FEEDBACK, TRACES, TRAJECTORIES, dead_letters, late_letters
from ingest.records import codec, prefixes
from ingest.records.events import (
    SESSION_END,
    CloseReason,
    Fate,
    FateKind,
    Feedback,
    Headers,
    Trace,
    Trajectory,
    key_of,
    session_key,
)
from ingest.records.prefixes import Outline
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

    def __init__(self, log: InMemoryLog, folder: Path) -> None:
        self.log, self.now = log, 0.0
        self.config = CONFIG.model_copy(update={"log": CONFIG.log.model_copy(update={"index_dir": str(folder)})})
        log.create(TopicSpec(topic.name, PARTITIONS, None) for topic in ALL)

    def stage(self, max_messages: int = 500) -> Assembler:
        return Assembler(self.log, self.config, clock=lambda: self.now, max_messages=max_messages)

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
def world(tmp_path: Path) -> World:
    return World(InMemoryLog(), tmp_path)


STEPS = ("poll", "close", "flush", "note", "commit")


def run_to(last_step: str, stage: Assembler, world: World) -> None:
    """The stage's commit order after its poll, up to a step."""
    steps = (stage.close_ended, lambda: world.log.flush(1.0), stage.note, stage.commit)
    for step in steps[: STEPS.index(last_step)]:
        step()


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


@pytest.mark.parametrize("last_step", STEPS)
def test_a_crash_after_any_step_neither_repeats_nor_tears_nor_loses(
    world: World, make_trace: MakeTrace, last_step: str
) -> None:
    stage = world.stage()
    world.put(make_trace("open", 0, at=60.0), make_trace("ended", 0, at=0.0), make_trace("ended", 1, at=10.0))
    world.now = 80.0
    stage.poll(0.0)
    world.now = 112.0
    steps = {
        "close": stage.close_ended,
        "flush": lambda: world.log.flush(1.0),
        "note": stage.note,
        "commit": stage.commit,
    }
    for name in list(steps)[: ["poll", *steps].index(last_step)]:
        steps[name]()
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


def test_nothing_is_committed_that_was_not_flushed(tmp_path: Path, make_trace: MakeTrace) -> None:
    class Unreachable(InMemoryLog):
        def flush(self, timeout_s: float) -> None:
            raise LogError("flush: nobody acknowledged")

    world = World(Unreachable(), tmp_path)
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


def test_late_feedback_issues_the_trajectory_again_with_a_higher_revision(
    world: World, make_trace: MakeTrace, make_feedback: MakeFeedback
) -> None:
    stage = world.stage()
    world.put(trace := make_trace(), make_feedback(0, at=5.0, session_id="s"))
    world.run(stage, until=100.0)
    world.put(
        make_feedback(1, at=100.0, session_id="s"), make_feedback(2, at=99.0, value=-1.0, trace_id=trace.trace_id)
    )
    world.run(stage, until=150.0)
    world.put(make_feedback(3, at=150.0, trace_id=trace.trace_id))
    stage.close()
    world.run(world.stage(), until=300.0)
    made = world.trajectories()
    assert [one.revision for one in made] == [1, 2, 3]
    assert [[given.feedback_id for given in one.feedback] for one in made] == [
        ["f0"], ["f0", "f2", "f1"], ["f0", "f2", "f1", "f3"],
    ]  # fmt: skip
    assert len({one.trajectory_id for one in made}) == 3
    assert all((one.turns, one.chains) == (made[0].turns, made[0].chains) for one in made)
    assert world.log.lag(GROUP, [FEEDBACK.name]) == {FEEDBACK.name: 0}


def test_late_feedback_amends_once_however_often_it_is_delivered(
    world: World, make_trace: MakeTrace, make_feedback: MakeFeedback
) -> None:
    stage = world.stage()
    world.put(make_trace())
    world.run(stage, until=100.0)
    late = make_feedback(at=100.0, session_id="s")
    world.put(late, late)
    world.run(stage, until=200.0)
    world.put(late)
    stage.close()
    world.run(world.stage(), until=300.0)
    assert [len(one.feedback) for one in world.trajectories()] == [0, 1]


@pytest.mark.parametrize("last_step", STEPS)
def test_a_crash_while_a_trajectory_is_amended_neither_repeats_nor_loses(
    world: World, make_trace: MakeTrace, make_feedback: MakeFeedback, last_step: str
) -> None:
    stage = world.stage()
    world.put(make_trace())
    world.run(stage, until=100.0)
    world.put(make_feedback(at=100.0, session_id="s"))
    stage.poll(0.0)
    world.now = 140.0
    steps = {
        "close": stage.close_ended,
        "flush": lambda: world.log.flush(1.0),
        "note": stage.note,
        "commit": stage.commit,
    }
    for name in list(steps)[: ["poll", *steps].index(last_step)]:
        steps[name]()
    stage.close()
    world.run(world.stage(), until=300.0)
    assert [(one.revision, len(one.feedback)) for one in world.trajectories()] == [(1, 0), (2, 1)]


def test_late_feedback_waits_for_a_turn_that_is_still_on_its_way(
    world: World, make_trace: MakeTrace, make_feedback: MakeFeedback
) -> None:
    stage = world.stage()
    world.put(make_trace(n=0))
    world.run(stage, until=100.0)
    world.put(make_feedback(at=105.0, session_id="s"))
    world.run(stage, until=110.0)
    world.put(make_trace(n=1, at=101.0))
    world.run(stage, until=300.0)
    assert [(one.revision, len(one.turns), len(one.feedback)) for one in world.trajectories()] == [(1, 1, 0), (1, 1, 1)]


def test_late_feedback_whose_trajectory_is_gone_is_noted(
    world: World, make_trace: MakeTrace, make_feedback: MakeFeedback, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = world.stage()
    world.put(make_trace())
    world.run(stage, until=100.0)
    world.put(late := make_feedback(at=100.0, session_id="s"))
    monkeypatch.setattr(world.log, "fetch", lambda *_: None)
    world.run(stage, until=200.0)
    assert len(world.trajectories()) == 1
    (noted,) = world.log.replay(late_letters(FEEDBACK.name, GROUP))
    assert (noted.key, noted.value) == (session_key("s"), codec.encode(late)[0])
    assert list(world.log.replay(dead_letters(FEEDBACK.name, GROUP))) == []
    assert world.log.lag(GROUP, [FEEDBACK.name]) == {FEEDBACK.name: 0}


def test_a_client_ends_its_session(world: World, make_trace: MakeTrace, make_feedback: MakeFeedback) -> None:
    stage = world.stage()
    world.put(make_trace(n=0, at=0.0), make_feedback(0, at=5.0, session_id="s", name=SESSION_END))
    world.run(stage, until=40.0)
    (first,) = world.trajectories()
    assert (first.closed, [one.name for one in first.feedback]) == (CloseReason.ENDED, [SESSION_END])
    world.put(make_trace(n=1, at=40.0), make_feedback(1, at=45.0, session_id="s", name=SESSION_END))
    world.run(stage, until=90.0)
    assert [(one.closed, len(one.turns)) for one in world.trajectories()] == [(CloseReason.ENDED, 1)] * 2


def test_an_end_that_comes_after_the_end_is_noted_and_amends_nothing(
    world: World, make_trace: MakeTrace, make_feedback: MakeFeedback
) -> None:
    stage = world.stage()
    world.put(make_trace())
    world.run(stage, until=100.0)
    world.put(make_feedback(at=100.0, session_id="s", name=SESSION_END))
    world.run(stage, until=200.0)
    assert (len(world.trajectories()), len(list(world.log.replay(late_letters(FEEDBACK.name, GROUP))))) == (1, 1)


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


def test_feedback_is_not_committed_before_its_dead_letter_is_durable(
    tmp_path: Path, make_feedback: MakeFeedback
) -> None:
    order: list[str] = []

    class Watched(InMemoryLog):
        def append(self, topic: str, key: str, value: bytes, headers: Headers) -> Message:
            order.append(topic)
            return super().append(topic, key, value, headers)

        def flush(self, timeout_s: float) -> None:
            order.append(f"flush, {self.lag(GROUP, [FEEDBACK.name])[FEEDBACK.name]} uncommitted")

    world = World(Watched(), tmp_path)
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


class Narrow(InMemoryLog):
    def append(self, topic: str, key: str, value: bytes, headers: Headers) -> Message:
        if topic == TRAJECTORIES.name and len(codec.plain(value)) > 4000:
            raise RecordError(f"{topic}: too large")
        return super().append(topic, key, value, headers)


def test_a_session_too_large_for_the_log_has_a_fate_and_blocks_nothing(tmp_path: Path, make_trace: MakeTrace) -> None:
    world = World(Narrow(), tmp_path)
    stage = world.stage()
    large = [make_trace("large", n, at=0.0) for n in range(9)]
    world.put(*large, make_trace("small"))
    world.run(stage, until=200.0)
    assert numbers(world.trajectories()) == [("small", ["0"])]
    fates = list(replay(world.log, FATES, Fate))
    assert {name for fate in fates for name in fate.trace_ids} == {trace.trace_id for trace in large}
    assert {(fate.kind, fate.reason) for fate in fates} == {(FateKind.DEAD_LETTERED, "trajectories: too large")}
    assert world.uncommitted() == 0


def test_late_feedback_that_makes_its_session_too_large_for_the_log_is_noted_and_tells_no_fate(
    tmp_path: Path, make_trace: MakeTrace, make_feedback: MakeFeedback
) -> None:
    world = World(Narrow(), tmp_path)
    stage = world.stage()
    world.put(make_trace())
    world.run(stage, until=100.0)
    world.put(make_feedback(at=100.0, session_id="s", comment="x" * 4000))
    world.run(stage, until=200.0)
    assert [one.revision for one in world.trajectories()] == [1]
    assert list(replay(world.log, FATES, Fate)) == []
    assert len(list(world.log.replay(late_letters(FEEDBACK.name, GROUP)))) == 1


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


def cut(trace: Trace, parent: Trace, stored: Trace | None = None) -> Trace:
    """`trace` as capture stores it after `parent`, which was stored as `stored`."""
    outline, elder = Outline.of(trace), Outline.of(parent)
    digest = prefixes.digest(codec.encode(stored or parent)[0])
    return prefixes.cut(trace, outline, elder, digest, elder.num_tokens_in(outline.prompt))


@pytest.fixture
def line(make_trace: MakeTrace) -> tuple[list[Trace], list[Trace]]:
    """Three turns that go on from one another, whole, and as capture stores them."""
    said: list[dict[str, str]] = []
    whole: list[Trace] = []
    for n in range(3):
        said = [*said, {"role": "user", "content": f"question {n}"}]
        prompt = (*(whole[-1].prompt_token_ids + whole[-1].token_ids if whole else (1,)), 10 + n)
        whole.append(make_trace(n=n, at=5.0 * n, prompt=prompt, reply=(20 + n, 30 + n), messages=said))
        said = [*said, {"role": "assistant", "content": f"answer {n}"}]
    stored = [whole[0]]
    for before, trace in pairwise(whole):
        stored.append(cut(trace, before, stored[-1]))
    return whole, stored


def test_turns_stored_by_prefix_make_the_trajectory_that_whole_ones_make(
    world: World, line: tuple[list[Trace], list[Trace]], tmp_path: Path
) -> None:
    made = []
    for number, traces in enumerate(line):
        world = World(InMemoryLog(), tmp_path / str(number))
        world.put(*traces)
        world.run(world.stage(), until=200.0)
        made += world.trajectories()
    assert made[0].chains == made[1].chains and made[0].turns == made[1].turns
    assert len(made[0].chains) == 1 and len(made[0].turns) == 3


def test_a_prefix_that_leans_on_a_closed_session_is_read_again_from_the_log(
    world: World, line: tuple[list[Trace], list[Trace]]
) -> None:
    whole, stored = line
    stage = world.stage()
    world.put(*stored[:2])
    world.run(stage, until=100.0)
    late = {"started_at": 100.0, "finished_at": 101.0}
    world.put(stored[2].model_copy(update=late))
    stage.close()
    world.run(world.stage(), until=300.0)
    _, trajectory = world.trajectories()
    (chain,) = trajectory.chains
    assert chain.token_ids == whole[2].prompt_token_ids + whole[2].token_ids
    assert [message.text for message in trajectory.turns[0].messages][-1] == "question 2"
    assert len(trajectory.turns[0].messages) == 5


@pytest.mark.parametrize("fault", ["missing", "another"])
def test_a_trace_whose_parent_is_not_on_the_log_is_dead_lettered_and_the_parent_named(
    world: World, line: tuple[list[Trace], list[Trace]], fault: str
) -> None:
    whole, stored = line
    stage = world.stage()
    if fault == "another":
        world.put(stored[0].model_copy(update={"reply_text": "not what it was"}))
    world.put(stored[1], stored[2])
    world.run(stage, until=200.0)
    buried = list(world.log.replay(dead_letters(TRACES.name, GROUP)))
    assert [letter.value for letter in buried] == [codec.encode(trace)[0] for trace in stored[1:]]
    told = buried[0].headers["onstream.errors.message"]
    assert whole[1].trace_id in told and f"leans on trace {whole[0].trace_id}, which is not on the log" in told
    fates = list(replay(world.log, FATES, Fate))
    assert [name for fate in fates for name in fate.trace_ids] == [whole[1].trace_id, whole[2].trace_id]
    assert {fate.kind for fate in fates} == {FateKind.DEAD_LETTERED}
    assert world.uncommitted() == 0
