"""The table of open sessions."""

from collections.abc import Callable

import pytest

from infra.config import IngestConfig
from ingest.log.protocol import Message
from ingest.records import codec
from ingest.records.events import Arm, Assignment, CloseReason, Feedback, Group, Trace, session_key
from ingest.sessions.table import SessionTable, Taken

MakeTrace = Callable[..., Trace]
MakeFeedback = Callable[..., Feedback]
MakeMessage = Callable[..., Message]

CONFIG = IngestConfig(inactivity_s=60.0, horizon_s=300.0, held_out_share=0.0)


class Table:
    """A table that takes records as if each were read the moment it came about, unless told when."""

    def __init__(self, make_message: MakeMessage, config: IngestConfig = CONFIG) -> None:
        self.table = SessionTable(config)
        self._message = make_message
        self._offset = -1

    def add(self, record: Trace | Feedback, now: float | None = None) -> Taken:
        self._offset += 1
        if isinstance(record, Trace):
            message = self._message(record, self._offset)
            return self.table.add_trace(record, message, record.finished_at if now is None else now)
        message = self._message(record, self._offset, topic="feedback")
        return self.table.add_feedback(record, message, record.at if now is None else now)


@pytest.fixture
def table(make_message: MakeMessage) -> Table:
    return Table(make_message)


def test_a_session_closes_once_it_was_silent_long_enough(table: Table, make_trace: MakeTrace) -> None:
    table.add(make_trace(at=9.0))
    assert table.table.due(69.9) == []
    (closed,) = table.table.due(70.0)
    assert closed.trajectory.closed is CloseReason.INACTIVE
    assert (closed.trajectory.opened_at, closed.trajectory.closed_at) == (9.0, 70.0)
    assert closed.key == session_key("s")
    assert table.table.due(1000.0) == []


def test_another_turn_keeps_a_session_open(table: Table, make_trace: MakeTrace) -> None:
    table.add(make_trace(n=0, at=0.0))
    table.add(make_trace(n=1, at=50.0))
    assert table.table.due(110.0) == []
    assert [len(closed.trajectory.turns) for closed in table.table.due(111.0)] == [2]


def test_feedback_keeps_a_session_open(table: Table, make_trace: MakeTrace, make_feedback: MakeFeedback) -> None:
    table.add(make_trace(at=0.0))
    table.add(make_feedback(at=50.0, session_id="s"))
    assert table.table.due(109.0) == []
    assert len(table.table.due(110.0)) == 1


def test_a_session_that_never_falls_silent_closes_at_its_horizon(table: Table, make_trace: MakeTrace) -> None:
    for n in range(7):
        table.add(make_trace(n=n, at=n * 45.0))
    table.add(make_trace(n=7, at=302.0))
    (closed,) = table.table.due(303.0)
    assert (closed.trajectory.closed, len(closed.trajectory.turns)) == (CloseReason.HORIZON, 7)


def test_a_trace_after_the_end_begins_the_next_session_even_when_read_late(table: Table, make_trace: MakeTrace) -> None:
    table.add(make_trace(n=0, at=0.0), now=500.0)
    table.add(make_trace(n=1, at=100.0), now=500.0)
    first, second = table.table.due(530.0)
    assert [turn.trace_id[-1] for turn in first.trajectory.turns] == ["0"]
    assert [turn.trace_id[-1] for turn in second.trajectory.turns] == ["1"]


def test_nothing_closes_where_records_are_unread(table: Table, make_trace: MakeTrace) -> None:
    table.add(make_trace(at=0.0))
    assert table.table.due(500.0, {0: 60.9}) == []
    assert len(table.table.due(500.0, {0: 61.0})) == 1


def test_a_session_is_not_closed_the_moment_it_arrives(table: Table, make_trace: MakeTrace) -> None:
    table.add(make_trace(n=0, at=0.0), now=500.0)
    assert table.table.due(529.9) == []
    table.add(make_trace(n=1, at=5.0), now=529.9)
    assert [len(closed.trajectory.turns) for closed in table.table.due(559.9)] == [2]


def test_a_clock_that_runs_ahead_does_not_hold_a_session_open(table: Table, make_trace: MakeTrace) -> None:
    table.add(make_trace(at=10_000.0), now=1.0)
    (closed,) = table.table.due(61.0)
    assert (closed.trajectory.opened_at, closed.trajectory.closed_at) == (1.0, 61.0)


def test_a_clock_that_jumps_back_closes_nothing_early(table: Table, make_trace: MakeTrace) -> None:
    table.add(make_trace(at=100.0))
    assert table.table.due(3.0) == []


def test_a_trace_delivered_twice_is_kept_once(table: Table, make_trace: MakeTrace) -> None:
    assert table.add(make_trace()) is Taken.KEPT
    assert table.add(make_trace()) is Taken.DUPLICATE
    assert [len(closed.trajectory.turns) for closed in table.table.due(100.0)] == [1]
    assert table.add(make_trace(), now=101.0) is Taken.DUPLICATE
    assert table.table.due(1000.0) == []


