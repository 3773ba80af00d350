"""Stored sessions against the plain way of making them: every trace whole, everything compared with all before it."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import joined_whole
from hypothesis import given, settings
from hypothesis import strategies as st
from leaning import Stored, stored

from infra.config import IngestConfig
from ingest.records import codec, prefixes
from ingest.records.events import Trace, Trajectory
from ingest.records.prefixes import Outline, Wholes
from ingest.sessions.chains import Flaws, join
from ingest.sessions.table import SessionTable, Taken

SEEDS, LENGTHS = st.integers(0, 2**31), st.integers(0, 14)
many = settings(max_examples=300)


@dataclass
class Closed:
    """A session's trajectory, the traces that were taken, as they were stored, where they lay, and what went wrong."""

    trajectory: Trajectory
    taken: dict[str, Trace]
    offsets: dict[str, int]
    flaws: Flaws


def closed(session: Stored) -> Closed | None:
    """The session as the table makes it; none where nothing of it could be taken."""
    table = SessionTable(IngestConfig(inactivity_s=1e6, horizon_s=1e7))
    kept, offsets = dict[str, Trace](), dict[str, int]()
    late, twice = set[str](), set[str]()
    newest = float("-inf")
    for message in session.messages:
        trace = codec.decode(message.value, message.headers, Trace)
        taken = table.add_trace(trace, message, now=1e6)
        if taken is Taken.DUPLICATE:
            twice.add(trace.trace_id)
        if taken is Taken.KEPT:
            if newest > trace.finished_at:
                late.add(trace.trace_id)
            newest = max(newest, trace.started_at)
            kept[trace.trace_id], offsets[trace.trace_id] = trace, message.offset
    due = table.due(1e8)
    return Closed(due[0].trajectory, kept, offsets, Flaws(late, twice)) if due else None


@many
@given(SEEDS, LENGTHS)
def test_a_stored_session_closes_as_if_its_traces_were_whole(seed: int, length: int) -> None:
    session = stored(seed, length)
    found = closed(session)
    if found is None:
        return
    made_whole = Wholes(found.taken)
    wholes = [made_whole.whole(trace) for trace in found.taken.values()]
    assert all(whole.prompt_token_ids == session.wholes[whole.trace_id].prompt_token_ids for whole in wholes)
    expected = joined_whole.join(wholes, found.flaws)
    turns = joined_whole.build(expected.readings, found.offsets)
    plain = found.trajectory.model_copy(update={"chains": expected.chains, "turns": turns})
    assert json.loads(found.trajectory.model_dump_json()) == json.loads(plain.model_dump_json())  # tells where
    assert found.trajectory.model_dump_json() == plain.model_dump_json()


@many
@given(SEEDS, LENGTHS)
def test_what_is_made_without_validation_is_valid(seed: int, length: int) -> None:
    found = closed(stored(seed, length))
    if found is not None:
        assert Trajectory.model_validate_json(found.trajectory.model_dump_json()) == found.trajectory


@many
@given(SEEDS, LENGTHS)
def test_whole_traces_are_joined_as_stored_ones_are(seed: int, length: int) -> None:
    wholes = list(stored(seed, length).wholes.values())
    expected = joined_whole.join(wholes)
    assert join(wholes).chains == expected.chains


def test_a_turn_kept_on_the_server_is_gone_on_from_where_its_name_was_left_out(
    make_trace: Callable[..., Trace],
) -> None:
    named = {"previous_response_id": "r" * 40}
    parent = make_trace(n=0, prompt=(1, 2), reply=(3, 4), request=named | {"input": [{"role": "user", "content": "a"}]})
    trace = make_trace(n=1, prompt=(1, 2, 3, 4, 5), request=named | {"input": [{"role": "user", "content": "b"}]})
    outline, elder = Outline.of(trace), Outline.of(parent)
    cut = prefixes.cut(trace, outline, elder, prefixes.digest(codec.encode(parent)[0]), 4)
    assert "previous_response_id" not in cut.request
    assert join([parent, cut]).readings[trace.trace_id].parent == parent.trace_id
