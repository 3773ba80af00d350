import random
from collections.abc import Mapping, Sequence
from math import sqrt
from statistics import fmean, pstdev

import pytest

from infra.config import BaselineConfig
from trainer.advantages.baselines import Baselines, Column, Node
from trainer.advantages.keyed import advantages as advantages_of
from trainer.advantages.keyed import whiten

OWN = BaselineConfig()


def known(values: Mapping[str, float], part: str = "value") -> Baselines:
    """What was seen so often that nothing shrinks it."""
    return Baselines(nodes=tuple(Node((part, key), mean, 1e12) for key, mean in values.items()))


def tops(**means: float) -> Baselines:
    """Parts that are known."""
    return Baselines(nodes=tuple(Node((part,), mean, 1e12) for part, mean in means.items()))


def advantages(
    baselines: Baselines, columns: Sequence[Column], num_turns: int, counts: Sequence[float] | None = None
) -> list[float]:
    return advantages_of(baselines, columns, num_turns, OWN, counts)


def column(part: str, turns: Sequence[int], rewards: Sequence[float], weight: float = 1.0) -> Column:
    """One part of these turns, all with the key `part`."""
    return Column(part, tuple(turns), ((part,),) * len(turns), (weight,) * len(turns), tuple(rewards))


def sole(keys: Sequence[str], rewards: Sequence[float]) -> list[Column]:
    """A batch whose turns have one part, and one key each."""
    paths = tuple(("value", key) for key in keys)
    return [Column("value", tuple(range(len(keys))), paths, (1.0,) * len(keys), tuple(rewards))]


def alone(baselines: Baselines, keys: Sequence[str], rewards: Sequence[float]) -> list[float]:
    """Advantages of a batch whose turns have one part."""
    return advantages(baselines, sole(keys, rewards), len(keys))


def test_a_known_key_is_measured_against_its_baseline_from_before_the_batch() -> None:
    baselines = known({"a": 0.5, "b": 0.0})
    # r - b = 0.5, -0.5, 0.5, -0.5 ; mean 0, std 0.5
    found = alone(baselines, ["a", "a", "b", "b"], [1.0, 0.0, 0.5, -0.5])
    assert found == pytest.approx([1.0, -1.0, 1.0, -1.0], abs=1e-4)


@pytest.mark.parametrize("reward", [1.0, 0.25])
def test_a_group_of_one_is_neither_its_raw_reward_nor_zero(reward: float) -> None:
    keys, rewards = ["alone", "b", "b", "b"], [reward, 0.0, 1.0, 1.0]
    column = sole(keys, rewards)[0]
    advantage = rewards[0] - Baselines().before(column, OWN)["value", "alone"]
    assert advantage != pytest.approx(reward) and advantage != pytest.approx(0.0)
    assert alone(Baselines(), keys, rewards)[0] != pytest.approx(0.0, abs=1e-3)


def test_a_group_of_one_above_the_batch_is_pushed_up_and_one_below_it_down() -> None:
    keys = ["alone", "b", "b", "b"]
    assert alone(Baselines(), keys, [1.0, 0.4, 0.5, 0.6])[0] > 0
    assert alone(Baselines(), keys, [0.0, 0.4, 0.5, 0.6])[0] < 0


def test_whitened_advantages_have_mean_zero_and_deviation_one() -> None:
    # mean 2, population std sqrt(2/3)
    assert whiten([1.0, 2.0, 3.0]) == pytest.approx([-1.2247, 0.0, 1.2247], abs=1e-3)


def test_a_batch_without_variance_gives_zeros() -> None:
    assert alone(known({"a": 0.3}), ["a", "a", "a"], [0.7, 0.7, 0.7]) == [0.0] * 3
    same = [column("thumb", range(3), [0.7] * 3), column("recall", [0, 2], [0.1] * 2)]
    assert advantages(Baselines(), same, 3) == [0.0] * 3


