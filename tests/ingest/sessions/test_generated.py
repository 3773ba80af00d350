"""Generated sessions against their script's truth: links, kinds, parents, marks, messages, storage."""

import random

from agent_sessions import AGENTIC, ORDINARY, Session, play
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.config import IngestConfig
from ingest import codec
from ingest.events import ChainMark, LinkKind, Trajectory, TurnKind
from ingest.log import Message
from ingest.sessions import chains, history
from ingest.sessions.messages import key_of, messages_of
from ingest.sessions.table import SessionTable

SEEDS = st.integers(0, 2**31)
LENGTHS = st.integers(1, 14)
few = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def close(session: Session, order: list[int] | None = None) -> Trajectory:
    """The trajectory of a session whose traces arrive in `order`; a number that comes twice is delivered twice."""
    table = SessionTable(IngestConfig(inactivity_s=1e6, horizon_s=1e7), remember_s=1e9)
    for offset, number in enumerate(order if order is not None else range(len(session.traces))):
        value, headers = codec.encode(session.traces[number])
        table.add_trace(session.traces[number], Message("traces", 0, offset, "key", value, headers), now=1e6)
    (closed,) = table.due(now=1e8)
    return closed.trajectory


def assert_true(session: Session, trajectory: Trajectory) -> None:
    """The trajectory says what the script knows."""
    kinds = {turn.trace_id: turn.kind for turn in trajectory.turns}
    assert kinds == {name: truth.kind for name, truth in session.truth.items()}
    links = {chain.segments[0].trace_id: chain.link for chain in trajectory.chains}
    known = {name: truth.link for name, truth in session.truth.items() if truth.link}
    assert {name: (link.kind, link.trace_id) for name, link in links.items() if link} == known
    for turn in trajectory.turns:
        if turn.kind is not TurnKind.SIDE:
            assert turn.parent == session.truth[turn.trace_id].parent
    marked = {s.trace_id for c in trajectory.chains if ChainMark.MISSING in c.marks for s in c.segments}
    missing = {name for name, truth in session.truth.items() if truth.is_missing}
    assert missing <= marked
    assert all(missing & {s.trace_id for s in c.segments} for c in trajectory.chains if ChainMark.MISSING in c.marks)


@few
@given(SEEDS, LENGTHS)
def test_links_kinds_parents_and_marks_are_the_scripts(seed: int, length: int) -> None:
    session = play(seed, AGENTIC, length)
    assert_true(session, close(session))


@few
@given(SEEDS, LENGTHS)
def test_dialogue_that_quotes_itself_has_no_compaction(seed: int, length: int) -> None:
    session = play(seed, ORDINARY, length)
    trajectory = close(session)
    assert all(turn.kind is not TurnKind.SUMMARY for turn in trajectory.turns)
    assert not any(chain.link and chain.link.kind is LinkKind.COMPACTION for chain in trajectory.chains)
    assert_true(session, trajectory)


@few
@given(SEEDS, LENGTHS)
def test_nothing_stored_once_is_lost(seed: int, length: int) -> None:
    session = play(seed, AGENTIC, length)
    trajectory = close(session)
    tokens = {s.trace_id: (chain.token_ids, s) for chain in chains.whole(trajectory.chains) for s in chain.segments}
    for trace in session.traces:
        asked = history.messages_of(trajectory, trace.trace_id)
        assert list(map(key_of, asked)) == list(map(key_of, messages_of(trace.request)))
        if trace.kind is not TurnKind.SIDE:
            held, segment = tokens[trace.trace_id]
            assert held[: segment.start] == trace.prompt_token_ids
            assert held[segment.start : segment.end] == trace.token_ids


@few
@given(SEEDS, LENGTHS)
def test_arrival_out_of_order_and_twice_is_marked_and_changes_nothing_else(seed: int, length: int) -> None:
    session = play(seed, AGENTIC, length)
    rng = random.Random(seed)
    order = [n for n in range(len(session.traces)) for _ in range(1 + (rng.random() < 0.2))]
    twice = {session.traces[n].trace_id for n in order if order.count(n) > 1}
    rng.shuffle(order)
    trajectory = close(session, order)
    assert_true(session, trajectory)
    first = [session.traces[n].trace_id for n in dict.fromkeys(order)]
    began = [trace.trace_id for trace in session.traces]
    late = {name for at, name in enumerate(first) if any(began.index(b) > began.index(name) for b in first[:at])}
    for chain in trajectory.chains:
        held = {segment.trace_id for segment in chain.segments}
        assert (ChainMark.LATE in chain.marks) == bool(held & late)
        assert (ChainMark.DUPLICATED in chain.marks) == bool(held & twice)


@few
@given(SEEDS, LENGTHS)
def test_what_a_prefix_holds_is_stored_once(seed: int, length: int) -> None:
    """Side turns and regenerations apart, a session's messages and tokens are each in one place."""
    trajectory = close(play(seed, (Session.speak, Session.use_tool), length))
    assert len(trajectory.chains) == 1
    assert sum(len(turn.messages) for turn in trajectory.turns) == 1 + len(trajectory.turns)
