"""The length of a summary beside what it replaces, by numbers worked by hand."""

from collections.abc import Callable

import pytest
from histories import summary_turn

from ingest.records.events import Trajectory
from rewards.scorers import Scored, Unscored
from rewards.summary.length import Length, num_copied

Make = Callable[..., Trajectory]


def value(trajectory: Trajectory) -> float:
    outcome = Length(allowance=5).score(trajectory, summary_turn(trajectory))
    assert isinstance(outcome, Scored)
    return outcome.value


def words(number: int, stem: str = "w") -> str:
    return " ".join(f"{stem}{n}" for n in range(number))


@pytest.mark.parametrize(
    ("num_words", "expected"),
    [
        (45, 1.0),  # (45 - 5) / 100 = 0.4: as long as it may be
        (70, 0.5),  # (70 - 5) / 100 = 0.65, half way from 0.4 to 0.9
        (95, 0.0),  # (95 - 5) / 100 = 0.9
        (300, 0.0),
        (4, 1.0),
    ],
)
def test_a_summary_costs_its_share_of_the_source(session: Make, num_words: int, expected: float) -> None:
    trajectory = session([words(60, "a"), words(40, "b")], words(num_words, "s"))
    assert value(trajectory) == pytest.approx(expected)


def test_copied_tokens_cost_twice(session: Make) -> None:
    """35 copied tokens are charged as 70: (70 - 5) / 100 = 0.65."""
    trajectory = session([words(60, "a"), words(40, "b")], words(35, "a"))
    assert value(trajectory) == pytest.approx(0.5)


def test_a_summary_that_copies_its_source_is_worth_nothing(session: Make) -> None:
    before = [words(60, "a"), words(40, "b")]
    trajectory = session(before, "\n".join(before))
    assert Length().score(trajectory, summary_turn(trajectory)) == Scored(0.0)


def test_runs_shorter_than_asked_are_not_copied_and_repeats_are() -> None:
    source = words(30).split()
    assert num_copied(source[:9], source, run=10) == 0
    assert num_copied([*source[:12], "x"], source, run=10) == 12
    assert num_copied(words(12, "s").split() * 2, source, run=10) == 12  # the second time


def test_thinking_is_no_part_of_a_summary(session: Make) -> None:
    trajectory = session([words(60, "a"), words(40, "b")], f"<think>{words(500, 't')}</think>{words(20, 's')}")
    assert value(trajectory) == 1.0


def test_shares_that_leave_no_room_between_them_are_refused() -> None:
    with pytest.raises(ValueError, match="`none` must be above `full`"):
        Length(full=0.5, none=0.5)


def test_without_a_source_there_is_no_score(session: Make) -> None:
    trajectory = session([], words(20, "s"))
    assert isinstance(Length().score(trajectory, summary_turn(trajectory)), Unscored)
