"""What of an anchor is asked again, and what never is."""

from dataclasses import replace
from typing import Any

import pytest
from replayed import hold_out, trace, trajectory, turn

from ingest.log import reader, topics
from ingest.log.memory import InMemoryLog
from ingest.records.events import ChatMessage, Consent, Source, ToolCall, Trajectory, TurnKind, session_key
from ingest.sessions.resettable import resettable
from serving.rollout.lane import anchors
from serving.rollout.lane.picking import Anchor

CALLED = ToolCall(name="read", arguments="{}")


def a_log() -> InMemoryLog:
    log = InMemoryLog()
    log.create(topics.specs(partitions=1, retention_s=1e9))
    return log


def asked(
    request: dict[str, Any] | None = None, of_turn: dict[str, Any] | None = None, **of_session: Any
) -> anchors.Asked | None:
    """What is read of a session of one turn, which lies on a log."""
    log = a_log()
    whole = trace("s")
    whole = whole.model_copy(update={"request": whole.request | (request or {})})
    receipt = reader.send(log, topics.TRACES, session_key("s"), whole)
    given = {"held_out": False, "consent": Consent.GIVEN} | of_session
    made = trajectory("s", turn(whole, **{"offset": receipt.offset, **(of_turn or {})}), **given)
    placed = reader.send(log, topics.TRAJECTORIES, session_key("s"), made)
    source = Source(partition=placed.partition, offset=placed.offset)
    anchor = Anchor(whole.trace_id, source, 0, {"brevity": 0.5}, "x@1", 0.25, "user u", 0.0)
    return anchors.read(log, anchor, "m")


def test_a_request_is_read_as_it_was_made_but_whole_once_and_without_its_seed() -> None:
    found = asked({"seed": 7, "temperature": 0.3})
    assert found is not None
    said = [{"role": "user", "content": "s asks 0"}]
    assert found.body == {"messages": said, "max_tokens": 100, "top_p": 0.5, "temperature": 0.3, "model": "m"}
    assert (found.path, found.parent) == ("/v1/chat/completions", "s")
    assert (found.prompt.user, found.prompt.consent) == ("u-s", Consent.GIVEN)


@pytest.mark.parametrize(
    "of_turn",
    [
        {"is_altered": True},
        {"status": 500},
        {"kind": TurnKind.SIDE},
        {"tools": "[{}]"},
        {"tool_calls": (CALLED,)},
        {"messages": (ChatMessage(role="assistant", text="", tool_calls=(CALLED,)),)},
        {"offset": None},
    ],
)
def test_a_turn_that_is_no_plain_answer_is_not_asked_again(of_turn: dict[str, Any]) -> None:
    assert asked({}, of_turn) is None


@pytest.mark.parametrize("request_", [{"temperature": 0}, {"tools": [{}]}, {"functions": [{}]}])
def test_a_request_for_no_chance_or_for_tools_is_not_made_again(request_: dict[str, Any]) -> None:
    assert asked(request_) is None


def test_a_later_turn_is_asked_with_all_that_was_said_before_it_though_its_trace_holds_the_rest_alone() -> None:
    log = a_log()
    whole = hold_out(log, "later", num_turns=5, held_out=False)
    (made,) = reader.replay(log, topics.TRAJECTORIES, Trajectory)
    turn = resettable(made)
    assert turn is not None
    number = [one.trace_id for one in whole].index(turn.trace_id)
    assert number > 0
    anchor = Anchor(turn.trace_id, Source(partition=0, offset=0), 0, {"brevity": 0.5}, "x@1", 0.25, "user u", 0.0)
    found = anchors.read(log, anchor, "m")
    assert found is not None and found.body["messages"] == whole[number].request["messages"]
    assert len(found.body["messages"]) == number + 1
    others = [replace(anchor, trace_id=one.trace_id) for one in whole if one.trace_id != turn.trace_id]
    assert [anchors.read(log, other, "m") for other in others] == [None] * 4


def test_a_session_that_is_held_out_by_now_is_not_asked_again() -> None:
    assert asked(held_out=True) is None


def test_what_the_log_keeps_no_longer_is_not_asked_again() -> None:
    log = a_log()
    gone = Anchor("k-0", Source(partition=0, offset=7), 0, {}, "x@1", 0.25, "user u", 0.0)
    assert anchors.read(log, gone, "m") is None


def test_an_answer_is_the_anchors_users_and_names_its_session_or_that_whose_agent_began_it() -> None:
    found = asked(parent_session_id="above")
    assert found is not None and found.parent == "above"
    anchor = Anchor("k-0", Source(partition=0, offset=0), 0, {"brevity": 0.5}, "x@1", 0.25, "user u", 0.0)
    made = anchors.identity(found, anchor, "replay-1", 4)
    assert (made.user, made.tenant, made.consent, made.parent_session_id) == ("u-s", "acme", Consent.GIVEN, "above")
    group = made.assignment.group
    assert group is not None and (group.size, group.propensity, group.anchor) == (4, 0.25, {"brevity": 0.5})
