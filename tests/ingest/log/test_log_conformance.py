"""What every `EventLog` does: the same tests for the shipped fake and for Kafka, and for the layers around both."""

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from infra.config import LogConfig
from infra.lifecycle import Deadline
from ingest.log.claims import ClaimLog, Claims
from ingest.log.kafka_log import KafkaLog
from ingest.log.memory import InMemoryLog
from ingest.log.protocol import EventLog, Message, Subscription, TopicSpec
from ingest.log.wrapped import WrappedLog
from ingest.privacy.keys import KeyStore
from ingest.privacy.sealed_log import SealedLog
from ingest.privacy.secret import Secret

WITHIN_S = 30.0  # a group of two forms in 4 s on an idle machine; heartbeats that start it are 3 s apart


@pytest.fixture(params=["memory", "kafka", "claims-memory", "claims-kafka", "sealed-memory"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EventLog]:
    made: EventLog = InMemoryLog()
    if request.param.endswith("kafka"):
        config: LogConfig = request.getfixturevalue("kafka_config")
        made = KafkaLog(config, "conformance")
    if request.param.startswith("claims"):
        made = ClaimLog(made, Claims(str(tmp_path), retention_s=3600.0), max_record_bytes=3)
    if request.param.startswith("sealed"):
        made = SealedLog(made, KeyStore(str(tmp_path), Secret.parse("0f" * 32, "test")))
    yield made
    made.close()


@pytest.fixture
def topic(log: EventLog) -> str:
    """A topic of four partitions."""
    name = fresh("topic")
    log.create([TopicSpec(name, 4, 3600.0)])
    return name


def fresh(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex[:12]}"


def fill(log: EventLog, topic: str, count: int, keys: int = 5) -> list[bytes]:
    values = [f"{number:04d}".encode() for number in range(count)]
    for number, value in enumerate(values):
        log.append(topic, f"key-{number % keys}", value, {})
    log.flush(WITHIN_S)
    return values


def take(subscription: Subscription, count: int) -> list[Message]:
    found: list[Message] = []
    deadline = Deadline.after(WITHIN_S)
    while len(found) < count and not deadline.passed():
        found += subscription.poll(0.5, count - len(found))
    return found


def positions(messages: list[Message]) -> dict[tuple[str, int], int]:
    return {(message.topic, message.partition): message.offset + 1 for message in messages}


def values(messages: list[Message]) -> list[bytes]:
    return sorted(message.value for message in messages)


def trim(log: EventLog, topic: str, partition: int, before: int) -> None:
    """Remove the messages below offset `before`, as retention does."""
    while isinstance(log, WrappedLog):
        log = log.inner
    if isinstance(log, InMemoryLog):
        log.forget(topic, partition, before)
        return
    assert isinstance(log, KafkaLog)
    place = TopicPartition(topic, partition, before)
    admin = AdminClient({"bootstrap.servers": log._config.brokers})
    admin.delete_records([place], request_timeout=10.0)[place].result()


def test_messages_of_one_key_keep_their_order_and_share_a_partition(log: EventLog, topic: str) -> None:
    fill(log, topic, 100)
    read = list(log.replay(topic))
    for key in {message.key for message in read}:
        of_key = [message for message in read if message.key == key]
        assert [message.value for message in of_key] == sorted(message.value for message in of_key)
        assert len({message.partition for message in of_key}) == 1
    assert len({message.partition for message in read}) > 1


def test_one_key_has_the_same_partition_number_in_topics_of_as_many_partitions(log: EventLog, topic: str) -> None:
    other = fresh("topic")
    log.create([TopicSpec(other, 4, 3600.0)])
    fill(log, topic, 20, keys=20)
    fill(log, other, 20, keys=20)
    places = {message.key: message.partition for message in log.replay(topic)}
    assert places == {message.key: message.partition for message in log.replay(other)}


def test_bytes_key_and_headers_arrive_as_they_were_sent(log: EventLog, topic: str) -> None:
    value, headers = bytes(range(256)), {"schema": "trace/1", "note": "é - ü", "empty": ""}
    log.append(topic, "key-é", value, headers)
    log.append(topic, "", b"", {})
    log.flush(WITHIN_S)
    sent, bare = sorted(log.replay(topic), key=lambda message: message.key, reverse=True)
    assert (sent.topic, sent.key, sent.value, sent.headers) == (topic, "key-é", value, headers)
    assert (bare.key, bare.value, bare.headers) == ("", b"", {})


def test_a_record_of_several_megabytes_arrives_whole(log: EventLog, topic: str) -> None:
    value = b"a long session " * 200_000
    log.append(topic, "key", value, {})
    log.flush(WITHIN_S)
    assert [message.value == value for message in log.replay(topic)] == [True]


def test_what_was_not_committed_is_read_again_by_the_next_in_the_group(log: EventLog, topic: str) -> None:
    sent, group = fill(log, topic, 20), fresh("group")
    first = log.subscribe([topic], group)
    assert values(take(first, 20)) == sent
    first.close()
    second = log.subscribe([topic], group)
    assert values(take(second, 20)) == sent
    second.close()


def test_a_commit_moves_the_group_on(log: EventLog, topic: str) -> None:
    group = fresh("group")
    fill(log, topic, 20)
    first = log.subscribe([topic], group)
    done = take(first, 20)[:12]
    first.commit(positions(done))
    first.close()
    log.append(topic, "key-0", b"later", {})
    log.flush(WITHIN_S)
    second = log.subscribe([topic], group)
    rest = take(second, 9)
    assert len(rest) == 9
    assert second.poll(0.2) == []
    assert not {message.value for message in done} & {message.value for message in rest}
    second.close()


def test_a_new_group_begins_at_the_oldest_message(log: EventLog, topic: str) -> None:
    sent = fill(log, topic, 8)
    subscription = log.subscribe([topic], fresh("group"))
    assert values(take(subscription, 8)) == sent
    subscription.close()


def test_a_reader_without_a_group_has_every_partition_beside_any_other(log: EventLog, topic: str) -> None:
    sent = fill(log, topic, 8)
    readers = [log.subscribe([topic], None) for _ in range(2)]
    assert [values(take(reader, 8)) for reader in readers] == [sent, sent]
    for reader in readers:
        reader.close()


def test_a_reader_without_a_group_begins_where_it_is_told_and_elsewhere_at_the_oldest(
    log: EventLog, topic: str
) -> None:
    fill(log, topic, 40, keys=20)
    everything = list(log.replay(topic))
    lengths = Counter(message.partition for message in everything)
    begin = {(topic, number): lengths[number] // 2 for number in lengths if number != min(lengths)}
    expected = {(one.partition, one.offset) for one in everything if one.offset >= begin.get((topic, one.partition), 0)}
    reader = log.subscribe([topic], None, begin)
    assert {(one.partition, one.offset) for one in take(reader, len(expected))} == expected
    assert reader.poll(0.0) == []
    reader.close()


def test_replay_ends_at_the_newest_message_of_the_time_of_the_call(log: EventLog, topic: str) -> None:
    sent = fill(log, topic, 10)
    replayed = log.replay(topic)
    fill(log, topic, 5)
    assert sorted(message.value for message in replayed) == sent


def test_replay_of_a_topic_that_does_not_exist_is_empty(log: EventLog) -> None:
    assert list(log.replay(fresh("topic"))) == []


def test_replay_begins_where_it_is_told_and_elsewhere_at_the_oldest(log: EventLog, topic: str) -> None:
    fill(log, topic, 40, keys=20)
    everything = list(log.replay(topic))
    lengths = Counter(message.partition for message in everything)
    begin = {(topic, number): lengths[number] // 2 for number in lengths if number != min(lengths)}
    begin[("another topic", min(lengths))] = 3
    read = {(message.partition, message.offset) for message in log.replay(topic, begin)}
    assert read == {
        (message.partition, message.offset)
        for message in everything
        if message.offset >= begin.get((topic, message.partition), 0)
    }


def test_replay_from_the_end_or_beyond_it_gives_nothing(log: EventLog, topic: str) -> None:
    fill(log, topic, 20, keys=20)
    ends = log.ends(topic)
    assert list(log.replay(topic, {(topic, number): end for number, end in ends.items()})) == []
    assert list(log.replay(topic, {(topic, number): end + 5 for number, end in ends.items()})) == []


def test_replay_reads_only_the_partitions_asked_for(log: EventLog, topic: str) -> None:
    fill(log, topic, 40, keys=20)
    everything = list(log.replay(topic))
    wanted = {message.partition for message in everything[:1]}
    assert [message.offset for message in log.replay(topic, partitions=wanted)] == [
        message.offset for message in everything if message.partition in wanted
    ]
    assert list(log.replay(topic, partitions=[])) == []
    assert list(log.replay(topic, partitions=[99])) == []


def test_replay_from_below_the_oldest_begins_at_the_oldest(log: EventLog, topic: str) -> None:
    fill(log, topic, 10, keys=1)
    number = next(iter(log.replay(topic))).partition
    trim(log, topic, number, before=4)
    assert [message.offset for message in log.replay(topic, {(topic, number): 2})] == [4, 5, 6, 7, 8, 9]


def test_fetch_gives_the_message_at_each_place(log: EventLog, topic: str) -> None:
    fill(log, topic, 60, keys=20)
    log.append(topic, "key-é", b"with headers", {"note": "é"})
    log.flush(WITHIN_S)
    everything = list(log.replay(topic))
    across = sorted(everything, key=lambda message: message.offset)
    for message in [*everything, *reversed(everything), *across[::3]]:
        assert log.fetch(topic, message.partition, message.offset) == message


def test_fetch_gives_nothing_where_nothing_is_yet_and_the_message_once_it_is(log: EventLog, topic: str) -> None:
    for _ in range(2):
        fill(log, topic, 3, keys=1)
        number, end = next((number, end) for number, end in log.ends(topic).items() if end)
        assert [log.fetch(topic, number, at) for at in (end, end + 1, end + 100)] == [None, None, None]
        log.append(topic, "key-0", b"new", {})
        log.flush(WITHIN_S)
        found = log.fetch(topic, number, end)
        assert found is not None
        assert (found.offset, found.value) == (end, b"new")


def test_fetch_gives_nothing_below_the_oldest(log: EventLog, topic: str) -> None:
    fill(log, topic, 10, keys=1)
    number = next(iter(log.replay(topic))).partition
    trim(log, topic, number, before=4)
    assert [at for at in range(10) if log.fetch(topic, number, at)] == [4, 5, 6, 7, 8, 9]


def test_fetch_of_places_that_cannot_be_gives_nothing(log: EventLog, topic: str) -> None:
    fill(log, topic, 5)
    assert log.fetch(topic, 99, 0) is None
    assert log.fetch(topic, 0, -1) is None
    assert log.fetch(fresh("topic"), 0, 0) is None


def test_fetch_in_several_threads_gives_each_its_own(log: EventLog, topic: str) -> None:
    fill(log, topic, 100, keys=20)
    everything = list(log.replay(topic))

    def read(thread: int) -> None:
        for message in everything[thread::4]:
            assert log.fetch(topic, message.partition, message.offset) == message

    assert together(4, read) == []


def test_fetch_commits_nothing_and_moves_no_subscription(log: EventLog, topic: str) -> None:
    sent, group = fill(log, topic, 10, keys=1), fresh("group")
    subscription = log.subscribe([topic], group)
    read = take(subscription, 5)
    assert log.fetch(topic, read[0].partition, 8) is not None
    assert [message.value for message in take(subscription, 5)] == sent[5:]
    assert log.lag(group, [topic]) == {topic: 10}
    subscription.close()


def test_ends_are_where_the_next_messages_go(log: EventLog, topic: str) -> None:
    assert log.ends(topic) == dict.fromkeys(range(4), 0)
    fill(log, topic, 20, keys=20)
    lengths = Counter(message.partition for message in log.replay(topic))
    assert log.ends(topic) == {number: lengths[number] for number in range(4)}


def test_ends_stay_when_old_messages_are_removed(log: EventLog, topic: str) -> None:
    fill(log, topic, 10, keys=1)
    before = log.ends(topic)
    trim(log, topic, next(number for number, end in before.items() if end), before=10)
    assert log.ends(topic) == before


def test_ends_of_a_topic_that_does_not_exist_are_none(log: EventLog) -> None:
    assert log.ends(fresh("topic")) == {}


def test_replay_commits_nothing_and_joins_no_group(log: EventLog, topic: str) -> None:
    fill(log, topic, 5)
    group = fresh("group")
    list(log.replay(topic))
    assert log.lag(group, [topic]) == {topic: 5}


def test_lag_counts_what_the_group_has_not_committed(log: EventLog, topic: str) -> None:
    group, unknown = fresh("group"), fresh("topic")
    fill(log, topic, 20)
    assert log.lag(group, [topic, unknown]) == {topic: 20, unknown: 0}
    subscription = log.subscribe([topic], group)
    read = take(subscription, 20)
    subscription.commit(positions(read[:7]))
    assert log.lag(group, [topic]) == {topic: 13}
    subscription.commit(positions(read))
    assert log.lag(group, [topic]) == {topic: 0}
    subscription.close()


def test_seek_moves_within_the_assignment(log: EventLog, topic: str) -> None:
    sent = fill(log, topic, 10, keys=1)
    subscription = log.subscribe([topic], fresh("group"))
    read = take(subscription, 10)
    place = (topic, read[0].partition)
    assert place in subscription.assignment()
    subscription.seek({place: 6})
    assert [message.value for message in take(subscription, 4)] == sent[6:]
    subscription.close()


def test_creating_a_topic_again_changes_nothing(log: EventLog, topic: str) -> None:
    sent = fill(log, topic, 10)
    log.create([TopicSpec(topic, 9, None), TopicSpec(fresh("topic"), 1, None)])
    assert sorted(message.value for message in log.replay(topic)) == sent
    assert {message.partition for message in log.replay(topic)} <= set(range(4))


def test_creating_topics_at_the_same_time_in_several_threads_succeeds(log: EventLog) -> None:
    specs = [TopicSpec(fresh("topic"), 2, None) for _ in range(3)]
    failures = together(4, lambda _: log.create(specs))
    assert failures == []
    assert log.lag(fresh("group"), [spec.name for spec in specs]) == {spec.name: 0 for spec in specs}


def test_a_message_to_an_unknown_topic_makes_the_topic(log: EventLog) -> None:
    topic = fresh("traces") + ".group.dlq"
    log.append(topic, "key", b"undecodable", {"why": "test"})
    log.flush(WITHIN_S)
    assert [(message.partition, message.value) for message in log.replay(topic)] == [(0, b"undecodable")]


def test_messages_of_several_threads_all_arrive(log: EventLog, topic: str) -> None:
    def send(thread: int) -> None:
        for number in range(50):
            log.append(topic, f"key-{thread}", f"{thread}-{number:02d}".encode(), {})
        log.flush(WITHIN_S)

    assert together(4, send) == []
    read = list(log.replay(topic))
    for thread in range(4):
        of_thread = [message.value for message in read if message.key == f"key-{thread}"]
        assert of_thread == [f"{thread}-{number:02d}".encode() for number in range(50)]


def test_two_consumers_share_partitions_without_overlap_and_a_key_of_both_topics_meets_in_one(log: EventLog) -> None:
    topics, group = [fresh("topic"), fresh("topic")], fresh("group")
    log.create([TopicSpec(topic, 3, None) for topic in topics])
    everything = {(topic, number) for topic in topics for number in range(3)}
    members = [log.subscribe(topics, group) for _ in range(2)]
    shared = threading.Event()

    def settle(number: int) -> None:
        deadline = Deadline.after(WITHIN_S)
        while not shared.is_set() and not deadline.passed():
            members[number].poll(0.2)
            first, second = (member.assignment() for member in members)
            if first and second and not first & second and first | second == everything:
                shared.set()

    assert together(2, settle) == []
    assert shared.is_set(), [member.assignment() for member in members]
    for member in members:
        numbers = [{number for name, number in member.assignment() if name == topic} for topic in topics]
        assert numbers[0] == numbers[1]
        member.close()


def test_partitions_that_went_to_another_and_came_back_are_read_again_from_what_was_committed(
    log: EventLog, topic: str
) -> None:
    sent, group = fill(log, topic, 20), fresh("group")
    first = log.subscribe([topic], group)
    read = take(first, 20)
    assert values(read) == sent
    second = log.subscribe([topic], group)
    went, again, deadline = set[tuple[str, int]](), list[Message](), Deadline.after(WITHIN_S)

    def came_back() -> bool:
        lost = {message.value for message in read if (message.topic, message.partition) in went}
        return bool(went) and lost <= {message.value for message in again}

    def stay(_number: int) -> None:
        while not came_back() and not deadline.passed():
            again.extend(first.poll(0.2))

    def come_and_go(_number: int) -> None:
        while not second.assignment() and not deadline.passed():
            second.poll(0.2)
        went.update(second.assignment())
        second.close()

    assert together(2, lambda number: (stay, come_and_go)[number](number)) == []
    assert came_back()
    first.close()


def together(threads: int, run: Callable[[int], None]) -> list[BaseException]:
    """Run `run(0)`, `run(1)`, ... at once; what they raised."""
    failures: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            run(number)
        except Exception as exc:  # noqa: BLE001 - handed to the test, which expects none
            failures.append(exc)

    running = [threading.Thread(target=guarded, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return failures