def test_feedback_delivered_twice_is_kept_once(
    table: Table, make_trace: MakeTrace, make_feedback: MakeFeedback
) -> None:
    table.add(make_trace())
    assert table.add(make_feedback(session_id="s")) is Taken.KEPT
    assert table.add(make_feedback(session_id="s")) is Taken.DUPLICATE
    (closed,) = table.table.due(100.0)
    assert len(closed.trajectory.feedback) == 1
    assert table.add(make_feedback(session_id="s")) is Taken.DUPLICATE


def test_feedback_that_names_only_a_trace_finds_its_session(
    table: Table, make_trace: MakeTrace, make_feedback: MakeFeedback
) -> None:
    trace = make_trace()
    table.add(trace)
    table.add(make_feedback(at=2.0, trace_id=trace.trace_id))
    assert [len(closed.trajectory.feedback) for closed in table.table.due(100.0)] == [1]


def test_feedback_that_comes_first_waits_for_its_session(
    table: Table, make_trace: MakeTrace, make_feedback: MakeFeedback
) -> None:
    trace = make_trace(at=100.0)
    table.add(make_feedback(at=5.0, trace_id=trace.trace_id))
    assert table.table.due(99.0) == []
    table.add(trace)
    (closed,) = table.table.due(200.0)
    assert (len(closed.trajectory.feedback), closed.trajectory.opened_at) == (1, 100.0)


def test_feedback_does_not_wait_for_ever(table: Table, make_feedback: MakeFeedback) -> None:
    table.add(make_feedback(at=5.0, session_id="never"))
    assert (table.table.unclaimed(304.0), len(table.table)) == ([], 1)
    (unclaimed,) = table.table.unclaimed(305.0)
    assert unclaimed.feedback.feedback_id == "f0"
    assert codec.decode(unclaimed.message.value, unclaimed.message.headers, Feedback) == unclaimed.feedback
    assert len(table.table) == 0
    assert table.table.held() == {}


def test_messages_of_feedback_are_kept_only_while_it_waits(
    table: Table, make_trace: MakeTrace, make_feedback: MakeFeedback
) -> None:
    table.add(make_feedback(0, at=0.0, session_id="s"))
    table.add(make_trace(at=1.0))
    table.add(make_feedback(1, at=2.0, session_id="s"))
    (session,) = table.table._open[session_key("s")]
    assert (len(session.feedback), session.messages) == (2, {})


def test_feedback_that_names_what_can_be_no_trace_waits_for_nothing(table: Table, make_feedback: MakeFeedback) -> None:
    assert table.add(make_feedback(0, trace_id="resp_abc")) is Taken.UNKNOWN
    assert (len(table.table), table.table.held()) == (0, {})
    assert table.add(make_feedback(1, trace_id="resp_abc", session_id="s")) is Taken.KEPT


@pytest.mark.parametrize("about", ["session", "trace"])
def test_late_feedback_opens_no_session(
    table: Table, make_trace: MakeTrace, make_feedback: MakeFeedback, about: str
) -> None:
    trace = make_trace()
    table.add(trace)
    table.table.due(100.0)
    names = {"session_id": "s"} if about == "session" else {"trace_id": trace.trace_id}
    assert table.add(make_feedback(at=101.0, **names)) is Taken.LATE
    assert len(table.table) == 0


def test_feedback_about_a_trace_on_its_way_is_not_late(
    table: Table, make_trace: MakeTrace, make_feedback: MakeFeedback
) -> None:
    table.add(make_trace(n=0))
    table.table.due(100.0)
    coming = make_trace(n=1, at=120.0)
    assert table.add(make_feedback(at=122.0, trace_id=coming.trace_id)) is Taken.KEPT
    table.add(coming, now=123.0)
    assert [len(closed.trajectory.feedback) for closed in table.table.due(200.0)] == [1]


def test_feedback_about_a_session_that_came_back_is_about_its_open_part(
    table: Table, make_trace: MakeTrace, make_feedback: MakeFeedback
) -> None:
    table.add(make_trace(n=0))
    table.table.due(100.0)
    table.add(make_trace(n=1, at=120.0))
    assert table.add(make_feedback(at=125.0, session_id="s")) is Taken.KEPT
    assert [len(closed.trajectory.feedback) for closed in table.table.due(200.0)] == [1]


def test_the_assignment_is_the_one_all_traces_share(table: Table, make_trace: MakeTrace) -> None:
    candidate = Assignment(arm=Arm.CANDIDATE, trial=4, propensity=0.1)
    table.add(make_trace("same", 0, assignment=candidate))
    table.add(make_trace("same", 1, assignment=candidate))
    table.add(make_trace("mixed", 0, assignment=candidate))
    table.add(make_trace("mixed", 1))
    same, mixed = table.table.due(100.0)
    assert (same.trajectory.assignment, mixed.trajectory.assignment) == (candidate, None)


