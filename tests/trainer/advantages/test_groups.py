"""Advantages within groups: hand-worked numbers, what is no group, and how groups stand beside single turns."""

from collections.abc import Sequence
from math import sqrt

import pytest

from ingest.records.events import Group, Part
from trainer.advantages.groups import (
    Grouped,
    Shape,
    group_advantages,
    grouped,
    importances,
    in_groups,
)


def parts(**values: float) -> tuple[Part, ...]:
    return tuple(Part(name=name, weight=1.0, value=value) for name, value in values.items())


def group(first: int, rewards: Sequence[float], propensity: float = 0.1, **anchor: float) -> Grouped:
    """Members `first` and on, of one part."""
    turns = tuple(range(first, first + len(rewards)))
    return Grouped(turns, tuple(parts(brevity=reward) for reward in rewards), anchor, propensity)


def test_a_member_is_measured_against_the_mean_of_the_others() -> None:
    assert group_advantages([1.0, 0.0, 0.0], [1.0, 1.0, 1.0]) == pytest.approx([1.0, -0.5, -0.5])


def test_an_anchor_counts_by_its_weight_in_what_the_others_are_measured_against() -> None:
    # 1 - (1 + 0) / 2, 1 - (2 * 1 + 0) / 3, 0 - (2 * 1 + 1) / 3
    assert group_advantages([1.0, 1.0, 0.0], [2.0, 1.0, 1.0]) == pytest.approx([0.5, 1 / 3, -1.0])


def test_equal_weights_leave_what_is_above_the_mean_times_n_over_n_minus_1() -> None:
    rewards = [0.2, 0.9, 0.4, 0.5]
    expected = [(reward - 0.5) * 4 / 3 for reward in rewards]
    assert group_advantages(rewards, [0.3] * 4) == pytest.approx(expected)


@pytest.mark.parametrize("reward", [0.0, 0.1 + 0.2, 1.0])
def test_a_group_of_equal_rewards_is_exactly_zero(reward: float) -> None:
    assert group_advantages([reward] * 3, [0.7, 0.1, 0.2]) == [0.0] * 3


def test_rewards_that_differ_by_rounding_are_equal() -> None:
    assert group_advantages([0.1 + 0.2, 0.3], [1.0, 1.0]) == [0.0, 0.0]


def test_a_group_of_one_is_refused_and_never_its_raw_reward_or_zero() -> None:
    with pytest.raises(ValueError, match="two members or more, got 1"):
        group_advantages([1.0], [1.0])
    with pytest.raises(ValueError, match="two members or more, got 1"):
        group(0, [1.0])


def test_importance_is_one_over_the_propensity_over_its_mean() -> None:
    # 10, 10, 20 ; mean 40 / 3
    assert importances([0.1, 0.1, 0.05]) == pytest.approx([0.75, 0.75, 1.5])
    assert importances([]) == []


def test_importance_is_truncated() -> None:
    # nine of 1 and one of 100: mean 10.9, so 43.6 is the most, and 52.6 what is left of all
    assert importances([1.0] * 9 + [0.01]) == pytest.approx([10 / 52.6] * 9 + [436 / 52.6])


def test_groups_that_differ_have_mean_square_one_as_single_turns_have() -> None:
    # others' means 0, 1/3, 1/3, 1/3 ; 1, -1/3, -1/3, -1/3 ; mean square 1/3
    found = in_groups([group(0, [1.0, 0.0, 0.0, 0.0])], 0)
    assert list(found.values.values()) == pytest.approx([sqrt(3), *[-1 / sqrt(3)] * 3], abs=1e-4)


def test_a_group_whose_members_are_alike_gives_zeros_is_counted_and_changes_no_other() -> None:
    differing = group(0, [1.0, 0.0])
    alone, both = in_groups([differing], 0), in_groups([differing, group(2, [0.4, 0.4, 0.4])], 0)
    assert [both.values[number] for number in (2, 3, 4)] == [0.0] * 3
    assert {n: both.values[n] for n in (0, 1)} == pytest.approx(dict(alone.values))
    assert both.shapes == {Shape.COMPARED: 1, Shape.ALIKE: 1, Shape.ALONE: 0}


def test_members_alike_but_unlike_their_anchor_learn_from_it() -> None:
    found = in_groups([group(0, [0.0, 0.0], brevity=1.0), group(2, [1.0, 1.0], brevity=0.0)], 0)
    # against the anchor and the other: 0 - 1/2 each, and 1 - 1/2
    assert list(found.values.values()) == pytest.approx([-1.0, -1.0, 1.0, 1.0], abs=1e-4)


def test_a_group_that_was_unlikely_to_be_drawn_counts_for_more_and_its_anchor_too() -> None:
    found = in_groups([group(0, [1.0, 0.0], 0.1, brevity=1.0), group(2, [1.0, 0.0], 0.05, brevity=1.0)], 0)
    assert dict(found.importance) == pytest.approx({0: 2 / 3, 1: 2 / 3, 2: 4 / 3, 3: 4 / 3})
    # member 0: 1 - (0 + w) / (1 + w), with w 2/3 and 4/3 ; member 1: 0 - 1
    raw = [1 - (2 / 3) / (5 / 3), -1.0, 1 - (4 / 3) / (7 / 3), -1.0]
    square = (2 / 3 * (raw[0] ** 2 + 1) + 4 / 3 * (raw[2] ** 2 + 1)) / 4
    assert list(found.values.values()) == pytest.approx([x / sqrt(square) for x in raw], abs=1e-4)


def test_a_part_of_small_spread_counts_as_much_as_one_of_large() -> None:
    members = (parts(brevity=1.0, tone=0.50), parts(brevity=0.0, tone=0.51))
    found = in_groups([Grouped((0, 1), members, {}, 0.1)], 0)
    assert list(found.values.values()) == pytest.approx([0.0, 0.0], abs=1e-3)


def test_a_part_that_one_member_alone_has_says_nothing() -> None:
    members = (parts(brevity=1.0), parts(brevity=0.0, tone=0.9))
    found = in_groups([Grouped((0, 1), members, {}, 0.1)], 0)
    assert list(found.values.values()) == pytest.approx([1.0, -1.0], abs=1e-3)


ASKED = Group(size=4, propensity=0.1, anchor={"brevity": 0.5}, spec="s@1")


def test_what_shares_no_part_with_another_is_no_member() -> None:
    made = grouped(ASKED, [3, 4, 5], [parts(brevity=1.0), parts(tone=1.0), parts(brevity=0.0)], "s@1")
    assert made is not None and made.turns == (3, 5) and made.anchor == {"brevity": 0.5}


def test_one_answer_and_its_anchor_are_no_group() -> None:
    assert grouped(ASKED, [3], [parts(brevity=1.0)], "s@1") is None
    assert grouped(ASKED, [3, 4], [parts(brevity=1.0), parts(tone=1.0)], "s@1") is None
    assert grouped(ASKED, [], [], "s@1") is None


def test_an_anchor_scored_under_another_spec_is_left_out() -> None:
    made = grouped(ASKED, [3, 4], [parts(brevity=1.0), parts(brevity=0.0)], "s@2")
    assert made is not None and made.anchor == {}


def test_no_groups_are_no_advantages() -> None:
    assert dict(in_groups([], 2).values) == {} and in_groups([], 2).shapes[Shape.ALONE] == 2
