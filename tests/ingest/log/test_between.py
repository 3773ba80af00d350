"""Records of a time are found without reading what lies before them."""

from collections.abc import Iterator
from typing import Any

import pytest

from ingest.log import reader, topics
from ingest.log.between import Between
from ingest.log.kafka_log import KafkaLog
from ingest.log.memory import InMemoryLog
from ingest.log.protocol import EventLog, Message
from ingest.records.events import Reward, Source

HOUR = 3600.0


def reward(number: int, at: float) -> Reward:
    return Reward.model_validate(
        {
            "reward_id": f"r{number}", "trajectory_id": "t", "session_id": "s", "tenant": "t", "assignment": None,
            "held_out": False, "opened_at": 0.0, "trace_ids": ("a-0",), "versions": (), "spec": "x",
            "components": (), "turns": (), "value": 0.5, "has_signal": True, "guardrails": {}, "at": at,
            "source": Source(partition=0, offset=0),
        }
    )  # fmt: skip


class Counting(InMemoryLog):
    """Counts what is read of it."""

    num_read = 0

    def fetch(self, topic: str, partition: int, offset: int) -> Message | None:
        self.num_read += 1
        return super().fetch(topic, partition, offset)

    def replay(self, *args: object, **kwargs: object) -> Iterator[Message]:
        for message in super().replay(*args, **kwargs):  # type: ignore[arg-type]
            self.num_read += 1
            yield message


@pytest.fixture
def log() -> Counting:
    """A reward an hour, for a thousand hours, in three partitions."""
    made = Counting()
    made.create(topics.specs(partitions=3, retention_s=60.0))
    for number in range(1000):
        reader.append(made, topics.REWARDS, f"key {number}", reward(number, number * HOUR))
    return made


def between(log: EventLog) -> Between[Reward]:
    return Between(log, topics.REWARDS, Reward, lambda one: one.at)


def hours(log: InMemoryLog, begin: float, end: float) -> list[float]:
    return sorted(one.at / HOUR for one in between(log).read(begin * HOUR, end * HOUR))


@pytest.mark.parametrize(("begin", "end"), [(500, 510), (0, 3), (995, 2000), (-5, 0), (0, 999)])
def test_all_of_a_time_are_found_and_no_others(log: Counting, begin: int, end: int) -> None:
    assert hours(log, begin, end) == list(range(max(0, begin), min(999, end) + 1))


def test_what_lies_before_and_behind_is_not_read(log: Counting) -> None:
    hours(log, 500, 510)
    assert log.num_read < 100


def test_a_time_of_which_there_is_nothing_has_nothing(log: Counting) -> None:
    assert hours(log, 2000, 3000) == []
    assert hours(InMemoryLog(), 0, 1) == []


def test_records_that_lie_out_of_order_by_less_than_the_slack_are_found() -> None:
    log = InMemoryLog()
    for number, at in enumerate((0.0, 9000.0, 8000.0, 8500.0, 9500.0, 30_000.0)):
        reader.append(log, topics.REWARDS, "key", reward(number, at))
    assert [one.at for one in between(log).read(9000.0, 9900.0)] == [9000.0, 9500.0]


def test_what_cannot_be_read_hides_nothing() -> None:
    log = InMemoryLog()
    for number in range(9):
        if number % 2:
            log.append(topics.REWARDS.name, "key", b"{", {})
        else:
            reader.append(log, topics.REWARDS, "key", reward(number, number * 10 * HOUR))
    assert hours(log, 35, 65) == [40.0, 60.0]


def test_a_brokers_records_are_found_the_same_way(own_broker: Any) -> None:
    log = KafkaLog(own_broker.config(timeout_s=20.0), "test")
    try:
        log.create(topics.specs(partitions=2, retention_s=864_000.0))
        for number in range(300):
            reader.append(log, topics.REWARDS, f"key {number}", reward(number, number * HOUR))
        log.flush(20.0)
        assert sorted(one.at / HOUR for one in between(log).read(200 * HOUR, 203 * HOUR)) == [200, 201, 202, 203]
        assert between(log).kept_since() is None
    finally:
        log.close()


def forget(log: InMemoryLog, num: int) -> None:
    """As retention does, in each partition."""
    for part in log._shared.partitions[topics.REWARDS.name]:
        del part.messages[:num]
        part.first += num


def test_it_is_known_from_when_on_nothing_is_gone(log: Counting) -> None:
    assert between(log).kept_since() is None
    forget(log, 100)
    since = between(log).kept_since()
    assert since is not None
    oldest = [min(one.at for one in found) for found in [list(between(log).read(0.0, 1e9))]]
    assert since >= oldest[0]
    kept = hours(log, since / HOUR, 999)
    assert kept == list(range(int(since / HOUR), 1000)), "from then on every hour is there"
    assert hours(log, since / HOUR - 20, 999) != list(range(int(since / HOUR) - 20, 1000))


def test_a_partition_of_which_nothing_is_left_has_lost_everything(log: Counting) -> None:
    forget(log, 1000)
    assert between(log).kept_since() == float("inf")
