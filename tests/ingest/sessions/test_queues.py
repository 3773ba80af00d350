"""Queues whose things may change their numbers."""

import pytest

from ingest.sessions.queues import Queue


@pytest.fixture
def numbers() -> dict[str, float]:
    return {}


@pytest.fixture
def queue(numbers: dict[str, float]) -> Queue[str]:
    return Queue(lambda thing, number: numbers.get(thing) != number)


def put(queue: Queue[str], numbers: dict[str, float], thing: str, number: float) -> None:
    numbers[thing] = number
    queue.add(number, thing)


def test_things_are_taken_lowest_first_and_none_beyond(queue: Queue[str], numbers: dict[str, float]) -> None:
    for thing, number in (("c", 3.0), ("a", 1.0), ("b", 2.0), ("also b", 2.0)):
        put(queue, numbers, thing, number)
    assert queue.take(2.0) == ["a", "b", "also b"] and queue.take(2.0) == []
    assert queue.lowest() == 3.0


def test_a_thing_is_found_by_its_last_number_only(queue: Queue[str], numbers: dict[str, float]) -> None:
    put(queue, numbers, "a", 5.0)
    put(queue, numbers, "a", 1.0)
    assert queue.take(9.0) == ["a"]


def test_a_thing_that_is_gone_holds_nothing_back(queue: Queue[str], numbers: dict[str, float]) -> None:
    put(queue, numbers, "a", 1.0)
    put(queue, numbers, "b", 2.0)
    del numbers["a"]
    assert queue.lowest() == 2.0
    del numbers["b"]
    assert queue.lowest() is None


def test_stale_entries_behind_a_low_one_do_not_pile_up(queue: Queue[str], numbers: dict[str, float]) -> None:
    put(queue, numbers, "stays", 0.0)
    for number in range(20_000):
        put(queue, numbers, "moves", float(number + 1))
        queue.sweep(2)
    assert len(queue._heap) < 10_000
    assert queue.take(1e9) == ["stays", "moves"]
