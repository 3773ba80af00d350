"""What a layer around a log promises, with one that turns values round and now and then cannot turn them back."""

import uuid
from collections.abc import Iterator

import pytest

from infra.config import LogConfig
from infra.errors import LogError
from infra.lifecycle import Deadline
from ingest.log import wrapped
from ingest.log.kafka_log import KafkaLog
from ingest.log.memory import InMemoryLog
from ingest.log.protocol import EventLog, Message, Subscription, TopicSpec
from ingest.log.wrapped import WrappedLog
from ingest.records.events import Headers


class Turned(WrappedLog):
    """Values lie backwards. Those in `away` cannot be had now."""

    def __init__(self, inner: EventLog) -> None:
        super().__init__(inner)
        self.away: set[bytes] = set()

    def _out(self, topic: str, key: str, value: bytes, headers: Headers) -> tuple[bytes, Headers]:
        return value[::-1], headers | {"turned": "yes"}

    def _back(self, message: Message) -> Message:
        value = message.value[::-1]
        if value in self.away:
            raise LogError(f"{value!r} is away")
        return message._replace(value=value, headers={})


@pytest.fixture(params=["memory", "kafka"])
def log(request: pytest.FixtureRequest) -> Iterator[Turned]:
    if request.param == "memory":
        made = Turned(InMemoryLog())
    else:
        config: LogConfig = request.getfixturevalue("kafka_config")
        made = Turned(KafkaLog(config, "wrapped"))
    yield made
    made.close()


@pytest.fixture
def topic(log: Turned) -> str:
    """A topic of one partition that holds ab, cd, ef, gh."""
    name = f"topic-{uuid.uuid4().hex[:12]}"
    log.create([TopicSpec(name, 1, 3600.0)])
    for value in (b"ab", b"cd", b"ef", b"gh"):
        log.append(name, "key", value, {})
    log.flush(10.0)
    return name


def take(subscription: Subscription, count: int) -> list[bytes]:
    found: list[bytes] = []
    deadline = Deadline.after(20.0)
    while len(found) < count and not deadline.passed():
        found += [message.value for message in subscription.poll(0.5)]
    return found


def test_what_lies_there_is_changed_and_every_way_of_reading_puts_it_back(log: Turned, topic: str) -> None:
    assert next((one.value, one.headers) for one in log.inner.replay(topic)) == (b"ba", {"turned": "yes"})
    assert next((one.value, one.headers) for one in log.replay(topic)) == (b"ab", {})
    assert [one.value for one in log.replay(topic, {(topic, 0): 2}, [0])] == [b"ef", b"gh"]
    found = log.fetch(topic, 0, 1)
    assert found is not None
    assert found.value == b"cd"
    subscription = log.subscribe([topic], None)
    assert take(subscription, 4) == [b"ab", b"cd", b"ef", b"gh"]
    subscription.close()


def test_a_message_that_cannot_be_had_now_is_given_later_by_the_same_subscription(log: Turned, topic: str) -> None:
    log.away = {b"ab"}
    subscription = log.subscribe([topic], f"group-{topic}")
    with pytest.raises(LogError, match="away"):
        take(subscription, 1)
    with pytest.raises(LogError, match="away"):
        take(subscription, 1)
    log.away = set()
    assert take(subscription, 4) == [b"ab", b"cd", b"ef", b"gh"]
    assert subscription.poll(0.2) == []
    subscription.close()


def test_messages_before_one_that_cannot_be_had_are_given_and_committed(log: Turned, topic: str) -> None:
    log.away = {b"ef"}
    subscription = log.subscribe([topic], f"group-{topic}")
    assert take(subscription, 2) == [b"ab", b"cd"]
    with pytest.raises(LogError, match="away"):
        take(subscription, 1)
    subscription.commit({(topic, 0): 2})
    subscription.close()
    log.away = set()
    again = log.subscribe([topic], f"group-{topic}")
    assert take(again, 2) == [b"ef", b"gh"]
    again.close()


def test_a_replay_or_fetch_of_what_cannot_be_had_raises(log: Turned, topic: str) -> None:
    log.away = {b"cd"}
    replayed = log.replay(topic)
    assert next(replayed).value == b"ab"
    with pytest.raises(LogError, match="away"):
        next(replayed)
    with pytest.raises(LogError, match="away"):
        log.fetch(topic, 0, 1)


def test_one_poll_gives_no_more_bytes_than_fit_and_loses_none(
    log: Turned, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wrapped, "_GIVEN_BYTES", 3)
    subscription = log.subscribe([topic], None)
    polls: list[list[bytes]] = []
    deadline = Deadline.after(20.0)
    while sum(map(len, polls)) < 4 and not deadline.passed():
        polls += [[message.value for message in given]] if (given := subscription.poll(0.5)) else []
    assert polls == [[b"ab", b"cd"], [b"ef", b"gh"]]
    assert subscription.poll(0.2) == []
    subscription.close()
