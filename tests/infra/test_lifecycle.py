"""Work that is asked to end."""

import threading

import pytest

from infra.lifecycle import Stop, run_until_stopped, steady_time


def test_work_that_ends_by_itself_is_waited_for() -> None:
    done: list[int] = []
    assert run_until_stopped(lambda: done.append(1), Stop(), end_s=10.0)
    assert done == [1]


def test_work_that_heeds_the_stop_has_time_to_end() -> None:
    stop, done = Stop(), threading.Event()

    def work() -> None:
        stop.set()
        done.set()

    assert run_until_stopped(work, stop, end_s=10.0)
    assert done.is_set()


def test_work_that_nothing_can_end_is_left_behind() -> None:
    stop, let_go = Stop(), threading.Event()
    stop.set()

    def work() -> None:
        let_go.wait(30.0)

    assert not run_until_stopped(work, stop, end_s=0.05)
    let_go.set()


def test_what_work_raises_is_raised() -> None:
    def work() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run_until_stopped(work, Stop(), end_s=10.0)


@pytest.mark.parametrize("jump_s", [-1e9, -3600.0, 3600.0, 1e9])
def test_a_clock_that_is_set_changes_no_age(jump_s: float) -> None:
    wall, monotonic = 1e9, 50.0
    now = steady_time(lambda: wall, lambda: monotonic)
    assert now() == 1e9
    wall, monotonic = wall + jump_s, monotonic + 2.0
    assert now() == 1e9 + 2.0
