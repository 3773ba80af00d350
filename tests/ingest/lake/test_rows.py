"""Records as rows: nothing is lost, and what people and models wrote stands in one sealed column."""

import json
import random
from typing import Any

import agent_sessions
from hypothesis import given, settings
from hypothesis import strategies as st
from lake_traffic import Traffic

from ingest.lake.content import NoSeal, Vault
from ingest.lake.manifest import Table
from ingest.lake.rows import feedback_row, reward_row, rows_of, turn_rows
from ingest.lake.schema import SCHEMAS, frame
from ingest.records.events import (
    Arm,
    Assignment,
    ChatMessage,
    Component,
    Fate,
    FateKind,
    Feedback,
    Record,
    ToolCall,
    Trajectory,
)
from ingest.sessions.chains import whole

VAULT = Vault(NoSeal())


def rows(record: Record) -> dict[Table, list[dict[str, Any]]]:
    found: dict[Table, list[dict[str, Any]]] = {}
    for row in rows_of(record, 2, 7, VAULT):
        found.setdefault(row.table, []).append(row.values)
    return found


def opened(row: dict[str, Any]) -> Any:
    return VAULT.get(row["subject"], row["key_generation"], row["content"])


def chains_again(trajectory: Trajectory) -> list[tuple[int, ...]]:
    """The tokens of every chain, from the rows alone."""
    held = rows(trajectory)
    told = json.loads(held[Table.SESSIONS][0]["chains"])
    found: list[tuple[int, ...]] = []
    for number, chain in enumerate(told):
        tokens = found[chain["base"]][: chain["shared"]] if "base" in chain else ()
        own = [row for row in held[Table.TURNS] if row["chain"] == number]
        for row in sorted(own, key=lambda row: (row["chain_start"], row["number"])):
            content = opened(row)
            tokens = tokens[: row["chain_start"]] + content.context_ids + content.reply_ids
        found.append(tokens)
    return found


@settings(max_examples=60)
@given(st.integers(0, 2**31), st.integers(1, 12))
def test_chains_can_be_put_together_again_from_the_rows(seed: int, length: int) -> None:
    (trajectory,) = agent_sessions.close([agent_sessions.play(seed, agent_sessions.AGENTIC, length)])
    assert chains_again(trajectory) == [chain.token_ids for chain in whole(trajectory.chains)]


@settings(max_examples=60)
@given(st.integers(0, 2**31), st.integers(1, 12))
def test_a_turn_has_only_the_tokens_that_its_chain_did_not_have_before_it(seed: int, length: int) -> None:
    (trajectory,) = agent_sessions.close([agent_sessions.play(seed, agent_sessions.AGENTIC, length)])
    held = {row["trace_id"]: row for row in rows(trajectory)[Table.TURNS]}
    for chain in trajectory.chains:
        before = chain.shared
        for segment in chain.segments:
            row = held[segment.trace_id]
            content = opened(row)
            assert row["chain_start"] == min(before, segment.start)
            assert len(content.context_ids) == segment.start - row["chain_start"]
            assert len(content.reply_ids) == segment.end - segment.start
            before = segment.end


@settings(max_examples=60)
@given(st.integers(0, 2**31), st.integers(1, 12))
def test_a_turn_has_its_own_texts_logprobs_and_spans(seed: int, length: int) -> None:
    (trajectory,) = agent_sessions.close([agent_sessions.play(seed, agent_sessions.AGENTIC, length)])
    segments = {segment.trace_id: segment for chain in trajectory.chains for segment in chain.segments}
    for turn, row in zip(trajectory.turns, rows(trajectory)[Table.TURNS], strict=True):
        content = opened(row)
        assert (row["trace_id"], row["parent"], content.text["reply"]) == (turn.trace_id, turn.parent, turn.reply)
        assert [message["text"] for message in content.text["messages"]] == [m.text for m in turn.messages]
        segment = segments.get(turn.trace_id)
        assert content.logprobs == (segment.logprobs if segment else ())
        assert row["span_ends"] == ([span.end for span in segment.spans] if segment else [])


def test_every_column_of_every_table_is_given_and_no_other() -> None:
    played = next(session for session in Traffic().sessions(50) if session.feedback)
    records = [played.trajectory, played.reward, *played.fates, *played.feedback, Traffic().release()]
    seen = {table: values for record in records for table, values in rows(record).items()}
    assert set(seen) == set(Table)
    for table, values in seen.items():
        assert all(sorted(row) == sorted(SCHEMAS[table]) for row in values), table
        assert dict(frame(table, values).schema) == dict(SCHEMAS[table])
        assert {(row["partition"], row["offset"]) for row in values} == {(2, 7)}


