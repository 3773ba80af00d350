"""Sessions that went through the lake's rows are those that scorers saw."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import agent_sessions
import histories
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lake_traffic import Played, Traffic

from ingest.lake import records
from ingest.lake.content import NoSeal, Vault
from ingest.lake.manifest import Table
from ingest.lake.rows import rows_of
from ingest.lake.schema import frame
from ingest.lake.sessions import Opened, SessionRows
from ingest.records.events import Trajectory
from rewards.spec import load as load_spec

VAULT = Vault(NoSeal())


def opened(rows: Iterable[dict[str, Any]]) -> tuple[Opened, ...]:
    return tuple((row, VAULT.get(row["subject"], "", row["content"]) if row["content"] else None) for row in rows)


def laid(trajectory: Trajectory) -> SessionRows:
    """The rows of a trajectory and of its feedback, as they are read."""
    found: dict[Table, list[dict[str, Any]]] = {}
    for record in (trajectory, *trajectory.feedback):
        for row in rows_of(record, 0, 0, VAULT):
            found.setdefault(row.table, []).append(row.values)
    told = {table: frame(table, rows).to_dicts() for table, rows in found.items()}
    return SessionRows(told[Table.SESSIONS][0], opened(told[Table.TURNS]), opened(told.get(Table.FEEDBACK, ())), None)


def as_kept(trajectory: Trajectory) -> Trajectory:
    """What the lake keeps of it: times to the microsecond."""
    turns = [turn.model_copy(update={"at": whole(turn.at)}) for turn in trajectory.turns]
    said = [item.model_copy(update={"at": whole(item.at)}) for item in trajectory.feedback]
    ends = {name: whole(getattr(trajectory, name)) for name in ("opened_at", "closed_at")}
    return trajectory.model_copy(update={"turns": tuple(turns), "feedback": tuple(said), **ends})


def whole(seconds: float) -> float:
    return round(seconds * 1e6) / 1e6


@pytest.fixture
def commented() -> Played:
    """A session of some turns, with a comment."""
    return next(one for one in Traffic().sessions(99) if one.feedback and one.feedback[0].comment)


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.integers(1, 12))
def test_a_session_with_branches_and_sub_agents_is_the_same_again(seed: int, length: int) -> None:
    for one in agent_sessions.close(agent_sessions.play_family(seed, agent_sessions.AGENTIC, length)):
        assert records.trajectory(laid(one)) == as_kept(one)


@pytest.mark.parametrize("kind", [histories.Kind.FAITHFUL, histories.Kind.ASKING])
def test_a_compacted_session_scores_as_it_did(kind: histories.Kind) -> None:
    from rewards.evaluate import evaluate

    history = histories.draw(3, next(iter(histories.domains())))
    one = histories.record(history, histories.summarise(history, kind))
    again = records.trajectory(laid(one))
    assert isinstance(again, Trajectory)
    scoring = load_spec("")
    expected = evaluate(scoring, one, at=0.0)
    assert evaluate(scoring, again, at=0.0).components == expected.components
    assert any(part.name == "recall" and part.value is not None for part in expected.components)


def test_feedback_and_comments_are_the_same_again(commented: Played) -> None:
    found = records.trajectory(laid(commented.trajectory))
    assert isinstance(found, Trajectory)
    assert found.feedback == as_kept(commented.trajectory).feedback


@pytest.mark.parametrize("what", ["a turn", "a comment"])
def test_a_session_of_which_something_is_erased_is_erased(commented: Played, what: str) -> None:
    rows = laid(commented.trajectory)
    if what == "a turn":
        rows = replace(rows, turns=(*rows.turns[:-1], (rows.turns[-1][0], None)))
    else:
        rows = replace(rows, feedback=((rows.feedback[0][0], None),))
    assert records.trajectory(rows) is records.Lost.ERASED


def test_a_session_without_one_of_its_turns_is_incomplete(commented: Played) -> None:
    rows = laid(commented.trajectory)
    assert records.trajectory(replace(rows, turns=rows.turns[1:])) is records.Lost.INCOMPLETE


def test_feedback_that_came_too_late_for_the_scorers_is_left_out(commented: Played) -> None:
    rows = laid(commented.trajectory)
    late = rows.feedback[0][0] | {"feedback_id": "late"}
    found = records.trajectory(replace(rows, feedback=(*rows.feedback, (late, None))))
    assert isinstance(found, Trajectory)
    assert [item.feedback_id for item in found.feedback] == [commented.feedback[0].feedback_id]


def test_a_reward_is_the_same_again(commented: Played) -> None:
    (row,) = (row.values for row in rows_of(commented.reward, 0, 0, VAULT))
    (told,) = frame(Table.REWARDS, [row]).to_dicts()
    expected = commented.reward.model_copy(update={"trajectory": commented.trajectory, "source": None})
    assert records.reward(told, commented.trajectory) == expected


def test_of_what_was_redacted_the_reply_is_taken_to_be(commented: Played) -> None:
    first, *rest = commented.trajectory.turns
    altered = first.model_copy(update={"is_altered": True})
    found = records.trajectory(laid(commented.trajectory.model_copy(update={"turns": (altered, *rest)})))
    assert isinstance(found, Trajectory)
    assert [turn.is_reply_altered for turn in found.turns] == [True, *(False for _ in rest)]
