"""The audit: one outcome per trace, and what does not add up is said."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from closing import trajectory

from infra.config import Config, IngestConfig, ModelConfig
from ingest.audit import command as audit
from ingest.audit import named
from ingest.audit.account import (
    OPEN_SESSION,
    WAITING_FOR_REWARD,
    WAITING_FOR_TRAINER,
    Account,
    Limits,
    account,
)
from ingest.audit.books import Books
from ingest.audit.feedback import PARKED, WAITING_FOR_SESSION
from ingest.audit.reading import take
from ingest.audit.show import show
from ingest.audit.telling import Teller
from ingest.log import letters
from ingest.log.letters import Failure
from ingest.log.memory import InMemoryLog
from ingest.log.protocol import Message
from ingest.log.reader import Reader, replay
from ingest.log.redrive import Redriver
from ingest.log.topics import (
    ALL,
    FATES,
    FEEDBACK,
    REWARDS,
    TRACES,
    TRAJECTORIES,
    Topic,
    dead_letters,
    parked,
)
from ingest.records import codec
from ingest.records.events import (
    SESSION_END,
    ChainMark,
    Fate,
    FateKind,
    Feedback,
    Prefix,
    Record,
    Reward,
    Trace,
    Trajectory,
    about,
    session_key,
)
from ingest.sessions.assemble import Assembler

MakeTrace = Callable[..., Trace]
MakeFeedback = Callable[..., Feedback]

LIMITS = Limits(inactivity_s=60.0, horizon_s=300.0, retention_s=1000.0, grace_s=10.0)


def reward(of: Trajectory, at: float = 101.0) -> Reward:
    return Reward(
        reward_id="r",
        trajectory_id=of.trajectory_id,
        session_id=of.session_id,
        spec="x@1",
        components=(),
        turns=(),
        value=0.5,
        has_signal=False,
        guardrails={},
        trajectory=of,
        **about(of),
        at=at,
    )


def fate(trace: Trace, kind: FateKind, version: int | None = None, reason: str = "because") -> Fate:
    return Fate(trace_ids=(trace.trace_id,), kind=kind, version=version, reason=reason, at=200.0)


def add(kept: Books, topic: Topic, *records: Record, offset: int = 0) -> None:
    """Note records as they lie on their topic, from `offset` on, under the key `key`."""
    teller = Teller(topic.name)
    for number, record in enumerate(records, offset):
        for fact in teller.facts(Message(topic.name, 0, number, "key", *codec.encode(record))):
            kept.add(fact)


def books(*traces: Trace, fates: tuple[Fate, ...] = ()) -> Books:
    kept = Books()
    add(kept, TRACES, *traces)
    add(kept, FATES, *fates)
    return kept


def taken(log: InMemoryLog, now: float) -> Account:
    return take(log, LIMITS, now)


def test_every_kind_of_fate_is_counted_with_its_reason(make_trace: MakeTrace) -> None:
    traces = [make_trace(n=n) for n in range(6)]
    fates = (
        fate(traces[0], FateKind.TRAINED, 3),
        fate(traces[1], FateKind.TRAINED, 4),
        fate(traces[2], FateKind.HELD_OUT),
        fate(traces[3], FateKind.REFUSED, reason="too old"),
        fate(traces[4], FateKind.EXPIRED),
        fate(traces[5], FateKind.DEAD_LETTERED),
    )
    found = account(books(*traces, fates=fates), LIMITS, now=10_000.0)
    assert found.by_fate == {"trained": 2, "held_out": 1, "refused": 1, "expired": 1, "dead_lettered": 1}
    assert found.by_reason["trained", "version 3"] == found.by_reason["refused", "too old"] == 1
    assert found.is_settled()


def test_a_trace_of_a_young_session_is_in_flight_and_of_an_old_one_unexplained(make_trace: MakeTrace) -> None:
    trace = make_trace(at=0.0)
    young = account(books(trace), LIMITS, now=71.0)
    assert (young.in_flight, young.unexplained.names) == ({OPEN_SESSION: 1}, ())
    old = account(books(trace), LIMITS, now=71.1)
    assert (old.in_flight.total(), old.unexplained.num) == (0, 1)
    assert trace.trace_id in old.unexplained.names[0]


def test_a_lively_session_explains_its_traces_up_to_the_horizon(make_trace: MakeTrace) -> None:
    traces = [make_trace(n=n, at=n * 50.0) for n in range(8)]
    assert account(books(*traces), LIMITS, now=311.0).in_flight == {OPEN_SESSION: 8}
    assert account(books(*traces), LIMITS, now=312.0).unexplained.num == 1


def test_feedback_keeps_a_session_lively(make_trace: MakeTrace, make_feedback: MakeFeedback) -> None:
    kept = books(make_trace(at=0.0))
    add(kept, FEEDBACK, make_feedback(at=50.0, session_id="s"))
    assert account(kept, LIMITS, now=120.0).in_flight == {OPEN_SESSION: 1}


def test_a_trajectory_without_a_reward_is_in_flight_only_for_a_moment(make_trace: MakeTrace) -> None:
    kept = books(trace := make_trace())
    add(kept, TRAJECTORIES, trajectory(trace, closed_at=100.0))
    assert account(kept, LIMITS, now=110.0).in_flight == {WAITING_FOR_REWARD: 1}
    patient = replace(LIMITS, reward_s=30.0)
    assert account(kept, patient, now=140.0).in_flight == {WAITING_FOR_REWARD: 1}
    assert account(kept, patient, now=141.0).unexplained.num == 1
    assert "no reward" in account(kept, LIMITS, now=110.1).unexplained.names[0]


def test_a_reward_without_a_fate_is_in_flight_while_it_is_on_its_topic(make_trace: MakeTrace) -> None:
    kept = books(trace := make_trace())
    add(kept, TRAJECTORIES, trajectory(trace))
    add(kept, REWARDS, reward(trajectory(trace), at=100.0))
    assert account(kept, LIMITS, now=1110.0).in_flight == {WAITING_FOR_TRAINER: 1}
    assert "trainer" in account(kept, LIMITS, now=1110.1).unexplained.names[0]


@pytest.mark.parametrize(
    "second",
    [{"kind": FateKind.TRAINED, "version": 4}, {"kind": FateKind.REFUSED}],
    ids=["another version", "another kind"],
)
def test_two_different_fates_are_a_conflict(make_trace: MakeTrace, second: dict[str, object]) -> None:
    trace = make_trace()
    found = account(books(trace, fates=(fate(trace, FateKind.TRAINED, 3), fate(trace, **second))), LIMITS, now=0.0)
    assert (found.conflicts.num, found.by_fate, found.is_complete()) == (1, {}, False)
    assert "trained in version 3" in found.conflicts.names[0]


def test_one_fate_told_twice_is_no_conflict(make_trace: MakeTrace) -> None:
    trace = make_trace()
    again = fate(trace, FateKind.TRAINED, 3, reason="in other words")
    found = account(books(trace, fates=(fate(trace, FateKind.TRAINED, 3), again)), LIMITS, now=0.0)
    assert (found.by_fate, found.conflicts.names) == ({"trained": 1}, ())


def test_a_trace_delivered_twice_counts_once_and_is_named(make_trace: MakeTrace) -> None:
    trace = make_trace()
    found = account(books(trace, trace), LIMITS, now=0.0)
    assert (found.num_traces, found.duplicates.names) == (1, (trace.trace_id,))


def test_outcomes_add_up_to_the_traces(make_trace: MakeTrace) -> None:
    fated, twice, flying, stuck = (make_trace(f"s{n}", at=500.0 if n == 2 else 0.0) for n in range(4))
    fates = (fate(fated, FateKind.HELD_OUT), fate(twice, FateKind.HELD_OUT), fate(twice, FateKind.EXPIRED))
    kept = books(fated, twice, flying, stuck, fates=fates)
    kept.unreadable |= {"traces/0@1", "traces/0@2"}
    kept.dead_lettered |= {"traces/0@1": Failure.UNREADABLE}
    found = account(kept, LIMITS, now=510.0)
    outcomes = found.by_fate.total() + found.in_flight.total() + found.unexplained.num + found.conflicts.num
    assert found.num_traces == outcomes == 6


def told(kept: Books, now: float = 10_000.0) -> dict[str, object]:
    found = account(kept, LIMITS, now).feedback
    outcomes = found.by_outcome.total() + found.in_flight.total() + found.unexplained.num
    assert outcomes == found.num_feedback
    return {f"{how}: {what}": num for (how, what), num in found.by_outcome.items()}


def test_every_kind_of_end_of_feedback_is_counted(make_trace: MakeTrace, make_feedback: MakeFeedback) -> None:
    trace, lost, kept = make_trace(), make_trace("too large"), Books()
    joined, astray = make_feedback(0, trace_id=trace.trace_id), make_feedback(1, trace_id=f"{trace.trace_id}9")
    late, unknown = make_feedback(2, session_id="s"), make_feedback(3, session_id="never")
    add(kept, FEEDBACK, joined, astray, late, unknown, make_feedback(4, session_id="too large"))
    add(kept, TRAJECTORIES, trajectory(trace, feedback=(joined, astray)))
    add(kept, FATES, fate(lost, FateKind.DEAD_LETTERED))
    kept.feedback.unreadable |= {"feedback/0@5"}
    kept.feedback.letters |= {"feedback/0@2": Failure.LATE, "feedback/0@3": Failure.UNCLAIMED}
    kept.feedback.letters |= {"feedback/0@5": Failure.UNREADABLE}
    assert told(kept) == {
        "joined: ": 1,
        "joined: about a turn that never came": 1,
        "late: its session was closed": 1,
        "dead_lettered: about nothing known": 1,
        "dead_lettered: with its session": 1,
        "dead_lettered: unreadable": 1,
    }
    assert account(kept, LIMITS, now=10_000.0).is_complete()


def test_feedback_waits_for_its_session_up_to_the_horizon_and_is_unexplained_then(make_feedback: MakeFeedback) -> None:
    kept = Books()
    add(kept, FEEDBACK, make_feedback(at=0.0, session_id="never"))
    waiting = account(kept, LIMITS, now=310.0)
    assert (waiting.feedback.in_flight, waiting.is_settled()) == ({WAITING_FOR_SESSION: 1}, True)
    stuck = account(kept, LIMITS, now=310.1)
    assert (stuck.feedback.unexplained.num, stuck.is_complete()) == (1, False)
    assert "f0" in stuck.feedback.unexplained.names[0]


def test_an_unreadable_feedback_without_a_dead_letter_is_unexplained() -> None:
    log = InMemoryLog()
    log.append(FEEDBACK.name, "key", b"broken", {"schema": "feedback/1"})
    found = audit.settle(log, LIMITS, wait_s=0.0)
    assert found.feedback.unexplained.names == ("feedback/0@0: unreadable and not dead-lettered",)


def test_feedback_given_twice_counts_once_by_whichever_was_dead_lettered(make_feedback: MakeFeedback) -> None:
    kept, item = Books(), make_feedback(session_id="never")
    add(kept, FEEDBACK, item, item)
    kept.feedback.letters["feedback/0@0"] = Failure.UNCLAIMED
    assert told(kept) == {"dead_lettered: about nothing known": 1}


def test_what_ingest_did_with_feedback_is_what_the_audit_finds(
    make_trace: MakeTrace, make_feedback: MakeFeedback, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    now, log = 0.0, InMemoryLog()
    ingest = IngestConfig(inactivity_s=60.0, horizon_s=300.0)
    config = Config(run_dir=str(tmp_path), model=ModelConfig(path="unused"), ingest=ingest)
    stage = Assembler(log, config, clock=lambda: now)
    put(log, TRACES, make_trace())
    put(log, FEEDBACK, make_feedback(0, at=2.0, session_id="s"))
    put(log, FEEDBACK, make_feedback(1, at=2.0, trace_id="resp_abc"))
    put(log, FEEDBACK, make_feedback(2, at=2.0, session_id="never"))
    for now in (3.0, 100.0, 400.0, 450.0):
        stage.step(0.0)
        if now == 100.0:
            put(log, FEEDBACK, make_feedback(3, at=100.0, session_id="s"))
            put(log, FEEDBACK, make_feedback(4, at=100.0, session_id="s", name=SESSION_END))
    found = audit.settle(log, LIMITS, wait_s=0.0, clock=lambda: 5000.0)
    expected = {("joined", ""): 2, ("late", "its session was closed"): 1, ("dead_lettered", "about nothing known"): 2}
    assert (found.feedback.by_outcome, found.feedback.unexplained.names) == (expected, ())
    assert json.loads(found.as_json())["feedback"]["by_outcome"][-1]["feedback"] == 1
    show(found)
    shown = capsys.readouterr().out
    assert "5 feedback" in shown
    assert "about nothing known" in shown


def put(log: InMemoryLog, topic: Topic, record: Trace | Feedback | Trajectory | Reward | Fate) -> None:
    log.append(topic.name, "key", *codec.encode(record))


def test_an_unreadable_message_is_dead_lettered_only_if_the_dead_letters_have_it(make_trace: MakeTrace) -> None:
    log = InMemoryLog()
    log.append(TRACES.name, "key", b"broken", {"schema": "trace/1"})
    found = taken(log, now=0.0)
    assert found.unexplained.names == ("traces/0@0: unreadable and not dead-lettered",)

    Reader(log, (TRACES,), "ingest").poll(0.0)
    found = taken(log, now=0.0)
    assert (found.by_reason, found.unexplained.names) == ({("dead_lettered", "unreadable"): 1}, ())
    assert found.num_traces == 1


def test_the_books_are_read_from_the_topics(
    make_trace: MakeTrace, make_feedback: MakeFeedback, capsys: pytest.CaptureFixture[str]
) -> None:
    log = InMemoryLog()
    traces = [make_trace(f"s{n}", at=0.0) for n in range(4)]
    closed, scored = trajectory(traces[2], closed_at=95.0), trajectory(traces[3])
    for topic, record in [
        *((TRACES, trace) for trace in traces),
        (FATES, fate(traces[0], FateKind.TRAINED, 3)),
        (FEEDBACK, make_feedback(at=50.0, trace_id=traces[1].trace_id)),
        (TRAJECTORIES, closed),
        (TRAJECTORIES, scored),
        (REWARDS, reward(scored)),
    ]:
        put(log, topic, record)
    found = audit.settle(log, LIMITS, wait_s=0.0, clock=lambda: 100.0)
    assert found.by_fate == {"trained": 1}
    assert found.in_flight == {OPEN_SESSION: 1, WAITING_FOR_REWARD: 1, WAITING_FOR_TRAINER: 1}
    assert json.loads(found.as_json())["by_reason"] == [{"fate": "trained", "reason": "version 3", "traces": 1}]
    show(found)
    assert "waiting for the trainer" in capsys.readouterr().out


def test_everything_wrong_is_shown_by_name(make_trace: MakeTrace, capsys: pytest.CaptureFixture[str]) -> None:
    stuck, torn = make_trace("stuck"), make_trace("torn")
    fates = (fate(torn, FateKind.TRAINED, 3), fate(torn, FateKind.HELD_OUT))
    show(account(books(stuck, torn, fates=fates), LIMITS, now=10_000.0))
    shown = capsys.readouterr().out
    assert f"CONFLICT {torn.trace_id}: held_out and trained in version 3" in shown
    assert f"UNEXPLAINED {stuck.trace_id}" in shown


def test_an_empty_log_is_in_order() -> None:
    log = InMemoryLog()
    for topic in ALL:
        assert list(log.replay(topic.name)) == []
    assert audit.settle(log, LIMITS, wait_s=0.0).is_settled()


def test_a_missing_configuration_is_one_line_and_a_failure(
    tmp_path: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.main(["--config", f"{tmp_path}/none.yaml"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("onstream: configuration")
    assert told.count("\n") == 1


# -- what was parked, or put back

NEWER_TRACE = f"trace/{Trace.VERSION + 1}"
GROUP = "ingest"


def put_at(log: InMemoryLog, topic: Topic, record: Trace | Feedback | Trajectory | Reward, schema: str = "") -> Message:
    """The record as it lies on its topic, claiming another schema if that is given."""
    value, headers = codec.encode(record)
    log.append(topic.name, session_key("s"), value, headers | ({"schema": schema} if schema else {}))
    return list(log.replay(topic.name))[-1]


def put_back(log: InMemoryLog, source: str, at: float) -> None:
    Redriver(log, source, clock=lambda: at).put_back(letters.each(log, source))


def counted(log: InMemoryLog, now: float) -> tuple[dict[str, int], dict[str, int], int]:
    """Fates, in flight, and how many are unexplained."""
    found = taken(log, now)
    assert found.num_traces == found.by_fate.total() + found.in_flight.total() + found.unexplained.num
    return dict(found.by_fate), dict(found.in_flight), found.unexplained.num


def test_a_trace_of_a_newer_version_is_in_flight_once_it_is_parked_and_unexplained_before(
    make_trace: MakeTrace,
) -> None:
    log = InMemoryLog()
    put_at(log, TRACES, make_trace(), NEWER_TRACE)
    assert counted(log, now=10_000.0) == ({}, {}, 1)
    Reader(log, (TRACES,), GROUP).poll(0.0)
    assert counted(log, now=10_000.0) == ({}, {PARKED: 1}, 0)


def test_a_parked_trace_that_the_audit_can_read_waits_for_its_stage_and_then_for_its_session(
    make_trace: MakeTrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = InMemoryLog()
    put_at(log, TRACES, trace := make_trace(), NEWER_TRACE)
    Reader(log, (TRACES,), GROUP).poll(0.0)
    monkeypatch.setattr(Trace, "VERSION", Trace.VERSION + 1)
    assert counted(log, now=10_000.0) == ({}, {PARKED: 1}, 0)
    put_back(log, parked(TRACES.name, GROUP), at=10_000.0)
    assert counted(log, now=10_070.0) == ({}, {OPEN_SESSION: 1}, 0)
    assert counted(log, now=10_070.1) == ({}, {}, 1)
    put(log, FATES, fate(trace, FateKind.TRAINED, 3))
    assert counted(log, now=10_070.1) == ({"trained": 1}, {}, 0)
    assert taken(log, 0.0).duplicates.names == ()


@pytest.mark.parametrize(("topic", "group"), [(TRAJECTORIES, "rewards"), (REWARDS, "trainer")])
def test_traces_of_a_session_whose_trajectory_or_reward_is_parked_are_in_flight(
    make_trace: MakeTrace, topic: Topic, group: str
) -> None:
    log = InMemoryLog()
    put_at(log, TRACES, trace := make_trace())
    put_at(log, TRACES, other := make_trace("other"))
    closed = trajectory(trace)
    newer = closed if topic is TRAJECTORIES else reward(closed)
    letters.park(log, group, put_at(log, topic, newer, f"{newer.SCHEMA}/99"), "upgrade the reader")
    found = taken(log, now=10_000.0)
    assert (found.in_flight, [line.partition(":")[0] for line in found.unexplained.names]) == (
        {PARKED: 1},
        [other.trace_id],
    )


def test_traces_of_a_session_whose_trajectory_is_dead_lettered_are_so_until_it_is_put_back(
    make_trace: MakeTrace,
) -> None:
    log = InMemoryLog()
    put_at(log, TRACES, trace := make_trace())
    message = put_at(log, TRAJECTORIES, trajectory(trace), "trajectory/0")
    letters.bury(log, "rewards", message, Failure.UNREADABLE, "because")
    assert counted(log, now=10_000.0) == ({"dead_lettered": 1}, {}, 0)
    put_back(log, dead_letters(TRAJECTORIES.name, "rewards"), at=10_000.0)
    assert counted(log, now=10_000.0) == ({}, {}, 1)


def test_a_trace_that_was_dead_lettered_and_put_back_counts_by_its_later_fate(make_trace: MakeTrace) -> None:
    log = InMemoryLog()
    message = put_at(log, TRACES, trace := make_trace())
    letters.bury(log, GROUP, message, Failure.UNREADABLE, "an older reader could not read it")
    assert counted(log, now=10_000.0) == ({"dead_lettered": 1}, {}, 0)
    put_back(log, dead_letters(TRACES.name, GROUP), at=10_000.0)
    assert counted(log, now=10_060.0) == ({}, {OPEN_SESSION: 1}, 0)
    put(log, TRAJECTORIES, trajectory(trace, closed_at=10_060.0))
    put(log, FATES, fate(trace, FateKind.HELD_OUT))
    assert counted(log, now=20_000.0) == ({"held_out": 1}, {}, 0)


def test_a_trace_that_was_put_back_and_failed_again_is_one_dead_letter() -> None:
    log = InMemoryLog()
    log.append(TRACES.name, "key", b"broken", {"schema": "trace/1"})
    reader = Reader(log, (TRACES,), GROUP)
    reader.poll(0.0)
    put_back(log, dead_letters(TRACES.name, GROUP), at=0.0)
    assert counted(log, now=0.0) == ({}, {}, 1)
    reader.poll(0.0)
    assert counted(log, now=0.0) == ({"dead_lettered": 1}, {}, 0)
    reader.close()


def test_feedback_that_was_dead_lettered_and_put_back_counts_by_what_became_of_it_since(
    make_trace: MakeTrace, make_feedback: MakeFeedback
) -> None:
    log, given = InMemoryLog(), make_feedback(session_id="s")
    message = put_at(log, FEEDBACK, given)
    letters.bury(log, GROUP, message, Failure.UNCLAIMED, "because")

    def outcomes(now: float) -> tuple[dict[tuple[str, str], int], dict[str, int], int]:
        found = audit.settle(log, LIMITS, wait_s=0.0, clock=lambda: now).feedback
        assert found.num_feedback == 1
        return dict(found.by_outcome), dict(found.in_flight), found.unexplained.num

    assert outcomes(10_000.0) == ({("dead_lettered", "about nothing known"): 1}, {}, 0)
    put_back(log, dead_letters(FEEDBACK.name, GROUP), at=10_000.0)
    assert outcomes(10_310.0) == ({}, {WAITING_FOR_SESSION: 1}, 0)
    assert outcomes(10_310.1) == ({}, {}, 1)
    put(log, TRAJECTORIES, trajectory(make_trace(), feedback=(given,)))
    assert outcomes(10_310.1) == ({("joined", ""): 1}, {}, 0)


@pytest.mark.parametrize("schema", ["feedback/99", f"feedback/{Feedback.VERSION}"], ids=["unreadable", "readable"])
def test_parked_feedback_is_in_flight(make_feedback: MakeFeedback, schema: str) -> None:
    log = InMemoryLog()
    letters.park(log, GROUP, put_at(log, FEEDBACK, make_feedback(session_id="s"), schema), "upgrade the reader")
    found = audit.settle(log, LIMITS, wait_s=0.0, clock=lambda: 10_000.0).feedback
    assert (found.num_feedback, found.in_flight, found.unexplained.names) == (1, {PARKED: 1}, ())


def test_a_trace_that_two_processes_put_back_at_once_is_one_turn_and_counts_once(make_trace: MakeTrace) -> None:
    now, log = 0.0, InMemoryLog()
    config = Config(model=ModelConfig(path="unused"), ingest=IngestConfig(inactivity_s=60.0, horizon_s=300.0))
    source = dead_letters(TRACES.name, GROUP)
    letters.bury(log, GROUP, put_at(log, TRACES, make_trace()), Failure.UNREADABLE, "an older reader could not")
    for redriver in [Redriver(log, source, clock=lambda: 0.0) for _ in range(2)]:
        redriver.put_back(letters.each(log, source))
    assert len(list(log.replay(TRACES.name))) == 3
    stage = Assembler(log, config, clock=lambda: now)
    for now in (1.0, 100.0, 200.0):  # noqa: B007 - the clock
        stage.step(0.0)
    (closed,) = replay(log, TRAJECTORIES, Trajectory)
    assert len(closed.turns) == 1
    put(log, FATES, fate(make_trace(), FateKind.TRAINED, 3))
    assert counted(log, now=200.0) == ({"trained": 1}, {}, 0)


def test_a_parked_trace_that_is_put_back_by_the_stage_ends_in_a_trajectory_of_its_own(
    make_trace: MakeTrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its session went on without it and was closed: what comes back is late, and closes by itself."""
    now, log = 0.0, InMemoryLog()
    config = Config(model=ModelConfig(path="unused"), ingest=IngestConfig(inactivity_s=60.0, horizon_s=300.0))
    put_at(log, TRACES, make_trace(n=0, at=0.0))
    put_at(log, TRACES, make_trace(n=1, at=2.0), NEWER_TRACE)
    put_at(log, TRACES, make_trace(n=2, at=4.0))
    old = Assembler(log, config, clock=lambda: now)
    for now in (5.0, 100.0, 110.0):  # noqa: B007 - the clock
        old.step(0.0)
    old.close()
    monkeypatch.setattr(Trace, "VERSION", Trace.VERSION + 1)
    new = Assembler(log, config, clock=lambda: now)
    for now in (500.0, 501.0, 540.0, 550.0):  # noqa: B007 - the clock
        new.step(0.0)
    first, second = replay(log, TRAJECTORIES, Trajectory)
    assert [[turn.trace_id[-1] for turn in one.turns] for one in (first, second)] == [["0", "2"], ["1"]]
    assert [chain.marks for chain in second.chains] == [(ChainMark.LATE,)]
    assert log.lag(GROUP, [TRACES.name]) == {TRACES.name: 0}


