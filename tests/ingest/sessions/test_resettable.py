"""Which turn of a session can be asked again."""

from collections import Counter
from typing import Any

import pytest
from replayed import trace, trajectory, turn

from ingest.records.events import Assignment, ChatMessage, ToolCall, Trajectory, Turn, TurnKind
from ingest.sessions.resettable import resettable

CALLED = ToolCall(name="read", arguments="{}")


def session(*changes: dict[str, Any], name: str = "s", **fields: Any) -> Trajectory:
    """Of as many turns, each with these changes."""
    return trajectory(name, *turns(*changes, name=name), **({"held_out": False} | fields))


def turns(*changes: dict[str, Any], name: str = "s") -> list[Turn]:
    return [turn(trace(name, number), **more) for number, more in enumerate(changes)]


@pytest.mark.parametrize(
    "change",
    [
        {"tools": "[{}]"},
        {"tool_calls": (CALLED,)},
        {"messages": (ChatMessage(role="assistant", text="", tool_calls=(CALLED,)),)},
        {"messages": (ChatMessage(role="tool", text="done", call_id="c"),)},
        {"kind": TurnKind.SIDE, "tools": "[{}]"},
    ],
)
def test_a_session_with_tools_in_any_turn_is_set_back_to_none(change: dict[str, Any]) -> None:
    assert resettable(session({}, {}, {})) is not None
    for place in range(3):
        changes: list[dict[str, Any]] = [{}, {}, {}]
        changes[place] = change
        assert resettable(session(*changes)) is None


@pytest.mark.parametrize("change", [{"is_altered": True}, {"status": 500}, {"kind": TurnKind.SUMMARY}])
def test_a_turn_that_was_redacted_failed_or_is_no_answer_is_passed_over_for_another(change: dict[str, Any]) -> None:
    for plain in range(3):
        found = resettable(session(*({} if place == plain else change for place in range(3))))
        assert found is not None and found.trace_id == trace("s", plain).trace_id
    assert resettable(session(change, change)) is None


@pytest.mark.parametrize("fields", [{"held_out": True}, {"assignment": Assignment(trial=1, replay_of="k-9")}])
def test_of_a_held_out_session_and_of_a_replay_no_turn_is_asked_again(fields: dict[str, Any]) -> None:
    assert resettable(session({}, {}, **fields)) is None


def test_every_turn_of_a_session_is_as_likely_and_a_later_revision_says_the_same() -> None:
    found: Counter[int] = Counter()
    for number in range(600):
        own, again = (resettable(session({}, {}, {}, name=f"s{number}", revision=rev)) for rev in (1, 2))
        assert own is not None and own == again
        found[int(own.trace_id.rsplit("-", 1)[1])] += 1
    assert all(150 < found[place] < 250 for place in range(3))
