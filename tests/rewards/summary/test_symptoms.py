"""What shows after the cut, by weights worked by hand: repeated 0.3, restated 0.3, asked 0.2, contradicted 0.4."""

from collections.abc import Callable

import pytest
from histories import summary_turn

from ingest.records.events import Trajectory
from rewards.scorers import Scored, Unscored
from rewards.summary.symptoms import Symptoms

Make = Callable[..., Trajectory]
SUMMARY = "They plan a boat trip and talked about several things on the way."
READ = 'assistant: <tool_call>\n{"name": "read", "arguments": {"path": "a.toml", "all": true}}\n</tool_call>'
SAME = 'assistant: I look. <tool_call>{"name": "read", "arguments": {"all": true, "path": "a.toml"}}</tool_call>'
OTHER = SAME.replace("a.toml", "b.toml")
TOLD = ["The deposit for the boat is 600 EUR.", "Noted."]


def value(trajectory: Trajectory) -> float:
    scorer = Symptoms(repeated=0.3, restated=0.3, asked=0.2, contradicted=0.4)
    outcome = scorer.score(trajectory, summary_turn(trajectory))
    assert isinstance(outcome, Scored)
    return outcome.value


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (["Look.", READ, "tool: port = 1"], ["Go on.", SAME, "tool: port = 1", "assistant: It is 1."], 0.7),
        (["Look.", READ, "tool: port = 1"], ["Go on.", SAME, "tool: port = 2", "assistant: It is 2."], 1.0),  # new
        (["Look.", READ, "tool: port = 1"], ["Go on.", OTHER, "tool: port = 1", "assistant: It is 1."], 1.0),
        (["Look.", READ, "tool: port = 1", READ, "tool: port = 1"],
         ["Go on.", SAME, "tool: port = 1", "assistant: It is 1."], 1.0),  # a habit
    ],
)  # fmt: skip
def test_a_call_made_again_for_the_same_is_a_symptom(
    session: Make, before: list[str], after: list[str], expected: float
) -> None:
    assert value(session([*before, "assistant: I see."], SUMMARY, after)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (["Pay it.", "Could you remind me of that?", "The boat's deposit is 600 EUR.", "I paid."], 0.5),
        (["Pay it.", "I paid.", "As I said, be quick.", "Yes."], 0.7),
        (["Pay it.", "I paid.", "Was the deposit 600 EUR?", "Yes."], 1.0),  # a question says nothing again
        (["Pay it.", "I paid the boat's deposit of 600 EUR."], 1.0),
        (["Pay it.", "I paid the boat's deposit of 800 EUR."], 0.6),
        (["The deposit for the boat is 800 EUR now.", "I paid the boat's deposit of 800 EUR."], 1.0),  # it was changed
    ],
)
def test_what_was_said_need_not_be_said_again(session: Make, after: list[str], expected: float) -> None:
    assert value(session(TOLD, SUMMARY, after)) == pytest.approx(expected)


def test_a_session_cannot_have_less_than_nothing(session: Make) -> None:
    after = ["As I said, go.", "Could you remind me of that?"] * 4
    assert value(session(TOLD, SUMMARY, after)) == 0.0


def test_where_nothing_came_after_there_is_no_score(session: Make) -> None:
    trajectory = session(TOLD, SUMMARY)
    assert isinstance(Symptoms().score(trajectory, summary_turn(trajectory)), Unscored)
