"""Who never trains, and that it is the same whoever asks, whenever."""

import subprocess
import sys
from collections.abc import Callable
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.config import IngestConfig
from ingest.log.protocol import Message
from ingest.records.events import Arm, Assignment, Group, Trace, session_key
from ingest.sessions.held_out import holds_out, is_held_out
from ingest.sessions.table import SessionTable
from serving.router.routing import coin

MakeTrace = Callable[..., Trace]
MakeMessage = Callable[..., Message]

HALF = IngestConfig(inactivity_s=60.0, horizon_s=300.0, held_out_share=0.5)
NAMES = [f"session {n}" for n in range(4000)]


def test_a_share_of_sessions_is_held_out() -> None:
    keys = [session_key(name) for name in NAMES]
    found = [is_held_out(key, 0.25, "salt") for key in keys]
    assert 0.22 < sum(found) / len(keys) < 0.28
    assert found != [is_held_out(key, 0.25, "other salt") for key in keys]
    assert not any(is_held_out(key, 0.0, "salt") for key in keys)


def test_another_process_holds_out_the_same_sessions() -> None:
    told = "from ingest.sessions.held_out import is_held_out as f; print([f(str(n), 0.5, 's') for n in range(64)])"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == str([is_held_out(str(n), 0.5, "s") for n in range(64)])


@given(st.text(), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_greater_share_holds_out_all_that_a_smaller_one_did(key: str, one: float, other: float) -> None:
    if is_held_out(key, min(one, other), "salt"):
        assert is_held_out(key, max(one, other), "salt")


def test_who_is_held_out_says_nothing_about_the_arm(make_trace: MakeTrace) -> None:
    held = [name for name in NAMES if holds_out(HALF, [make_trace(name)])]
    candidates = [coin(name, HALF.held_out_salt) < 0.5 for name in held]
    assert 0.46 < sum(candidates) / len(held) < 0.54


def test_an_agents_session_is_held_out_with_its_parent_and_only_then(make_trace: MakeTrace) -> None:
    for name in NAMES[:200]:
        parent = holds_out(HALF, [make_trace(name)])
        assert holds_out(HALF, [make_trace(f"{name}'s agent", parent_session_id=name)]) is parent


def test_by_user_all_sessions_of_a_user_are_held_out_or_none(make_trace: MakeTrace) -> None:
    config = HALF.model_copy(update={"held_out_by": "user"})
    answers = []
    for user in map(str, range(200)):
        found = {holds_out(config, [make_trace(name, user=user)]) for name in NAMES[:20]}
        assert len(found) == 1
        answers += found
    assert 70 < sum(answers) < 130
    assert {holds_out(config, [make_trace(name, user="")]) for name in NAMES[:20]} == {True, False}
    acme = [holds_out(config, [make_trace(user=user, tenant="acme")]) for user in map(str, range(200))]
    assert acme != answers


def test_a_later_revision_never_lets_go_of_a_session_that_was_held_out(make_trace: MakeTrace) -> None:
    for name in NAMES[:100]:
        traces = [make_trace(name, n=n, parent_session_id=parent) for n, parent in enumerate((None, "a", "b"))]
        revisions = [holds_out(HALF, traces[:num]) for num in (1, 2, 3)]
        assert revisions == sorted(revisions)
        assert holds_out(HALF, traces[::-1]) is revisions[-1]


def closed(make_trace: MakeTrace, make_message: MakeMessage, names: list[str], order: range) -> dict[str, bool]:
    """Session -> held out, as a table that reads these sessions' three turns in this order hands them out."""
    table = SessionTable(HALF)
    for offset, number in enumerate(order):
        for name in names:
            trace = make_trace(name, n=number, at=float(number))
            table.add_trace(trace, make_message(trace, offset), now=10.0)
    return {found.trajectory.session_id: found.trajectory.held_out for found in table.due(100.0)}


def test_a_restart_that_reads_the_same_traces_again_holds_out_the_same_sessions(
    make_trace: MakeTrace, make_message: MakeMessage
) -> None:
    names = NAMES[:50]
    before = closed(make_trace, make_message, names, range(3))
    assert closed(make_trace, make_message, names, range(2, -1, -1)) == before
    assert set(before.values()) == {True, False}


def test_the_second_part_of_a_session_that_was_split_is_held_out_with_the_first(
    make_trace: MakeTrace, make_message: MakeMessage
) -> None:
    for name in NAMES[:30]:
        table = SessionTable(HALF)
        for offset, at in enumerate((0.0, 200.0)):
            trace = make_trace(name, n=offset, at=at)
            table.add_trace(trace, make_message(trace, offset), now=at + 1.0)
        one, other = table.due(1000.0)
        assert one.trajectory.held_out is other.trajectory.held_out


def test_a_replay_is_held_out_whatever_the_share(make_trace: MakeTrace) -> None:
    none = IngestConfig(held_out_share=0.0)
    replay = make_trace(assignment=Assignment(arm=Arm.CANDIDATE, trial=3, propensity=0.5, replay_of="k-0"))
    assert holds_out(none, iter([replay]))
    assert holds_out(none, [make_trace(n=1), replay])
    assert not holds_out(none, [make_trace(n=1)])


@pytest.mark.parametrize("by", ["session", "user"])
def test_a_replay_of_the_lane_is_held_out_where_its_anchor_is(
    make_trace: MakeTrace, by: Literal["session", "user"]
) -> None:
    half = IngestConfig(held_out_share=0.5, held_out_by=by)
    asked = Assignment(replay_of="k-0", group=Group(size=4, propensity=0.1))
    outcomes = set()
    for n in range(40):
        anchor = make_trace(f"s-{n}", user=f"u-{n}")
        replay = make_trace("replay", user=f"u-{n}", parent_session_id=f"s-{n}", assignment=asked)
        outcomes.add((holds_out(half, [anchor]), holds_out(half, [replay])))
    assert outcomes == {(False, False), (True, True)}
