"""What a summary kept of what was wanted, by weights worked by hand: used 1, restated 0.5, decision 0.5, task 1."""

from collections.abc import Callable

import pytest
from histories import summary_turn

from ingest.records.events import Trajectory
from rewards.scorers import Scored, Unscored
from rewards.summary.recall import Recall

Make = Callable[..., Trajectory]
TOLD = [
    "Our total budget is 4,200 EUR.", "Noted.",
    "The deposit for the boat is 600 EUR.", "I see.",
    "We leave on May 12.", "All right.",
]  # fmt: skip
OPEN = ["We still need travel insurance.", "Yes.", "We decided on ferries instead of flights.", "Fine."]
USED = ["Does it fit?", "Yes, with a budget of 4,200 EUR it does, and the deposit of 600 EUR is paid."]
RESTATED = ["As I said, the deposit is 600 EUR.", "Then all is well."]


def value(trajectory: Trajectory) -> float:
    outcome = Recall(used=1.0, restated=0.5, decision=0.5, task=1.0).score(trajectory, summary_turn(trajectory))
    assert isinstance(outcome, Scored)
    return outcome.value


@pytest.mark.parametrize(
    ("before", "after", "summary", "expected"),
    [
        (TOLD, USED, "The budget is 4,200 EUR. The boat's deposit is 600 EUR.", 1.0),
        (TOLD, USED, "The budget is 4,200 EUR. They leave on May 12.", 1 / 2),  # May 12 was not used
        (TOLD, USED, "The budget is 600 EUR. The boat's deposit is 4,200 EUR.", 0.0),
        (TOLD, USED, "Keep in mind:\n4,200 EUR\n600 EUR", 0.0),  # bound to nothing
        (TOLD, [*USED[:1], "With a budget of 4,200 EUR, yes.", *RESTATED], "The budget is 4,200 EUR.", 1 / 1.5),
        ([*TOLD, *OPEN], USED, "The budget is 4,200 EUR. Travel insurance is open.", 2 / 3.5),
        ([*TOLD, *OPEN], USED, "It was ferries instead of flights. The deposit is 600 EUR.", 1.5 / 3.5),
        (OPEN, [], "Travel insurance is open; ferries and no flights. That is all there is.", 1.0),
    ],
)
def test_the_share_of_what_was_wanted_is_by_weight(
    session: Make, before: list[str], after: list[str], summary: str, expected: float
) -> None:
    assert value(session(before, summary, after)) == pytest.approx(expected)


def test_a_tool_call_uses_what_it_is_given(session: Make) -> None:
    call = 'assistant: <tool_call>\n{"name": "pay", "arguments": {"deposit": "600 EUR"}}\n</tool_call>'
    after = ["Pay it.", call]
    assert value(session(TOLD, "The total budget is 4,200 EUR in all.", after)) == 0.0
    assert value(session(TOLD, "The boat has a deposit of 600 EUR.", after)) == 1.0


def test_a_history_of_which_nothing_was_wanted_has_no_score(session: Make) -> None:
    trajectory = session(["How are you?", "I am well."], "They greeted each other in a friendly way.", ["Good."])
    assert isinstance(Recall().score(trajectory, summary_turn(trajectory)), Unscored)
