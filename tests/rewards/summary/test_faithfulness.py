"""Whether a summary's claims are the history's, by costs worked by hand: wrong 6, invented 2, unsupported 1."""

from collections.abc import Callable

import pytest
from histories import summary_turn

from ingest.records.events import Trajectory
from rewards.scorers import Scored
from rewards.summary.faithfulness import Faithfulness

Make = Callable[..., Trajectory]
TOLD = [
    "Our total budget is 4,200 EUR.", "Noted.",
    "The deposit for the boat is 600 EUR.", "I see.",
    "We leave on May 12.", "All right.",
]  # fmt: skip
TASK = ["We still need travel insurance.", "I look for it later."]


def value(trajectory: Trajectory) -> float:
    scorer = Faithfulness(wrong=6.0, invented=2.0, unsupported=1.0)
    outcome = scorer.score(trajectory, summary_turn(trajectory))
    assert isinstance(outcome, Scored)
    return outcome.value


@pytest.mark.parametrize(
    ("summary", "expected"),
    [
        ("The budget is 4,200 EUR. The boat's deposit is 600 EUR.", 1.0),
        ("The budget is 4,200 EUR. The boat's deposit is 750 EUR.", 1 / (1 + 6)),
        ("The budget is 600 EUR. The boat's deposit is 4,200 EUR.", 0.0),  # each the other's
        ("The budget is 4,200 EUR. The ferry costs 80 EUR.", 1 / (1 + 2)),
        ("The budget is 4,200 EUR. They can spend 600 EUR.", 1 / (1 + 0.5)),  # the value is there, in other words
        ("The budget is 4,200 EUR. Wonderful careful outstanding effort.", 1 / (1 + 1)),
        ("4,200 EUR\n600 EUR", 0.0),
        ("The conversation went on.", 1.0),
    ],
)
def test_a_claim_costs_what_the_history_says_of_it(session: Make, summary: str, expected: float) -> None:
    assert value(session(TOLD, summary)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("summary", "expected"),
    [
        ("The budget is 4,200 EUR. Travel insurance is missing.", 1.0),
        ("The budget is 4,200 EUR.", 1 / (1 + 6)),  # says nothing of what is open, so says that nothing is
        ("The budget is 4,200 EUR. Everything is finished.", 1 / (1 + 6)),
        ("The conversation went on.", 1.0),
    ],
)
def test_hiding_that_something_is_open_is_a_wrong_claim(session: Make, summary: str, expected: float) -> None:
    assert value(session([*TOLD, *TASK], summary)) == pytest.approx(expected)


def test_keywords_support_nothing(session: Make) -> None:
    keywords = "Keywords: budget, deposit, boat, total, May 12, 600 EUR, leave, 4,200 EUR, travel, trip, train"
    assert value(session(TOLD, keywords)) == 0.0


def test_what_the_system_prompt_says_is_no_invention(session: Make) -> None:
    """The session's system prompt says: You help."""
    assert value(session(TOLD, "The budget is 4,200 EUR, and the role is to help.")) == 1.0