def test_rounding_errors_are_not_whitened_into_advantages() -> None:
    rewards = [0.1 + 0.2, 0.3, 0.3]
    assert rewards[0] != rewards[1]
    assert alone(known({"a": 0.3}), ["a", "a", "a"], rewards) == [0.0] * 3


def test_parts_that_cancel_leave_nothing_for_rounding_to_grow_from() -> None:
    one = [0.1, 0.7, 0.4]
    both = [column("thumb", range(3), one, weight=0.3), column("brevity", range(3), [1 - r for r in one], weight=0.3)]
    assert advantages(Baselines(), both, 3) == [0.0] * 3


def test_an_empty_batch_has_no_advantages() -> None:
    assert advantages(Baselines(), [], 0) == []


def test_a_turn_that_is_the_whole_batch_is_zero_where_its_parts_are_new() -> None:
    assert advantages(Baselines(), [column("thumb", [0], [1.0]), column("recall", [0], [0.2])], 1) == [0.0]


@pytest.mark.parametrize(("reward", "advantage"), [(1.0, 1 / sqrt(0.21) * 0.3), (0.0, -0.7 / sqrt(0.21)), (0.7, 0.0)])
def test_a_turn_that_is_the_whole_batch_is_measured_by_what_its_key_earned_before(
    reward: float, advantage: float
) -> None:
    # b = .7: the deviation is sqrt(.7 * .3), whatever the part's weight
    for weight in (1.0, 0.25):
        found = advantages(tops(thumb=0.7), [column("thumb", [0], [reward], weight)], 1)
        assert found == pytest.approx([advantage])


def test_parts_of_a_lone_turn_are_averaged_by_their_weights() -> None:
    # (1 - .5) / .5 = 1 and (.5 - .8) / .4 = -.75: (1 + .5 * -.75) / 1.5
    expected = tops(thumb=0.5, tone=0.8)
    found = advantages(expected, [column("thumb", [0], [1.0]), column("tone", [0], [0.5], weight=0.5)], 1)
    assert found == pytest.approx([(1.0 - 0.375) / 1.5])


def test_what_was_always_alike_makes_no_lone_turn_pull_more_than_four_deviations() -> None:
    assert advantages(tops(thumb=1.0), [column("thumb", [0], [0.0])], 1) == pytest.approx([-4.0])


def test_turns_of_one_trajectory_are_not_measured_against_each_other_alone() -> None:
    of_one = [column("thumb", range(3), [1.0, 1.0, 1.0])]
    assert advantages_of(tops(thumb=0.5), of_one, 3, OWN, None, [7, 7, 7]) == pytest.approx([1.0] * 3)
    of_two = [column("thumb", range(3), [1.0, 1.0, 0.0])]
    found = advantages_of(tops(thumb=0.5), of_two, 3, OWN, None, [7, 7, 8])
    assert found == pytest.approx(whiten([0.5, 0.5, -0.5]), abs=1e-4)


def test_a_known_part_that_one_turn_alone_has_is_measured_by_what_it_earned_before() -> None:
    # thumb whitens to 1, -1, 1, -1 ; recall (1 - .5) / .5 = 1 for the third ; sums 1, -1, 2, -1
    columns = [column("thumb", range(4), [1.0, 0.0, 1.0, 0.0]), column("recall", [2], [1.0])]
    found = advantages(tops(thumb=0.5, recall=0.5), columns, 4)
    assert found == pytest.approx(whiten([1.0, -1.0, 2.0, -1.0]), abs=1e-4)


def test_with_one_part_a_turn_is_its_surprise_whitened_once_whatever_the_weight() -> None:
    rng = random.Random(1)
    rewards = [rng.random() for _ in range(20)]
    surprises = [reward - 0.4 for reward in rewards]
    expected = [(x - fmean(surprises)) / pstdev(surprises) for x in surprises]
    for weight in (1.0, 0.25):
        found = advantages(tops(thumb=0.4), [column("thumb", range(20), rewards, weight)], 20)
        assert found == pytest.approx(expected, abs=1e-4)