# -- amended trajectories, fates of several traces, orphans


def test_a_trace_in_several_revisions_of_its_trajectory_is_no_conflict_and_waits_for_the_newest_reward(
    make_trace: MakeTrace, make_feedback: MakeFeedback
) -> None:
    log, late = InMemoryLog(), make_feedback(at=150.0, session_id="s")
    put(log, TRACES, trace := make_trace())
    put(log, FEEDBACK, late)
    put(log, TRAJECTORIES, trajectory(trace, closed_at=100.0))
    put(log, TRAJECTORIES, trajectory(trace, closed_at=200.0, feedback=(late,), revision=2))
    assert counted(log, now=210.0) == ({}, {WAITING_FOR_REWARD: 1}, 0)
    for at in (150.0, 250.0):
        put(log, REWARDS, reward(trajectory(trace), at))
    assert counted(log, now=1260.0) == ({}, {WAITING_FOR_TRAINER: 1}, 0)
    assert counted(log, now=1260.1) == ({}, {}, 1)
    put(log, FATES, fate(trace, FateKind.TRAINED, 3))
    found = taken(log, 1260.1)
    assert (found.by_fate, found.conflicts.num, found.duplicates.num) == ({"trained": 1}, 0, 0)
    assert found.feedback.by_outcome == {("joined", ""): 1}


