"""Letters put back: the original message, each once, whenever the process that does it is killed."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from infra.config import LogConfig
from infra.errors import LogError
from infra.lifecycle import Deadline
from ingest.log import letters, redrive
from ingest.log.kafka_log import KafkaLog
from ingest.log.letters import Failure, Letter
from ingest.log.memory import InMemoryLog
from ingest.log.protocol import Message, TopicSpec
from ingest.log.reader import Reader, send
from ingest.log.redrive import Redriver
from ingest.log.topics import FATES, TRACES, Topic, dead_letters, parked, redriven
from ingest.records import codec
from ingest.records.events import Fate, FateKind, Headers, Record, Trace

MakeTrace = Callable[..., Trace]

GROUP = "ingest"
DLQ = dead_letters(TRACES.name, GROUP)
PARKED = parked(TRACES.name, GROUP)
NEXT = f"trace/{Trace.VERSION + 1}"
NUM = 5


class KilledError(Exception):
    """The process ended here."""


class Mortal:
    """A log whose process ends before its `at`-th append or flush."""

    def __init__(self, log: InMemoryLog, at: int, end: type[Exception] = KilledError) -> None:
        self._log, self._left, self._end = log, at, end

    def _live(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise self._end

    def append(self, topic: str, key: str, value: bytes, headers: Headers) -> None:
        self._live()
        self._log.append(topic, key, value, headers)

    def flush(self, timeout_s: float) -> None:
        self._live()
        self._log.flush(timeout_s)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


@pytest.fixture
def log() -> InMemoryLog:
    made = InMemoryLog()
    made.create([TopicSpec(TRACES.name, 2, None)])
    return made


def bury(log: InMemoryLog, num: int = NUM, headers: Headers | None = None) -> None:
    for number in range(num):
        message = Message(TRACES.name, number % 2, 10 + number, f"key {number}", b"value %d" % number, headers or {})
        letters.bury(log, GROUP, message, Failure.UNREADABLE, "because")


def put_back(log: InMemoryLog | Mortal) -> int:
    return Redriver(log, DLQ, clock=lambda: 7.0).put_back(letters.each(log, DLQ))


def values(log: InMemoryLog) -> list[bytes]:
    return sorted(message.value for message in log.replay(TRACES.name))


def test_what_is_put_back_is_the_message_that_failed_and_says_where_it_lay(log: InMemoryLog) -> None:
    bury(log, 1, {"schema": "trace/1", "traceparent": "00-aa-bb-01"})
    assert put_back(log) == 1
    (message,) = log.replay(TRACES.name)
    assert (message.key, message.value) == ("key 0", b"value 0")
    assert message.headers == {
        "schema": "trace/1",
        "traceparent": "00-aa-bb-01",
        "redriven": "1",
        "redriven-from": "traces/0@10",
        "redriven-via": DLQ,
        "redriven-at": "7.000",
    }
    assert (redrive.origin_of(message.headers), redrive.put_back_at(message.headers)) == ("traces/0@10", 7.0)


def test_a_letter_is_put_back_once_however_often_it_was_written_and_asked_for(log: InMemoryLog) -> None:
    bury(log)
    bury(log)
    assert [put_back(log), put_back(log)] == [NUM, 0]
    assert values(log) == [b"value %d" % number for number in range(NUM)]


def test_a_letter_that_fails_again_counts_how_often_it_was_put_back(log: InMemoryLog) -> None:
    log.append(TRACES.name, "key", b"broken", {"schema": "trace/1"})
    for expected in (0, 1, 2):
        reader = Reader(log, [TRACES], GROUP)
        reader.poll(0.0)
        reader.subscription.commit({(TRACES.name, part): len(held) for part, held in enumerate(partitions(log))})
        reader.close()
        newest = list(letters.each(log, DLQ))[-1]
        assert newest.times == expected
        assert put_back(log) == 1


def partitions(log: InMemoryLog) -> list[list[Message]]:
    found: list[list[Message]] = [[], []]
    for message in log.replay(TRACES.name):
        found[message.partition].append(message)
    return found


def num_steps() -> int:
    """Appends and flushes of one redrive of `NUM` letters."""
    log, num = InMemoryLog(), 0
    bury(log)
    while True:
        try:
            put_back(Mortal(log, num))
        except KilledError:
            num += 1
            log = InMemoryLog()
            bury(log)
        else:
            return num


@pytest.mark.parametrize("at", range(3 * NUM + 3))
def test_a_redrive_that_is_killed_anywhere_puts_every_letter_back_once(log: InMemoryLog, at: int) -> None:
    bury(log)
    with pytest.raises(KilledError):
        put_back(Mortal(log, at))
    put_back(log)
    assert values(log) == [b"value %d" % number for number in range(NUM)]
    assert len(redrive.done(log, DLQ)) == NUM
    assert put_back(log) == 0


def test_those_are_all_the_places_it_can_be_killed_at() -> None:
    assert num_steps() == 3 * NUM + 3


@pytest.mark.parametrize("at", range(2))
def test_a_redrive_killed_while_it_finds_out_what_the_one_before_did_is_harmless(log: InMemoryLog, at: int) -> None:
    bury(log, 1)
    with pytest.raises(KilledError):
        put_back(Mortal(log, 3))
    with pytest.raises(KilledError):
        put_back(Mortal(log, at))
    put_back(log)
    assert values(log) == [b"value 0"]


def test_what_an_earlier_redrive_did_is_looked_for_from_where_the_topic_ended_then(log: InMemoryLog) -> None:
    log.append(TRACES.name, "key 0", b"older", {"redriven-from": "traces/0@10", "redriven-via": DLQ})
    bury(log, 1)
    with pytest.raises(KilledError):
        put_back(Mortal(log, 2))
    put_back(log)
    assert values(log) == [b"older", b"value 0"]


def test_only_what_came_back_by_this_topic_of_letters_counts_as_put_back(log: InMemoryLog) -> None:
    bury(log, 1)
    with pytest.raises(KilledError):
        put_back(Mortal(log, 2))
    other = {"redriven-from": "traces/0@10", "redriven-via": "traces.lake.dlq"}
    log.append(TRACES.name, "key 0", b"another group's", other)
    assert put_back(log) == 1


def test_an_outage_in_mid_redrive_leaves_the_rest_to_the_next(log: InMemoryLog) -> None:
    bury(log)
    with pytest.raises(LogError):
        put_back(Mortal(log, NUM + 3, end=LogError))
    assert put_back(log) == NUM - 2
    assert len(values(log)) == NUM


def test_large_letters_are_not_held_all_at_once(log: InMemoryLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redrive, "_BATCH_BYTES", 10)
    bury(log)
    heard: list[int] = []
    Redriver(log, DLQ).put_back(letters.each(log, DLQ), heard.append)
    assert heard == [2, 2, 1]


# -- parking


def put_newer(log: InMemoryLog, *traces: Trace) -> None:
    for trace in traces:
        value, headers = codec.encode(trace)
        log.append(TRACES.name, trace.session_id, value, headers | {"schema": NEXT})


def read(log: InMemoryLog | Mortal, max_polls: int = 3) -> list[Trace]:
    """What a stage started now reads, until it has nothing more; its positions are committed."""
    reader = Reader(log, [TRACES], GROUP)
    try:
        found = [pair for _ in range(max_polls) for pair in reader.poll(0.0)]
        reader.subscription.commit({(TRACES.name, part): len(held) for part, held in enumerate(partitions(log))})
    finally:
        reader.close()
    return [record for _, record in found if isinstance(record, Trace)]


def test_a_record_of_a_newer_version_is_parked_and_is_no_dead_letter(log: InMemoryLog, make_trace: MakeTrace) -> None:
    put_newer(log, make_trace())
    assert read(log) == []
    (letter,) = letters.each(log, PARKED)
    assert (letter.failure, letter.origin.topic) == (Failure.NEWER, TRACES.name)
    assert letter.told.endswith(f"got {Trace.VERSION + 1}; upgrade the reader")
    assert list(log.replay(DLQ)) == []


def test_a_record_compressed_with_a_dictionary_of_a_newer_release_is_parked_until_a_reader_has_that(
    log: InMemoryLog, make_trace: MakeTrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    value, headers = codec.encode(make_trace())
    log.append(TRACES.name, "s", value, headers)
    with monkeypatch.context() as older:
        older.setattr(codec._zstd, "decompressors", {0: codec._zstd.decompressors[0]})
        assert read(log) == []
        (letter,) = letters.each(log, PARKED)
        assert "compressed with dictionary 1" in letter.told and list(log.replay(DLQ)) == []
    assert read(log) == [make_trace()]


def test_what_is_parked_stays_while_no_reader_knows_its_version(log: InMemoryLog, make_trace: MakeTrace) -> None:
    put_newer(log, make_trace())
    assert [read(log), read(log)] == [[], []]
    assert len(list(log.replay(TRACES.name))) == len(list(log.replay(PARKED))) == 1


def test_a_reader_that_knows_the_version_is_given_what_was_parked_once_and_in_order(
    log: InMemoryLog, make_trace: MakeTrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces = [make_trace("s", n) for n in range(4)]
    put_newer(log, *traces)
    read(log)
    monkeypatch.setattr(Trace, "VERSION", Trace.VERSION + 1)
    assert read(log) == traces
    assert read(log) == []
    came_from = [redrive.origin_of(message.headers) for message in log.replay(TRACES.name)][len(traces) :]
    assert came_from == [str(letter.origin) for letter in letters.each(log, PARKED)]


@pytest.mark.parametrize("at", range(12))
def test_a_stage_killed_while_it_puts_back_what_was_parked_loses_and_repeats_nothing(
    log: InMemoryLog, make_trace: MakeTrace, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    traces = [make_trace(f"s{n}") for n in range(3)]
    put_newer(log, *traces)
    read(log)
    monkeypatch.setattr(Trace, "VERSION", Trace.VERSION + 1)
    with pytest.raises(KilledError):
        read(Mortal(log, at))
    assert sorted(trace.session_id for trace in read(log)) == ["s0", "s1", "s2"]


def test_what_was_parked_is_put_back_by_the_reader_of_its_partition_alone(
    log: InMemoryLog, make_trace: MakeTrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_newer(log, *(make_trace(f"s{n}") for n in range(8)))
    read(log)
    by_partition = [len(held) for held in partitions(log)]
    assert all(by_partition)
    monkeypatch.setattr(Trace, "VERSION", Trace.VERSION + 1)
    assert redrive.put_back_parked(log, GROUP, TRACES, {1}) == by_partition[1]
    assert redrive.put_back_parked(log, GROUP, TRACES, {1}) == 0
    assert redrive.put_back_parked(log, GROUP, TRACES, {0}) == by_partition[0]


def test_what_was_parked_and_is_damaged_too_is_dead_lettered_when_its_version_is_known(
    log: InMemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    log.append(TRACES.name, "key", b"broken", {"schema": NEXT})
    read(log)
    monkeypatch.setattr(Trace, "VERSION", Trace.VERSION + 1)
    assert read(log) == []
    assert [letter.failure for letter in letters.each(log, DLQ)] == [Failure.UNREADABLE]


def test_a_stage_with_nothing_parked_writes_no_notes(log: InMemoryLog) -> None:
    send(log, FATES, "k", Fate(trace_id="t", kind=FateKind.EXPIRED, reason="test", at=1.0))
    reader = Reader(log, [FATES], "group")
    reader.poll(0.0)
    reader.close()
    assert list(log.replay(redriven(parked(FATES.name, "group")))) == []


def test_a_message_that_nobody_wrote_as_a_letter_is_passed_over(log: InMemoryLog) -> None:
    log.append(DLQ, "key", b"stray", {"onstream.errors.topic": "traces"})
    bury(log, 1)
    assert [letter.message.value for letter in letters.each(log, DLQ)] == [b"value 0"]
    stray = next(iter(log.replay(DLQ)))
    assert Letter.of(stray) is None


def test_over_a_real_broker_what_was_parked_comes_back_to_the_next_reader(
    kafka_config: LogConfig, make_trace: MakeTrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, log = Topic(f"traces-{uuid.uuid4().hex[:12]}", Trace), KafkaLog(kafka_config, "test")
    log.create([TopicSpec(topic.name, 2, None)])
    value, headers = codec.encode(make_trace())
    log.append(topic.name, "key", value, headers | {"schema": NEXT})
    log.flush(10.0)

    def read_one() -> Record | None:
        reader, deadline, found = Reader(log, [topic], "group"), Deadline.after(30.0), []
        while not found and not deadline.passed():
            found = reader.poll(0.5)
        log.flush(10.0)
        reader.subscription.commit({(message.topic, message.partition): message.offset + 1 for message, _ in found})
        reader.close()
        return found[0][1]

    assert read_one() is None
    monkeypatch.setattr(Trace, "VERSION", Trace.VERSION + 1)
    assert read_one() == make_trace()
    assert len(list(log.replay(topic.name))) == 2
    log.close()
