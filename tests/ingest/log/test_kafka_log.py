"""What only Kafka can do to us: brokers that are away, hang or come back, and consumers that die."""

import logging
import random
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from infra.config import LogConfig
from infra.errors import LogError, RecordError
from infra.lifecycle import Deadline
from ingest.log import kafka_fetch, topics
from ingest.log.kafka_clients import MAX_RECORD_BYTES, KafkaClients
from ingest.log.kafka_fetch import KafkaFetcher, _Held
from ingest.log.kafka_log import KafkaLog
from ingest.log.kafka_places import KafkaPlaces
from ingest.log.protocol import Message, Subscription, TopicSpec

TIMEOUT_S = 2.0
BOUND_S = 15.0  # TIMEOUT_S and a probe of a third of it, several times over for a busy machine


def take(subscription: Subscription, count: int) -> list[Message]:
    found: list[Message] = []
    deadline = Deadline.after(30.0)
    while len(found) < count and not deadline.passed():
        found += subscription.poll(0.3)
    return found


def poll_until_it_raises(subscription: Subscription) -> str:
    deadline = Deadline.after(BOUND_S)
    with pytest.raises(LogError) as raised:
        while not deadline.passed():
            subscription.poll(0.2)
    return str(raised.value)


def fresh(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex[:12]}"


def test_an_unreachable_broker_is_named_with_the_time_waited(unreachable, caplog: pytest.LogCaptureFixture) -> None:
    log = KafkaLog(unreachable, "test")
    threads = set(threading.enumerate())
    expected = f"event log: no broker answers at {unreachable.brokers} (waited 1 s)"
    with caplog.at_level(logging.WARNING):
        for attempt in (
            lambda: log.append("traces", "key", b"value", {}),
            lambda: log.create([TopicSpec("traces", 1, None)]),
            lambda: log.subscribe(["traces"], "group"),
            lambda: log.subscribe(["traces"], None),
            lambda: log.replay("traces"),
            lambda: log.fetch("traces", 0, 0),
            lambda: log.ends("traces"),
            lambda: log.lag("group", ["traces"]),
        ):
            with pytest.raises(LogError, match=f"^{re.escape(expected)}$"):
                attempt()
    log.close()
    assert set(threading.enumerate()) == threads, "a client that could not connect left a thread behind"
    assert caplog.records == []


def test_a_subscription_whose_broker_is_gone_raises_and_a_new_one_goes_on_where_the_group_was(own_broker) -> None:
    log = KafkaLog(own_broker.config(TIMEOUT_S), "test")
    log.create([TopicSpec("traces", 2, None)])
    for number in range(6):
        log.append("traces", "key", f"{number}".encode(), {})
    log.flush(10.0)
    subscription = log.subscribe(["traces"], "group")
    read = take(subscription, 6)
    subscription.commit({("traces", read[0].partition): read[3].offset + 1})

    own_broker.stop()
    message = poll_until_it_raises(subscription)
    assert message.startswith("event log: group group: no broker answers")
    with pytest.raises(LogError, match="commit of group group"):
        subscription.commit({("traces", read[0].partition): read[5].offset + 1})
    subscription.close()

    own_broker.start()
    again = log.subscribe(["traces"], "group")
    assert [message.value for message in take(again, 2)] == [b"4", b"5"]
    again.close()
    log.close()


def test_a_broker_that_hangs_is_noticed_like_one_that_is_gone(own_broker) -> None:
    log = KafkaLog(own_broker.config(TIMEOUT_S), "test")
    log.create([TopicSpec("traces", 1, None)])
    log.append("traces", "key", b"value", {})
    log.flush(10.0)
    grouped, alone = log.subscribe(["traces"], "group"), log.subscribe(["traces"], None)
    assert [len(take(grouped, 1)), len(take(alone, 1))] == [1, 1]
    own_broker.signal(signal.SIGSTOP)
    try:
        assert "no broker answers" in poll_until_it_raises(grouped)
        assert "no broker answers" in poll_until_it_raises(alone)
    finally:
        own_broker.signal(signal.SIGCONT)
    grouped.close()
    alone.close()
    log.close()


