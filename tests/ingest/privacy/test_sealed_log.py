"""People's records are ciphertext in the log, plain to its readers, and nothing once their key is erased."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from clock import Clock

from infra.errors import ErasedError, LogError, RecordError, StoreError
from ingest.log.memory import InMemoryLog
from ingest.log.protocol import Message
from ingest.log.reader import Reader
from ingest.log.topics import TRACES, dead_letters
from ingest.privacy.keys import KeyStore
from ingest.privacy.sealed_log import SealedLog, sealed
from ingest.records import codec
from ingest.records.events import Trace

USER = "user-0a1b"
MakeStore = Callable[[], KeyStore]


class Unreachable:
    """Keys that do not answer."""

    def key_for(self, subject: str) -> Any:
        raise StoreError("keys at s3://keys: away")

    def find(self, subject: str, generation: str) -> Any:
        raise StoreError("keys at s3://keys: away")


@pytest.fixture
def inner() -> InMemoryLog:
    return InMemoryLog()


@pytest.fixture
def log(inner: InMemoryLog, store: KeyStore) -> SealedLog:
    return SealedLog(inner, store)


def only(log: InMemoryLog | SealedLog, topic: str = "traces") -> Message:
    (message,) = log.replay(topic)
    return message


def test_a_record_of_a_subject_is_ciphertext_in_the_log_and_plain_to_a_reader(
    log: SealedLog, inner: InMemoryLog, store: KeyStore
) -> None:
    log.append("traces", "key", b"what anna typed", {"schema": "trace/3", "subject": USER, "traceparent": "00"})
    name = store.key_for(USER).name
    kept = only(inner)
    assert b"anna" not in kept.value
    assert (kept.key, kept.headers) == ("key", {"schema": "trace/3", "sealed": name, "traceparent": "00"})
    subscription = log.subscribe(["traces"], "group")
    for read in (only(log), *subscription.poll(1.0)):
        assert read.value == b"what anna typed"
        assert read.headers == {"schema": "trace/3", "subject": name, "traceparent": "00"}
        assert (read.topic, read.partition, read.offset, read.key) == (kept.topic, 0, kept.offset, "key")


def test_a_record_of_no_subject_passes_as_it_is(log: SealedLog, inner: InMemoryLog) -> None:
    log.append("fates", "key", b"{}", {"schema": "fate/1"})
    assert only(inner, "fates") == only(log, "fates")
    assert (only(log, "fates").value, only(log, "fates").headers) == (b"{}", {"schema": "fate/1"})


def test_a_record_sealed_before_it_is_appended_is_not_sealed_again(
    log: SealedLog, inner: InMemoryLog, store: KeyStore
) -> None:
    value, headers = sealed(b"text", {"schema": "trace/3", "subject": USER}, store)
    log.append("traces", "key", value, headers | {"subject": USER})
    kept = only(inner)
    assert (kept.value, kept.headers["sealed"]) == (value, headers["sealed"])
    assert only(log).value == b"text"


def test_a_sealed_record_may_be_moved_to_another_topic_as_it_lies(log: SealedLog, inner: InMemoryLog) -> None:
    log.append("traces", "key", b"text", {"schema": "trace/3", "subject": USER})
    inner.append("traces.ingest.dlq", "key", only(inner).value, only(inner).headers)
    assert only(log, "traces.ingest.dlq").value == b"text"


@pytest.mark.parametrize("is_copy", [False, True])
def test_every_copy_of_a_record_is_unreadable_once_its_subject_is_erased(
    log: SealedLog, inner: InMemoryLog, make_store: MakeStore, is_copy: bool
) -> None:
    log.append("traces", "key", b"text", {"schema": "trace/3", "subject": USER})
    copy = InMemoryLog()
    copy.append("traces", "key", only(inner).value, only(inner).headers)
    make_store().erase(USER)
    message = only(SealedLog(copy if is_copy else inner, make_store()))
    assert (message.value, message.headers) == (b"", {"schema": "trace/3", "erased": USER})
    with pytest.raises(ErasedError, match=f"^trace/3: {USER} was erased$"):
        codec.decode(message.value, message.headers, Trace)


def test_a_returning_user_is_sealed_under_a_new_generation_and_what_was_before_stays_erased(
    log: SealedLog, store: KeyStore
) -> None:
    log.append("traces", "key", b"before", {"subject": USER})
    store.erase(USER)
    log.append("traces", "key", b"after", {"subject": USER})
    before, after = log.replay("traces")
    assert (before.value, before.headers) == (b"", {"erased": USER})
    assert (after.value, after.headers["subject"][:12]) == (b"after", f"{USER}/2-")


def test_what_was_made_of_an_erased_record_is_not_written_also_when_the_user_has_returned(
    log: SealedLog, inner: InMemoryLog, store: KeyStore
) -> None:
    log.append("traces", "key", b"text", {"schema": "trace/3", "subject": USER})
    read = only(log)
    store.erase(USER)
    store.key_for(USER)
    derived = {"schema": "trajectory/3", "subject": read.headers["subject"]}
    with pytest.raises(ErasedError, match=f"trajectory/3: {USER} was erased; nothing more is written of it"):
        log.append("trajectories", "key", b"made of text", derived)
    assert list(inner.replay("trajectories")) == []


def test_what_is_made_of_a_record_is_sealed_under_the_same_generation(
    log: SealedLog, inner: InMemoryLog, store: KeyStore
) -> None:
    log.append("traces", "key", b"text", {"schema": "trace/3", "subject": USER})
    log.append("trajectories", "key", b"made", {"schema": "trajectory/3", "subject": only(log).headers["subject"]})
    assert only(inner, "trajectories").headers["sealed"] == only(inner).headers["sealed"]
    assert only(log, "trajectories").value == b"made"


def test_an_erasure_takes_hold_in_a_running_reader_when_its_keys_lifetime_ends(
    log: SealedLog, make_store: MakeStore, clock: Clock
) -> None:
    log.append("traces", "key", b"text", {"subject": USER})
    make_store().erase(USER)
    clock.now += 29
    assert only(log).value == b"text"
    clock.now += 2
    assert only(log).value == b""


@pytest.mark.parametrize("damage", ["value", "schema", "subject", "name"])
def test_a_record_that_was_altered_is_refused_keeps_its_bytes_and_stops_nothing(
    log: SealedLog, inner: InMemoryLog, store: KeyStore, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    value, headers = sealed(b"text", {"schema": "trace/3", "subject": USER}, store)
    other = store.key_for("user-other").name
    bad = {
        "value": (value[:-1] + bytes([value[-1] ^ 1]), headers),
        "schema": (value, headers | {"schema": "feedback/2"}),
        "subject": (value, headers | {"sealed": other}),
        "name": (value, headers | {"sealed": "../../secret"}),
    }[damage]
    inner.append("traces", "key", *bad)
    log.append("traces", "key", b"after", {"subject": USER})
    with caplog.at_level(logging.WARNING):
        altered, after = log.subscribe(["traces"], "group").poll(1.0)
    assert (altered.value, altered.headers, after.value) == (*bad, b"after")
    assert caplog.messages[0].startswith("traces/0@0: ")
    with pytest.raises(RecordError, match=r"sealed under .*, and did not open"):
        codec.decode(altered.value, altered.headers, Trace)


def test_a_record_that_does_not_open_is_dead_lettered_with_the_bytes_it_had(
    log: SealedLog, inner: InMemoryLog, store: KeyStore
) -> None:
    value, headers = sealed(b"text", {"schema": "trace/3", "subject": USER}, store)
    inner.append("traces", "key", value[:-1], headers)
    ((_, record),) = Reader(log, [TRACES], "ingest").poll(1.0)
    assert record is None
    buried = only(inner, dead_letters("traces", "ingest"))
    assert (buried.value, buried.headers["sealed"]) == (value[:-1], headers["sealed"])


def test_an_unreadable_record_is_not_plain_among_the_dead_letters(log: SealedLog, inner: InMemoryLog) -> None:
    log.append("traces", "key", b"anna, but no trace", {"schema": "trace/1", "subject": USER})
    Reader(log, [TRACES], "ingest").poll(1.0)
    buried = only(inner, dead_letters("traces", "ingest"))
    assert b"anna" not in buried.value and buried.headers["sealed"] == only(inner).headers["sealed"]


def test_keys_that_do_not_answer_are_an_outage_of_the_log(inner: InMemoryLog, store: KeyStore) -> None:
    SealedLog(inner, store).append("traces", "key", b"text", {"subject": USER})
    away = SealedLog(inner, Unreachable())
    with pytest.raises(LogError, match="append to traces: keys at s3://keys: away"):
        away.append("traces", "key", b"text", {"subject": USER})
    with pytest.raises(LogError, match="traces/0@0: keys at s3://keys: away"):
        list(away.replay("traces"))
    with pytest.raises(LogError, match="traces/0@0: keys at s3://keys: away"):
        away.subscribe(["traces"], "group").poll(1.0)


def test_what_was_polled_while_the_keys_were_away_is_polled_again(inner: InMemoryLog, store: KeyStore) -> None:
    flaky = SealedLog(inner, store)
    flaky.append("other", "key", b"plain", {})
    for number in range(3):
        flaky.append("traces", "key", f"{number}".encode(), {"subject": USER})
    subscription = flaky.subscribe(["other", "traces"], "group")
    assert len(subscription.poll(1.0, 2)) == 2
    flaky._keyring = Unreachable()
    with pytest.raises(LogError, match="traces/0@1"):
        subscription.poll(1.0)
    flaky._keyring = store
    assert [message.value for message in subscription.poll(1.0)] == [b"1", b"2"]


def test_a_subject_that_can_be_none_is_refused(log: SealedLog, inner: InMemoryLog) -> None:
    with pytest.raises(RecordError, match="a subject is 1 to 128"):
        log.append("traces", "key", b"text", {"subject": "anna@example.org"})
    assert list(inner.replay("traces")) == []