def test_a_session_that_outlasts_its_block_keeps_the_one_that_it_began_in(table: Table, make_trace: MakeTrace) -> None:
    blocks = [
        Assignment(arm=arm, trial=4, propensity=0.5, block=n) for n, arm in enumerate((Arm.STABLE, Arm.CANDIDATE))
    ]
    for n, block in enumerate(blocks):
        table.add(make_trace("in-blocks", n, assignment=block))
    table.add(make_trace("before-them", 0))
    table.add(make_trace("before-them", 1, assignment=blocks[1]))
    in_blocks, before_them = (closed.trajectory.assignment for closed in table.table.due(100.0))
    assert (in_blocks, before_them) == (blocks[0], Assignment())


def test_the_same_records_give_the_same_id(make_message: MakeMessage, make_trace: MakeTrace) -> None:
    ids = set()
    for now in (100.0, 120.0):
        table = Table(make_message)
        table.add(make_trace(n=0), now=50.0)
        table.add(make_trace(n=1), now=50.0)
        ids.add(table.table.due(now)[0].trajectory.trajectory_id)
    assert len(ids) == 1


def test_the_watermark_is_the_first_record_of_any_open_session(
    table: Table, make_trace: MakeTrace, make_feedback: MakeFeedback
) -> None:
    table.add(make_trace("a", at=0.0))  # offset 0
    table.add(make_trace("b", at=30.0))  # 1
    table.add(make_feedback(at=31.0, session_id="b"))  # 2, of another topic
    assert table.table.held() == {("traces", 0): 0, ("feedback", 0): 2}
    table.table.due(61.0)
    assert table.table.held() == {("traces", 0): 1, ("feedback", 0): 2}
    table.table.due(100.0)
    assert table.table.held() == {}


def test_what_was_handed_out_before_is_known_from_elsewhere(make_message: MakeMessage, make_trace: MakeTrace) -> None:
    before = {make_trace().trace_id: 100.0}
    table = Table(make_message)
    table.table = SessionTable(CONFIG, before.get)
    assert table.add(make_trace(), now=1100.0) is Taken.DUPLICATE
    assert table.add(make_trace(n=1), now=1100.0) is Taken.KEPT


def test_sessions_of_partitions_that_moved_are_dropped(table: Table, make_trace: MakeTrace) -> None:
    table.add(make_trace())
    assert table.table.drop({("traces", 0)}) == 0
    assert table.table.drop({("traces", 1)}) == 1
    assert len(table.table) == 0


def test_a_replay_is_handed_out_the_moment_it_arrives(table: Table, make_trace: MakeTrace) -> None:
    asked_again = Assignment(arm=Arm.CANDIDATE, trial=3, propensity=0.5, replay_of="k-0")
    table.add(make_trace("replay", at=9.0, assignment=asked_again), now=500.0)
    table.add(make_trace("s", at=9.0), now=500.0)
    (closed,) = table.table.due(500.0)
    assert (closed.trajectory.session_id, closed.trajectory.closed) == ("replay", CloseReason.ENDED)
    assert closed.trajectory.held_out and closed.trajectory.assignment == asked_again


OF_A_GROUP = Assignment(replay_of="k-0", group=Group(size=3, propensity=0.1))


def test_a_group_of_replays_is_one_session_handed_out_with_its_last(table: Table, make_trace: MakeTrace) -> None:
    for at in (9.0, 29.0, 49.0):
        assert table.table.due(at) == []
        table.add(make_trace("replay", n=int(at), at=at, assignment=OF_A_GROUP))
    assert table.table.may_close(50.0)
    (closed,) = table.table.due(50.0)
    assert len(closed.trajectory.turns) == 3 and closed.trajectory.assignment == OF_A_GROUP
    assert (closed.trajectory.closed, closed.trajectory.held_out) == (CloseReason.ENDED, False)


def test_a_group_that_was_left_half_asked_closes_like_a_session(table: Table, make_trace: MakeTrace) -> None:
    table.add(make_trace("replay", n=0, at=9.0, assignment=OF_A_GROUP))
    table.add(make_trace("replay", n=1, at=10.0, assignment=OF_A_GROUP))
    assert table.table.due(70.0) == []
    (closed,) = table.table.due(71.0)
    assert (len(closed.trajectory.turns), closed.trajectory.closed) == (2, CloseReason.INACTIVE)


def test_an_answer_of_a_group_that_comes_twice_makes_it_no_larger(table: Table, make_trace: MakeTrace) -> None:
    for n in (0, 1, 1, 1):
        table.add(make_trace("replay", n=n, at=9.0 + n, assignment=OF_A_GROUP))
    assert table.table.due(20.0) == []
