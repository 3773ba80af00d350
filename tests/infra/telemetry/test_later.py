"""What is left for later is done in its order, and before a reader reads."""

import logging
import threading
from functools import partial

import pytest

from infra.telemetry import later as later_module
from infra.telemetry.later import Later


def test_what_is_left_is_done_in_its_order_and_once() -> None:
    later, done = Later(), list[int]()
    for number in range(100):
        later.leave(partial(done.append, number))
    later.flush()
    later.flush()
    assert done == list(range(100))


def test_a_call_that_fails_is_logged_and_keeps_no_other_from_being_done(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ValueError("a mistake")

    later, done = Later(), list[int]()
    later.leave(fail)
    later.leave(partial(done.append, 1))
    with caplog.at_level(logging.ERROR):
        later.flush()
    assert done == [1]
    assert "something is not told" in caplog.text


def test_what_is_too_much_is_lost_and_said_to_be(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(later_module, "_MAX_LEFT", 10)
    later, done = Later(), list[int]()
    for number in range(13):
        later.leave(partial(done.append, number))
    later.flush()
    assert done == list(range(3, 13))
    assert "the oldest spans and values are lost" in caplog.text


def test_a_thread_does_it_unasked() -> None:
    later, is_done = Later(), threading.Event()
    later.start()
    later.leave(is_done.set)
    assert is_done.wait(10.0)


def test_a_flush_waits_for_what_another_thread_is_in_the_middle_of() -> None:
    later, begun, may_end, done = Later(), threading.Event(), threading.Event(), list[int]()

    def slow() -> None:
        begun.set()
        may_end.wait(10.0)
        done.append(1)

    later.leave(slow)
    other = threading.Thread(target=later.flush)
    other.start()
    begun.wait(10.0)
    threading.Timer(0.05, may_end.set).start()
    later.flush()
    assert done == [1]
    other.join()
