"""Work that is asked to end."""

import threading

import pytest

from infra.lifecycle import Stop, run_until_stopped


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