def test_a_part_of_small_spread_counts_as_much_as_its_weight_says() -> None:
    # thumb - 0.5 whitens to 1, -1, 1, -1 and tone - 0.505 to 1, 1, -1, -1 though it moves by a hundredth as much
    expected = tops(thumb=0.5, tone=0.505)
    thumb, tone = (1.0, 0.0, 1.0, 0.0), (0.51, 0.51, 0.50, 0.50)
    # sums 2, 0, 0, -2 ; std sqrt(2)
    equal = advantages(expected, [column("thumb", range(4), thumb), column("tone", range(4), tone)], 4)
    assert equal == pytest.approx([sqrt(2), 0.0, 0.0, -sqrt(2)], abs=1e-3)
    # sums 1.5, -0.5, 0.5, -1.5 ; std sqrt(5 / 4)
    half = advantages(expected, [column("thumb", range(4), thumb), column("tone", range(4), tone, weight=0.5)], 4)
    assert half == pytest.approx([x / sqrt(1.25) for x in (1.5, -0.5, 0.5, -1.5)], abs=1e-3)


def test_a_part_that_a_turn_lacks_says_neither_good_nor_bad() -> None:
    # thumb whitens to 1, -1, 1, -1 over all, recall to 1, -1 over the first two ; sums 2, -2, 1, -1 ; std sqrt(5 / 2)
    columns = [column("thumb", range(4), [1.0, 0.0, 1.0, 0.0]), column("recall", [0, 1], [1.0, 0.0])]
    found = advantages(tops(thumb=0.5, recall=0.5), columns, 4)
    assert found == pytest.approx([x / sqrt(2.5) for x in (2.0, -2.0, 1.0, -1.0)], abs=1e-4)


def test_a_new_part_that_one_turn_alone_has_moves_nothing_in_this_batch() -> None:
    thumb = column("thumb", range(4), [1.0, 0.0, 1.0, 0.0])
    both = advantages(Baselines(), [thumb, column("recall", [2], [0.9])], 4)
    assert both == advantages(Baselines(), [thumb], 4)


def test_a_weight_counts_for_its_own_turn() -> None:
    # recall - 0.5 whitens to 1, -1 ; the second turn's weight is annealed away: sums 1, 0 ; mean 0.5, std 0.5
    annealed = Column("recall", (0, 1), ("recall",) * 2, (1.0, 0.0), (1.0, 0.0))
    assert advantages(tops(recall=0.5), [annealed], 2) == pytest.approx([1.0, -1.0], abs=1e-4)


def test_a_new_parts_key_is_shrunk_to_its_own_part_and_to_no_other() -> None:
    both = [column("thumb", range(2), [1.0, 1.0]), column("tone", range(2), [0.1, 0.1])]
    moved = Baselines().after(both, 0.0, OWN)
    assert {node.key: node.mean for node in moved.nodes} == pytest.approx({("thumb",): 1.0, ("tone",): 0.1})


def test_a_turn_that_counts_twice_as_much_is_as_good_as_two() -> None:
    keys, rewards = ["a", "a", "b"], [1.0, 0.0, 0.3]
    columns, doubled = sole(keys, rewards), sole(["a", *keys], [1.0, *rewards])
    found, twice = advantages(Baselines(), columns, 3, [2.0, 1.0, 1.0]), advantages(Baselines(), doubled, 4)
    assert found == pytest.approx(twice[1:])
    moved, twice_moved = Baselines().after(columns, 0.0, OWN, [2.0, 1.0, 1.0]), Baselines().after(doubled, 0.0, OWN)
    for node, other in zip(moved.nodes, twice_moved.nodes, strict=True):
        assert node.key == other.key and node[1:] == pytest.approx(other[1:])


def test_what_counts_little_moves_little() -> None:
    # mean (1 + 0 + .01 * 9) / 2.01 = .5423, not 3.33 ; variance (.2095 + .2941 + .01 * 71.53) / 2.01 = .6065
    assert whiten([1.0, 0.0, 9.0], [1.0, 1.0, 0.01])[0] == pytest.approx((1 - 0.5423) / 0.7788, abs=1e-3)
