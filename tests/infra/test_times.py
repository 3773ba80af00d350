"""Times, as people say and read them."""

import pytest

from infra.times import moment, span


@pytest.mark.parametrize(("told", "at"), [("90m", 4600.0), ("1.5h", 4600.0), ("2d", -162_800.0), ("0s", 10_000.0)])
def test_an_age_counts_back_from_now(told: str, at: float) -> None:
    assert moment(told, 10_000.0) == at


def test_a_time_that_names_its_zone_is_that_wherever_it_is_read() -> None:
    assert moment("1970-01-01T02:00+01:00", 0.0) == 3600.0


@pytest.mark.parametrize("told", ["yesterday", "3", "-3d", ""])
def test_what_is_no_time_is_refused_with_what_would_be_one(told: str) -> None:
    with pytest.raises(ValueError, match="an age"):
        moment(told, 0.0)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.4, "0 s"), (59.0, "59 s"), (60.0, "1 min"), (95.0, "1.6 min"), (5400.0, "1.5 h"), (200_000.0, "2.3 d")],
)
def test_a_duration_is_told_in_its_largest_unit(seconds: float, told: str) -> None:
    assert span(seconds) == told