def test_a_broker_that_hangs_while_it_is_asked_about_a_group_ends_no_process(own_broker) -> None:
    asking = subprocess.Popen(
        [sys.executable, "-c", ASKING, own_broker.config(TIMEOUT_S).model_dump_json()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with asking:
        assert asking.stdout is not None and asking.stdin is not None
        assert asking.stdout.readline() == "asked\n"
        own_broker.signal(signal.SIGSTOP)
        try:
            asking.stdin.write("\n")
            asking.stdin.flush()
            time.sleep(0.75 * TIMEOUT_S)  # the first question was given up, and the second waits
        finally:
            own_broker.signal(signal.SIGCONT)
        assert asking.stdout.readline() == "told\n"
    assert asking.returncode == 0


ASKING = """
import sys
from infra.config import LogConfig
from ingest.log.kafka_clients import KafkaClients
from ingest.log.kafka_places import KafkaPlaces
places = KafkaPlaces(KafkaClients(LogConfig.model_validate_json(sys.argv[1]), "asking"))
assert places.dead_members("one") == []
print("asked", flush=True)
input()
assert places.dead_members("other") == []
print("told", flush=True)
"""


def test_a_short_outage_does_not_end_a_subscription(own_broker) -> None:
    log = KafkaLog(own_broker.config(timeout_s=20.0), "test")
    log.create([TopicSpec("traces", 1, None)])
    log.append("traces", "key", b"before", {})
    log.flush(10.0)
    subscription = log.subscribe(["traces"], "group")
    read = take(subscription, 1)
    subscription.commit({("traces", 0): read[0].offset + 1})
    own_broker.stop()
    assert subscription.poll(0.5) == []
    own_broker.start()
    log.append("traces", "key", b"after", {})
    log.flush(20.0)
    assert [message.value for message in take(subscription, 1)] == [b"after"]
    subscription.close()
    log.close()


def test_a_flush_that_fails_says_so_and_drops_what_was_not_acknowledged(own_broker) -> None:
    log = KafkaLog(own_broker.config(timeout_s=20.0), "test")
    log.create([TopicSpec("traces", 1, None)])
    log.append("traces", "key", b"0", {})
    log.flush(10.0)
    own_broker.stop()
    log.append("traces", "key", b"1", {})
    log.append("traces", "key", b"2", {})
    with pytest.raises(LogError, match="2 of 2 records were not acknowledged"):
        log.flush(0.5)
    own_broker.start()
    for value in (b"1", b"2"):
        log.append("traces", "key", value, {})
    log.flush(10.0)
    assert [message.value for message in log.replay("traces")] == [b"0", b"1", b"2"]
    log.close()


def test_a_failed_flush_is_told_to_every_thread_whose_records_it_dropped(own_broker) -> None:
    log = KafkaLog(own_broker.config(TIMEOUT_S), "test")
    log.create([TopicSpec("traces", 1, None)])
    log.append("traces", "key", b"before", {})
    log.flush(10.0)
    own_broker.stop()
    log.append("traces", "key", b"mine", {})
    other = threading.Thread(target=_append_and_fail_to_flush, args=(log,))
    other.start()
    other.join()
    own_broker.start()
    with pytest.raises(LogError, match="another thread's flush failed"):
        log.flush(10.0)
    log.append("traces", "key", b"mine", {})
    log.flush(10.0)
    assert [message.value for message in log.replay("traces")] == [b"before", b"mine"]
    log.close()


def test_flushes_that_fail_at_once_are_told_in_each_thread(own_broker) -> None:
    log = KafkaLog(own_broker.config(TIMEOUT_S), "test")
    log.create([TopicSpec("traces", 1, None)])
    log.append("traces", "key", b"before", {})
    log.flush(10.0)
    own_broker.stop()
    both, told = threading.Barrier(2), list[BaseException]()

    def run(timeout_s: float) -> None:
        log.append("traces", "key", b"its", {})
        both.wait(10.0)
        try:
            log.flush(timeout_s)
        except Exception as exc:  # noqa: BLE001 - what it is, is what the test is about
            told.append(exc)

    threads = [threading.Thread(target=run, args=(timeout_s,)) for timeout_s in (0.3, 2.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [type(one) for one in told] == [LogError, LogError]
    own_broker.start()
    log.append("traces", "key", b"after", {})
    log.flush(10.0)
    log.close()


def _append_and_fail_to_flush(log: KafkaLog) -> None:
    log.append("traces", "key", b"its", {})
    with pytest.raises(LogError, match="not acknowledged"):
        log.flush(0.3)


class Fenced:
    """A producer that librdkafka has ended for good."""

    def __init__(self) -> None:
        self.is_closed = False

    def produce(self, *_: Any, **__: Any) -> None:
        raise KafkaException(KafkaError(KafkaError._FATAL, "fenced", fatal=True))

    def purge(self) -> None:
        """Nothing is left."""

    def close(self) -> None:
        self.is_closed = True


def test_a_producer_that_takes_nothing_any_more_is_replaced(kafka_config: LogConfig) -> None:
    log, topic = KafkaLog(kafka_config, "test"), fresh("topic")
    log.append(topic, "key", b"before", {})
    log.flush(10.0)
    assert log._outbox is not None
    log._outbox.producer = fenced = Fenced()
    with pytest.raises(LogError, match=f"append to {topic}: fenced"):
        log.append(topic, "key", b"after", {})
    assert fenced.is_closed
    log.append(topic, "key", b"after", {})
    log.flush(10.0)
    assert [message.value for message in log.replay(topic)] == [b"before", b"after"]
    log.close()


def test_a_consumer_that_was_killed_does_not_keep_its_partitions(kafka_config: LogConfig) -> None:
    topic, group = fresh("topic"), fresh("group")
    log = KafkaLog(kafka_config, "test")
    log.create([TopicSpec(topic, 4, None)])
    log.append(topic, "key", b"value", {})
    log.flush(10.0)
    victim = subprocess.Popen(
        [sys.executable, "-c", VICTIM, kafka_config.brokers, topic, group], stdout=subprocess.PIPE
    )
    assert victim.stdout is not None
    assert victim.stdout.readline() == b"reading\n"
    victim.kill()
    victim.wait()
    victim.stdout.close()
    heir = log.subscribe([topic], group)
    assert [message.value for message in take(heir, 1)] == [b"value"]
    assert heir.assignment() == {(topic, number) for number in range(4)}
    heir.close()
    log.close()


VICTIM = """
import sys
from infra.config import LogConfig
from ingest.log.kafka_log import KafkaLog
brokers, topic, group = sys.argv[1:]
subscription = KafkaLog(LogConfig(brokers=brokers), "victim").subscribe([topic], group)
while not subscription.poll(1.0):
    pass
print("reading", flush=True)
while True:
    subscription.poll(1.0)
"""


def test_a_named_member_has_its_partitions_back_when_it_starts_again(kafka_config: LogConfig) -> None:
    topic, group = fresh("topic"), fresh("group")
    log = KafkaLog(kafka_config, "test", member="host")
    log.create([TopicSpec(topic, 4, None)])
    log.append(topic, "key", b"value", {})
    log.flush(10.0)
    for _ in range(2):
        subscription = log.subscribe([topic], group)
        assert [message.value for message in take(subscription, 1)] == [b"value"]
        subscription.close()
    log.close()


def test_neighbours_of_a_fetched_message_cost_no_reading(kafka_config: LogConfig, monkeypatch) -> None:
    log, topic = KafkaLog(kafka_config, "test"), fresh("topic")
    log.create([TopicSpec(topic, 1, None)])
    for number in range(200):
        log.append(topic, "key", f"{number}".encode(), {})
    log.flush(10.0)
    reads = counted(monkeypatch, KafkaFetcher, "_read")
    for number in (*range(100, 164), *range(100, 164)):
        found = log.fetch(topic, 0, number)
        assert found is not None
        assert found.value == f"{number}".encode()
    assert len(reads) == 1
    log.close()


def test_what_is_remembered_of_fetched_messages_is_bounded() -> None:
    held = _Held(limit_bytes=100)
    messages = [Message("t", 0, number, "", bytes(30), {}) for number in range(10)]
    held.add(messages)
    assert [number for number in range(10) if held.get(("t", 0, number))] == [0, 1, 2], "those asked for are the first"
    held.get(("t", 0, 0))
    held.add(messages[8:9])
    assert [number for number in range(10) if held.get(("t", 0, number))] == [0, 2, 8], "the one used last stays"
    held.add([Message("t", 0, 10, "", bytes(500), {})])
    assert [number for number in range(11) if held.get(("t", 0, number))] == [10]


def test_a_fetch_beside_an_outage_raises_and_a_later_one_goes_on(own_broker, monkeypatch) -> None:
    log = KafkaLog(own_broker.config(TIMEOUT_S), "test")
    log.create([TopicSpec("traces", 1, None)])
    for number in range(500):
        log.append("traces", "key", f"{number}".encode(), {})
    log.flush(10.0)
    opened = [counted(monkeypatch, KafkaClients, kind) for kind in ("consumer", "admin")]
    assert log.fetch("traces", 0, 3) is not None
    own_broker.stop()
    with pytest.raises(LogError, match="fetch of traces/0@400"):
        log.fetch("traces", 0, 400)
    with pytest.raises(LogError, match="no broker answers"):
        log.ends("traces")
    assert log.fetch("traces", 0, 3) is not None, "what is remembered needs no broker"
    own_broker.start()
    found = log.fetch("traces", 0, 400)
    assert found is not None
    assert found.value == b"400"
    assert log.ends("traces") == {0: 500}
    assert list(map(len, opened)) == [2, 2], "no connection is used again once it failed"
    log.close()


def test_what_comes_late_of_a_place_beyond_the_end_is_no_answer_about_another(kafka_config, monkeypatch) -> None:
    monkeypatch.setitem(kafka_fetch._SETTINGS, "fetch.error.backoff.ms", 0)  # answers come several times, not rarely
    log, topic = KafkaLog(kafka_config, "test"), fresh("topic")
    log.create([TopicSpec(topic, 1, None)])
    found = []
    for number in range(0, 100, 2):
        assert [log.fetch(topic, 0, at) for at in (number + 1, number + 50)] == [None, None]
        for at in (number, number + 1):
            log.append(topic, "key", f"{at}".encode(), {})
        log.flush(10.0)
        found += [log.fetch(topic, 0, at) for at in (number + 1, number)]
    assert [one and one.value for one in found] == [b"%d" % at for n in range(0, 100, 2) for at in (n + 1, n)]
    log.close()


def test_a_record_larger_than_what_is_read_ahead_is_fetched(kafka_config: LogConfig) -> None:
    log, topic = KafkaLog(kafka_config, "test"), fresh("topic")
    values = [random.Random(number).randbytes(2 << 20) for number in range(3)]
    for value in values:
        log.append(topic, "key", value, {})
    log.flush(30.0)
    found = [log.fetch(topic, 0, number) for number in (1, 0, 2)]
    assert [one.value == values[one.offset] for one in found if one] == [True] * 3
    log.close()


def counted(monkeypatch: pytest.MonkeyPatch, kind: type, name: str) -> list[str]:
    """Gets one more item with every call of `kind.name`."""
    calls: list[str] = []
    real = getattr(kind, name)

    def call(*args: Any, **settings: Any) -> Any:
        calls.append(name)
        return real(*args, **settings)

    monkeypatch.setattr(kind, name, call)
    return calls


def test_cooperative_consumers_read_and_commit(kafka_config: LogConfig) -> None:
    topic, group = fresh("topic"), fresh("group")
    log = KafkaLog(kafka_config.model_copy(update={"assignor": "cooperative"}), "test")
    log.append(topic, "key", b"value", {})
    log.flush(10.0)
    subscription = log.subscribe([topic], group)
    read = take(subscription, 1)
    subscription.commit({(topic, 0): read[0].offset + 1})
    subscription.close()
    assert log.lag(group, [topic]) == {topic: 0}
    log.close()


def test_a_record_too_large_for_the_log_is_refused_before_it_is_sent(kafka_config: LogConfig) -> None:
    log = KafkaLog(kafka_config, "test")
    with pytest.raises(
        RecordError, match=f"traces: a record may have .* bytes on the log itself, got {MAX_RECORD_BYTES}"
    ):
        log.append("traces", "key", bytes(MAX_RECORD_BYTES), {})
    log.close()


def test_old_messages_go_in_segments_that_are_a_part_of_their_topics_retention(kafka_config: LogConfig) -> None:
    places = KafkaPlaces(KafkaClients(kafka_config, "test"))
    asked = places._new(TopicSpec("t", 1, 1000.0)).config
    assert (asked["retention.ms"], asked["segment.ms"]) == ("1000000", "250000")
    assert topics.gone_after_s(1000.0) > 1250.0
    assert places._new(TopicSpec("t", 1, None)).config["retention.ms"] == "-1"


def test_seeking_a_partition_that_is_not_assigned_is_refused(kafka_config: LogConfig) -> None:
    topic = fresh("topic")
    log = KafkaLog(kafka_config, "test")
    log.create([TopicSpec(topic, 1, None)])
    subscription = log.subscribe([topic], fresh("group"))
    with pytest.raises(LogError, match=f"seek {topic}/7@3"):
        subscription.seek({(topic, 7): 3})
    subscription.close()
    log.close()


def test_a_reader_without_a_group_cannot_commit(kafka_config: LogConfig) -> None:
    log = KafkaLog(kafka_config, "test")
    topic = fresh("topic")
    log.create([TopicSpec(topic, 1, None)])
    subscription = log.subscribe([topic], None)
    with pytest.raises(LogError, match=f"commit of reader of {topic}"):
        subscription.commit({(topic, 0): 0})
    subscription.close()
    log.close()


def test_a_closed_log_takes_nothing(kafka_config: LogConfig) -> None:
    log = KafkaLog(kafka_config, "test")
    topic = fresh("topic")
    log.append(topic, "key", b"value", {})
    log.close()
    with pytest.raises(LogError, match="closed"):
        log.append(topic, "key", b"value", {})
    log.close()