def test_one_fate_of_several_traces_ends_each_of_them(make_trace: MakeTrace) -> None:
    traces = [make_trace(n=n) for n in range(3)]
    log = InMemoryLog()
    for trace in traces:
        put(log, TRACES, trace)
    names = tuple(trace.trace_id for trace in traces)
    put(log, FATES, Fate(trace_ids=names, kind=FateKind.TRAINED, version=3, reason="because", at=1.0))
    put(log, FATES, fate(traces[0], FateKind.EXPIRED))
    found = taken(log, 10_000.0)
    assert (found.num_traces, found.by_fate, found.conflicts.num) == (3, {"trained": 2}, 1)


def orphaned(log: InMemoryLog, make_trace: MakeTrace, tmp_path: Path) -> Trace:
    """A trace whose parent is not on the log, as ingest leaves it at second 5."""
    prefix = Prefix(parent=f"{session_key('s')}-gone", digest="d", num_tokens=1, num_messages=0)
    put_at(log, TRACES, trace := make_trace(prefix=prefix))
    config = Config(run_dir=str(tmp_path), model=ModelConfig(path="unused"))
    stage = Assembler(log, config, clock=lambda: 5.0)
    stage.step(0.0)
    stage.close()
    return trace


def test_an_orphan_is_one_dead_letter_and_after_it_was_put_back_counts_by_what_became_of_it_since(
    make_trace: MakeTrace, tmp_path: Path
) -> None:
    log = InMemoryLog()
    trace = orphaned(log, make_trace, tmp_path)
    assert taken(log, 10_000.0).by_reason == {("dead_lettered", "its prefix is not on the log"): 1}
    put_back(log, dead_letters(TRACES.name, GROUP), at=10_000.0)
    assert counted(log, now=10_070.0) == ({}, {OPEN_SESSION: 1}, 0)
    assert counted(log, now=10_070.1) == ({}, {}, 1)
    put(log, FATES, fate(trace, FateKind.TRAINED, 3))
    assert counted(log, now=10_070.1) == ({"trained": 1}, {}, 0)


def test_an_orphan_whose_fate_was_not_written_is_explained_by_its_letter(make_trace: MakeTrace, tmp_path: Path) -> None:
    log, copy = InMemoryLog(), InMemoryLog()
    orphaned(log, make_trace, tmp_path)
    for topic in (TRACES.name, dead_letters(TRACES.name, GROUP)):
        for message in log.replay(topic):
            copy.append(topic, message.key, message.value, message.headers)
    assert taken(copy, 10_000.0).by_reason == {("dead_lettered", "its prefix is not on the log"): 1}


# -- what is printed


def test_the_object_that_is_printed_names_no_more_than_people_read_and_counts_all(
    make_trace: MakeTrace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(named, "MAX_NAMED", 2)
    found = account(books(*(make_trace(n=n) for n in range(5))), LIMITS, now=10_000.0)
    told = json.loads(found.as_json())
    assert (told["num_unexplained"], len(told["unexplained"])) == (5, 2)
    assert told.keys() == {
        *("num_traces", "by_fate", "by_reason", "in_flight", "feedback"),
        *("num_unexplained", "unexplained", "num_conflicts", "conflicts", "num_duplicates", "duplicates"),
    }
    show(found)
    assert "UNEXPLAINED and 3 more" in capsys.readouterr().out
