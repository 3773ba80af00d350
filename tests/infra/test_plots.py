import pytest

from infra import plots


def test_names_are_moved_apart_and_stay_in_the_plot() -> None:
    assert plots.apart([(100.0, "a"), (101.0, "b"), (10.0, "c")], 240.0) == [(10.0, "c"), (100.0, "a"), (114.0, "b")]
    assert plots.apart([(239.0, "a"), (240.0, "b")], 240.0) == [(226.0, "a"), (240.0, "b")]


@pytest.mark.parametrize(
    ("low", "high", "levels"),
    [(-1.0, 17.0, [0, 5, 10, 15]), (-3.0, 4.0, [-2, 0, 2, 4]), (0.0, 0.5, [0, 0.1, 0.2, 0.3, 0.4, 0.5])],
)
def test_an_axis_has_a_few_round_values(low: float, high: float, levels: list[float]) -> None:
    assert plots.levels(low, high) == pytest.approx(levels)
