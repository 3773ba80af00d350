"""Generated sessions against their script's truth: links, kinds, parents, marks, messages, storage."""

import random

from agent_sessions import AGENTIC, ORDINARY, Session, close, disagreements, interleaved, play, play_family
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.records.events import ChainMark, LinkKind, TurnKind
from ingest.sessions import chains, history
from ingest.sessions.messages import key_of, messages_of

SEEDS = st.integers(0, 2**31)
LENGTHS = st.integers(1, 14)
few = settings(max_examples=200)


@few
@given(SEEDS, LENGTHS)
def test_links_kinds_parents_and_marks_are_the_scripts(seed: int, length: int) -> None:
    family = play_family(seed, AGENTIC, length)
    for session, trajectory in zip(family, close(family), strict=True):
        assert disagreements(session, trajectory) == []


@few
@given(SEEDS, LENGTHS)
def test_dialogue_that_quotes_itself_has_no_compaction(seed: int, length: int) -> None:
    session = play(seed, ORDINARY, length)
    (trajectory,) = close([session])
    assert all(turn.kind is not TurnKind.SUMMARY for turn in trajectory.turns)
    assert not any(chain.link and chain.link.kind is LinkKind.COMPACTION for chain in trajectory.chains)
    assert disagreements(session, trajectory) == []


@few
@given(SEEDS, LENGTHS)
def test_nothing_stored_once_is_lost(seed: int, length: int) -> None:
    session = play(seed, AGENTIC, length)
    (trajectory,) = close([session])
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
    family, rng = play_family(seed, AGENTIC, length), random.Random(seed)
    traces = interleaved(family)
    order = [n for n in range(len(traces)) for _ in range(1 + (rng.random() < 0.2))]
    twice = {traces[n].trace_id for n in order if order.count(n) > 1}
    rng.shuffle(order)
    for session, trajectory in zip(family, close(family, order), strict=True):
        assert disagreements(session, trajectory) == []
        began = [trace.trace_id for trace in session.traces]
        first = [name for n in dict.fromkeys(order) if (name := traces[n].trace_id) in began]
        late = {name for at, name in enumerate(first) if any(began.index(b) > began.index(name) for b in first[:at])}
        for chain in trajectory.chains:
            held = {segment.trace_id for segment in chain.segments}
            assert (ChainMark.LATE in chain.marks) == bool(held & late)
            assert (ChainMark.DUPLICATED in chain.marks) == bool(held & twice)


@few
@given(SEEDS, LENGTHS)
def test_what_a_prefix_holds_is_stored_once(seed: int, length: int) -> None:
    """Side turns and regenerations apart, a session's messages and tokens are each in one place."""
    (trajectory,) = close([play(seed, (Session.speak, Session.use_tool), length)])
    assert len(trajectory.chains) == 1
    assert sum(len(turn.messages) for turn in trajectory.turns) == 1 + len(trajectory.turns)
