"""The dead-letter path, and what records carry with them."""

import logging
import threading

import pytest

from infra.errors import LogError, NewerError, RecordError
from infra.lifecycle import Stop
from ingest.log.memory import InMemoryLog
from ingest.log.protocol import Message, TopicSpec
from ingest.log.reader import Follower, Reader, outlast_outages, replay, send
from ingest.log.topics import FATES, FEEDBACK, dead_letters
from ingest.records import codec
from ingest.records.events import Fate, FateKind, Feedback

DLQ = dead_letters(FATES.name, "group")


@pytest.fixture
def log() -> InMemoryLog:
    made = InMemoryLog()
    made.create([TopicSpec(FATES.name, 1, None), TopicSpec(FEEDBACK.name, 1, None)])
    return made


def fate(trace_id: str) -> Fate:
    return Fate(trace_ids=(trace_id,), kind=FateKind.EXPIRED, reason="test", at=1.0)


def drain(log: InMemoryLog) -> list[Message]:
    return list(log.replay(DLQ))


def test_an_undecodable_record_is_dead_lettered_and_the_reader_goes_on(
    log: InMemoryLog, caplog: pytest.LogCaptureFixture
) -> None:
    send(log, FATES, "k", fate("one"))
    log.append(FATES.name, "key", b"\xff not json", {"schema": "fate/1", "traceparent": "00-aa-bb-01"})
    send(log, FATES, "k", fate("two"))
    reader = Reader(log, [FATES], "group")
    with caplog.at_level(logging.ERROR):
        read = reader.poll(0.0)
    assert [record for _, record in read] == [fate("one"), None, fate("two")]
    assert [message.offset for message, _ in read] == [0, 1, 2]
    assert "fates/0@1: dead-lettered: fate/1: record" in caplog.text
    reader.close()


def test_a_dead_letter_has_the_original_bytes_key_and_headers_and_says_what_was_wrong(log: InMemoryLog) -> None:
    log.append(FATES.name, "key", b"\xff not json", {"schema": "fate/1", "traceparent": "00-aa-bb-01"})
    reader = Reader(log, [FATES], "group")
    reader.poll(0.0)
    (dead,) = drain(log)
    assert (dead.topic, dead.key, dead.value) == ("fates.group.dlq", "key", b"\xff not json")
    assert dead.headers["schema"] == "fate/1"
    assert dead.headers["traceparent"] == "00-aa-bb-01"
    errors = {name.removeprefix("onstream.errors."): value for name, value in dead.headers.items() if "errors" in name}
    assert float(errors.pop("at")) > 0.0
    assert errors.pop("message").startswith("fate/1: record: Invalid JSON")
    assert errors == {"topic": "fates", "partition": "0", "offset": "0", "exception": "RecordError"}
    reader.close()


def test_what_another_decoder_makes_of_a_message_is_read_and_what_it_refuses_is_dead_lettered(log: InMemoryLog) -> None:
    def text(message: Message) -> str:
        if message.key == "bad":
            raise RecordError("not this one")
        return message.value.decode()

    log.append(FATES.name, "good", b"as it came", {})
    log.append(FATES.name, "bad", b"neither", {})
    reader = Reader(log, [FATES], "group")
    assert [record for _, record in reader.poll_with(text, 0.0)] == ["as it came", None]
    assert [letter.headers["onstream.errors.message"] for letter in drain(log)] == ["not this one"]
    reader.close()


def test_records_are_decoded_by_the_topic_they_came_from(log: InMemoryLog) -> None:
    liked = Feedback(feedback_id="f", trace_id="t", tenant="default", value=1.0, at=1.0)
    send(log, FATES, "k", fate("one"))
    send(log, FEEDBACK, "k", liked)
    value, headers = codec.encode(liked)
    log.append(FATES.name, "k", value, headers)
    reader = Reader(log, [FATES, FEEDBACK], "group")
    read = {(message.topic, message.offset): record for message, record in reader.poll(0.0)}
    assert read == {("fates", 0): fate("one"), ("feedback", 0): liked, ("fates", 1): None}
    assert drain(log)[0].headers["onstream.errors.message"] == "expected schema fate/1..2, got 'feedback/2'"
    reader.close()


def test_a_follower_skips_what_it_cannot_read_and_dead_letters_nothing(log: InMemoryLog) -> None:
    log.append(FATES.name, "k", b"broken", {"schema": "fate/1"})
    send(log, FATES, "k", fate("one"))
    follower = Follower(log, [FATES])
    assert follower.poll(0.0) == [fate("one")]
    assert follower.poll(0.0) == []
    assert drain(log) == []
    follower.close()


def test_replay_skips_what_it_cannot_read(log: InMemoryLog) -> None:
    send(log, FATES, "k", fate("one"))
    log.append(FATES.name, "k", b"broken", {"schema": "fate/1"})
    send(log, FATES, "k", fate("two"))
    assert list(replay(log, FATES, Fate)) == [fate("one"), fate("two")]


def test_a_stage_begins_anew_after_the_log_failed_and_ends_when_it_returns() -> None:
    runs: list[str] = []

    def run() -> None:
        runs.append("begun")
        if len(runs) == 1:
            raise LogError("broker away")

    outlast_outages(Stop(), run)
    assert runs == ["begun", "begun"]


def test_a_stage_that_is_stopped_while_the_log_is_away_does_not_begin_anew() -> None:
    stop, runs = Stop(), []

    def run() -> None:
        runs.append("begun")
        threading.Thread(target=stop.set).start()
        raise LogError("broker away")

    outlast_outages(stop, run)
    assert runs == ["begun"]


def test_an_error_of_ours_is_not_mistaken_for_an_outage() -> None:
    def run() -> None:
        raise KeyError("defect")

    with pytest.raises(KeyError):
        outlast_outages(Stop(), run)


def put_newer(log: InMemoryLog, trace_id: str) -> None:
    value, headers = codec.encode(fate(trace_id))
    log.append(FATES.name, "k", value, headers | {"schema": f"fate/{Fate.VERSION + 1}"})


def test_a_follower_gives_what_lies_before_a_newer_record_and_nothing_behind_it(log: InMemoryLog) -> None:
    send(log, FATES, "k", fate("before"))
    put_newer(log, "newer")
    send(log, FATES, "k", fate("behind"))
    follower = Follower(log, [FATES])
    assert follower.poll(0.0) == [fate("before")]
    for _ in range(2):
        with pytest.raises(NewerError, match=r"^fates/0@1: fate: this reader knows versions .*; without it nothing"):
            follower.poll(0.0)
    follower.close()


def test_a_replay_does_not_leave_out_a_newer_record(log: InMemoryLog) -> None:
    send(log, FATES, "k", fate("before"))
    put_newer(log, "newer")
    with pytest.raises(NewerError, match="fates/0@1"):
        list(replay(log, FATES, Fate))


def test_a_process_that_is_too_old_ends_and_does_not_try_again(log: InMemoryLog) -> None:
    put_newer(log, "newer")
    runs: list[str] = []

    def run() -> None:
        runs.append("begun")
        list(replay(log, FATES, Fate))

    with pytest.raises(NewerError):
        outlast_outages(Stop(), run)
    assert runs == ["begun"]
