from collections.abc import Callable
from typing import Any

import pytest

from ingest.records.events import ChatMessage, Reward, Trajectory
from trainer.setups import Setup, digest, setups

SQL = ChatMessage(role="system", text="Write SQL.")
SEARCH = '[{"type": "function", "function": {"name": "search", "description": "of 2026"}}]'


@pytest.fixture
def session(reward_of: Callable[..., Reward]) -> Callable[..., Trajectory]:
    """A session whose turns have these fields."""

    def make(*turns: dict[str, Any]) -> Trajectory:
        made = reward_of("s", [1.0] * len(turns), turn_changes=dict(enumerate(turns))).trajectory
        assert made is not None
        return made

    return make


def of(trajectory: Trajectory) -> list[Setup]:
    found = setups(trajectory)
    return [found[turn.trace_id] for turn in trajectory.turns]


def test_a_turn_that_goes_on_from_another_has_its_task_and_its_tools(session: Callable[..., Trajectory]) -> None:
    first, second, third = (turn.trace_id for turn in session({}, {}, {}).turns)
    said = (ChatMessage(role="user", text="go on"),)
    found = of(
        session(
            {"messages": (SQL, *said), "tools": SEARCH},
            {"messages": said, "parent": first},
            {"messages": said, "parent": second, "tools": '[{"name": "run"}]'},
        )
    )
    assert found[0] == found[1] == Setup(digest("Write SQL."), digest("search"))
    assert found[2] == Setup(found[0].task, digest("run")), third


def test_the_order_in_which_turns_stand_does_not_matter(session: Callable[..., Trajectory]) -> None:
    first, second = (turn.trace_id for turn in session({}, {}).turns)
    assert of(session({"parent": second}, {"messages": (SQL,)}))[0] == Setup(digest("Write SQL."))
    assert of(session({"parent": second}, {"parent": first})) == [Setup(), Setup()], "nor do turns of a circle hang"


def test_a_date_or_another_description_of_a_tool_makes_no_other_setup(session: Callable[..., Trajectory]) -> None:
    dated = [ChatMessage(role="system", text=f"Today is {day}.") for day in ("2026-11-26", "2026-12-01")]
    other = '[{"function": {"name": "search", "description": "of late"}, "type": "function"}]'
    one, two = of(session({"messages": dated[:1], "tools": SEARCH}, {"messages": dated[1:], "tools": other}))
    assert one == two


def test_what_users_say_is_no_task_and_tools_of_another_form_stand_for_themselves(
    session: Callable[..., Trajectory],
) -> None:
    user = ChatMessage(role="user", text="Write SQL.")
    assert of(session({"messages": (user,)})) == [Setup()]
    for told in ("{", '{"search": 1}', '["search"]'):
        assert of(session({"tools": told})) == [Setup("", digest(told))]
    assert of(session({"tools": "[]"})) == [Setup()]