def marked(played: Any) -> list[Record]:
    """Records in which everything that anyone wrote has a mark."""
    calls = (agent_call("Zyx"),)
    turn = played.trajectory.turns[0].model_copy(
        update={
            "messages": (ChatMessage(role="user", text="Zyx", tool_calls=calls),), "context": "Zyx", "reply": "Zyx",
            "followup": "Zyx", "tool_calls": calls, "tools": "[]Zyx",
        }
    )  # fmt: skip
    feedback = Feedback(feedback_id="f", session_id="s", tenant="t", value=1.0, comment="Zyx", at=1.0)
    trajectory = played.trajectory.model_copy(update={"turns": (turn,), "feedback": (feedback,)})
    crash = Component(name="n", scorer="s", trace_id="t", value=None, unscored="crashed: KeyError: 'Zyx'")
    return [
        trajectory,
        feedback,
        played.reward.model_copy(update={"source": None, "trajectory": trajectory, "components": (crash,)}),
    ]


def agent_call(text: str) -> Any:
    return ToolCall(name=text, arguments=json.dumps({"a": text}), call_id=text)


def test_what_anyone_wrote_stands_in_the_sealed_column_and_nowhere_else() -> None:
    (played,) = Traffic().sessions(1)
    for record in marked(played):
        for table, values in rows(record).items():
            for row in values:
                plain = {name: value for name, value in row.items() if name != "content"}
                assert "zyx" not in repr(plain).casefold(), (table, plain)
                if table in (Table.TURNS, Table.FEEDBACK):
                    assert "Zyx" in repr(opened(row))


def test_a_replay_says_so_in_its_sessions_row_and_in_its_turns() -> None:
    own = next(Traffic().sessions(1)).trajectory
    given = Assignment(arm=Arm.CANDIDATE, trial=1, propensity=0.5, replay_of="k-0")
    held = rows(own.model_copy(update={"assignment": given}))
    assert {row["replay_of"] for table in (Table.SESSIONS, Table.TURNS) for row in held[table]} == {"k-0"}
    assert {row["replay_of"] for row in rows(own)[Table.TURNS]} == {None}


def test_the_subject_is_what_the_message_said() -> None:
    (played,) = Traffic().sessions(1)
    assert {row["subject"] for row in turn_rows(played.trajectory, VAULT, "user-a/1 user-b/1")} == {"user-a/1 user-b/1"}
    said = Feedback(feedback_id="f", session_id="s", tenant="t", value=1.0, comment="x", at=1.0)
    assert feedback_row(said, VAULT, "session-x/1")["subject"] == "session-x/1"


def test_a_fate_of_several_traces_is_a_row_each() -> None:
    fate = Fate(trace_ids=("a-1", "a-2"), kind=FateKind.EXPIRED, reason="old", at=1.0)
    assert [row["trace_id"] for row in rows(fate)[Table.FATES]] == ["a-1", "a-2"]


def test_feedback_without_a_comment_has_no_content() -> None:
    feedback = Feedback(feedback_id="f", trace_id="0123456789abcdef-1", tenant="t", value=-1.0, at=1.0)
    (row,) = rows(feedback)[Table.FEEDBACK]
    assert (row["content"], row["subject"], row["session_key"]) == (None, None, "0123456789abcdef")


def test_of_a_trajectory_that_a_reward_holds_nothing_is_taken() -> None:
    (played,) = Traffic(tenants=1).sessions(1)
    row = reward_row(played.reward)
    old = played.reward.model_copy(update={"source": None, "trajectory": played.trajectory})
    assert reward_row(old) == row
    assert row["tenant"] == "tenant-0"
    assert [turn["trace_id"] for turn in row["turns"]] == [turn.trace_id for turn in played.trajectory.turns]


def test_a_turn_beside_the_conversation_has_its_versions_and_no_tokens() -> None:
    session = agent_sessions.Session(random.Random(1), "s")
    session.begin()
    session.side()
    (trajectory,) = agent_sessions.close([session])
    side = list(turn_rows(trajectory, VAULT, ""))[-1]
    assert (side["kind"], side["chain"], side["chain_start"]) == ("side", None, None)
    assert side["versions"] == list(trajectory.turns[-1].versions)
    assert opened(side).reply_ids == ()


def test_a_time_keeps_its_microseconds() -> None:
    (played,) = Traffic(begin=1_764_091_200.123456).sessions(1)
    given = frame(Table.REWARDS, rows(played.reward)[Table.REWARDS])
    assert given["at"].dt.timestamp("us")[0] == round(played.reward.at * 1e6)


def test_a_sessions_row_says_in_which_block_it_began() -> None:
    own = next(Traffic().sessions(1)).trajectory
    given = Assignment(arm=Arm.CANDIDATE, trial=1, propensity=0.5, block=12)
    (row,) = rows(own.model_copy(update={"assignment": given}))[Table.SESSIONS]
    assert (row["block"], rows(own)[Table.SESSIONS][0]["block"]) == (12, None)
