"""Credit along a session's lines: worked by hand, and against generated sessions' scripts."""

import random
from collections.abc import Callable

import pytest
from agent_sessions import AGENTIC, play
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.config import IngestConfig
from ingest.log.protocol import Message
from ingest.records import codec
from ingest.records.events import Chain, Link, LinkKind, Trajectory, Turn, TurnKind
from ingest.sessions.table import SessionTable
from rewards.credit import along_chains, before, credited

MakeTurn = Callable[..., Turn]
MakeTrajectory = Callable[..., Trajectory]

#   t0 - t1 - s2 = t3 - t4          s2 is a summary, t3 goes on from it; t5 replaces t4
#                     \ t5
TREE: dict[str, str | None] = {"t0": None, "t1": "t0", "s2": "t1", "t3": "s2", "t4": "t3", "t5": "t3"}


def test_a_turn_has_the_mean_of_all_that_goes_on_from_it() -> None:
    assert along_chains({"t1": 1.0, "t4": 0.0, "t5": 0.5}, TREE) == {
        "t0": 0.5,
        "t1": 0.5,
        "s2": 0.25,
        "t3": 0.25,
        "t4": 0.0,
        "t5": 0.5,
    }


def test_only_a_turns_own_score_counts_without_a_chain_share() -> None:
    assert credited({"t1": 1.0, "t4": 0.0}, TREE, 0.0) == {"t1": 1.0, "t4": 0.0}


def test_mixed_credit_weighs_the_chain_against_the_turn_where_it_has_both() -> None:
    mixed = credited({"t1": 1.0, "t4": 0.0}, TREE, 0.25)
    assert mixed == {"t0": 0.5, "t1": 0.25 * 0.5 + 0.75 * 1.0, "s2": 0.0, "t3": 0.0, "t4": 0.0}


def test_a_turn_that_nothing_scored_goes_on_from_has_none() -> None:
    assert credited({"t4": 1.0}, TREE, 1.0).keys() == {"t0", "t1", "s2", "t3", "t4"}


def test_a_score_of_a_turn_outside_the_tree_reaches_nobody() -> None:
    assert credited({"side": 1.0}, TREE, 1.0) == credited({"side": 1.0}, TREE, 0.0) == {}


def chain(*names: str, link: Link | None = None) -> Chain:
    segments = [{"trace_id": name, "start": 0, "end": 1, "logprobs": (0.0,), "spans": ()} for name in names]
    return Chain.model_validate({"token_ids": (1,), "segments": segments, "link": link})


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(LinkKind.COMPACTION, "t1"), (LinkKind.REWRITE, "t1"), (LinkKind.BRANCH, "t0")],
)
def test_a_link_carries_credit_back_to_its_turn_and_a_branch_past_it(
    kind: LinkKind, expected: str, make_turn: MakeTurn, make_trajectory: MakeTrajectory
) -> None:
    turns = (make_turn(0), make_turn(1, parent="t0"), make_turn(2))
    linked = chain("t2", link=Link(kind=kind, before=0, trace_id="t1"))
    assert before(make_trajectory(*turns, chains=(chain("t0", "t1"), linked)))["t2"] == expected


def test_tokens_tell_what_messages_do_not(make_turn: MakeTurn, make_trajectory: MakeTrajectory) -> None:
    trajectory = make_trajectory(make_turn(0), make_turn(1), chains=(chain("t0", "t1"),))
    assert before(trajectory) == {"t0": None, "t1": "t0"}


def test_side_turns_neither_give_nor_get(make_turn: MakeTurn, make_trajectory: MakeTrajectory) -> None:
    turns = (make_turn(0), make_turn(1, kind=TurnKind.SIDE, parent="t0"), make_turn(2, parent="t1"))
    assert before(make_trajectory(*turns)) == {"t0": None, "t2": None}


@settings(max_examples=150)
@given(st.integers(0, 2**31), st.integers(1, 14))
def test_credit_reaches_what_the_script_says_and_nothing_else(seed: int, length: int) -> None:
    session = play(seed, AGENTIC, length)
    table = SessionTable(IngestConfig(inactivity_s=1e6, horizon_s=1e7))
    for offset, trace in enumerate(session.traces):
        value, headers = codec.encode(trace)
        table.add_trace(trace, Message("traces", 0, offset, "key", value, headers), now=1e6)
    (closed,) = table.due(now=1e8)
    part = [name for name, truth in session.truth.items() if truth.kind is not TurnKind.SIDE]
    rng = random.Random(seed)
    scores = {name: rng.randrange(5) / 4 for name in part if rng.random() < 0.5}
    expected = {}
    for name in part:
        reached = [scores[other] for other in part if other in scores and name in session.upto(other)]
        if reached:
            expected[name] = sum(reached) / len(reached)
    assert along_chains(scores, before(closed.trajectory)) == expected
