"""Distributions and rank changes, against numbers worked by hand and against counting every pair."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.backtest.numbers import distribution, num_inversions, ranks


def of(*values: float) -> np.ndarray:
    return np.array(values, np.float64)


def test_a_distribution_has_mean_quantiles_and_counts_in_twentieths() -> None:
    found = distribution(of(0.0, 0.25, 0.5, 1.0, 1.0))
    assert found is not None
    assert (found.num, found.mean, found.quantiles[1:4]) == (5, 0.55, (0.25, 0.5, 1.0))
    assert {number: num for number, num in enumerate(found.bins) if num} == {0: 1, 5: 1, 10: 1, 19: 2}


def test_no_values_have_no_distribution() -> None:
    assert distribution(of()) is None


def test_one_pair_of_six_that_flips_is_told() -> None:
    found = ranks(of(0.1, 0.2, 0.3, 0.4), of(0.1, 0.3, 0.2, 0.4))
    assert (found.num_pairs, found.num_flipped, found.num_tied) == (6, 1, 0)
    assert found.kendall == pytest.approx((5 - 1) / 6)
    assert found.spearman == pytest.approx(1 - 6 * 2 / (4 * 15))


def test_equal_values_flip_nothing() -> None:
    # old orders (a, b), (a, c); b and c are equal; new makes a and c equal
    found = ranks(of(0.0, 1.0, 1.0), of(0.5, 1.0, 0.5))
    assert (found.num_pairs, found.num_flipped, found.num_tied) == (2, 0, 1)
    assert found.kendall == pytest.approx(1 / 2)
    assert found.spearman == pytest.approx(np.corrcoef([1, 2.5, 2.5], [1.5, 3, 1.5])[0, 1])


def test_values_that_are_all_alike_have_no_correlation() -> None:
    found = ranks(of(0.5, 0.5), of(0.1, 0.9))
    assert (found.spearman, found.kendall, found.num_pairs) == (None, None, 0)
    assert ranks(of(), of()).num_pairs == 0


@given(st.lists(st.integers(0, 40), max_size=30))
def test_inversions_are_those_that_counting_every_pair_finds(values: list[int]) -> None:
    expected = sum(one > other for one, other in itertools.combinations(values, 2))
    assert num_inversions(np.array(values, np.int64)) == expected


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=25))
def test_pairs_are_those_that_counting_each_finds(points: list[tuple[int, int]]) -> None:
    found = ranks(of(*(x / 5 for x, _ in points)), of(*(y / 5 for _, y in points)))
    both = [(a[0] - b[0], a[1] - b[1]) for a, b in itertools.combinations(points, 2)]
    assert found.num_pairs == sum(x != 0 for x, _ in both)
    assert found.num_flipped == sum(x * y < 0 for x, y in both)
    assert found.num_tied == sum(x != 0 and y == 0 for x, y in both)
