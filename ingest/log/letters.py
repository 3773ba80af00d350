"""Messages that a stage could not use, kept with their original bytes, key and headers, and why.

A dead letter is never read by a stage again; late feedback is noted in a topic of its own. Delivery is at least once,
so the same message may be written twice: `read` counts it once, by where it lay.
"""

import time
from enum import StrEnum

from infra import telemetry
from ingest.log.protocol import EventLog, Message
from ingest.log.topics import dead_letters
from ingest.records.events import Headers

_ERROR = "onstream.errors."


class Failure(StrEnum):
    """Why a message could not be used, as the header `onstream.errors.exception` says it."""

    UNREADABLE = "RecordError"
    UNCLAIMED = "Unclaimed"
    LATE = "Late"
    ORPHANED = "Orphaned"


def bury(log: EventLog, group: str, message: Message, failure: Failure, told: str) -> None:
    """Append a message to its group's dead letters, and count it. `told` says what was wrong."""
    write(log, dead_letters(message.topic, group), message, failure, told)
    telemetry.count(telemetry.DEAD_LETTERS, 1, topic=message.topic)


def write(log: EventLog, topic: str, message: Message, failure: Failure, told: str) -> None:
    """Append a message to `topic` as it was, with error headers."""
    errors = {
        "topic": message.topic,
        "partition": str(message.partition),
        "offset": str(message.offset),
        "exception": failure.value,
        "message": told,
        "at": f"{time.time():.3f}",
    }
    headers = message.headers | {_ERROR + name: value for name, value in errors.items()}
    log.append(topic, message.key, message.value, headers)


def read(log: EventLog, topic: str) -> dict[str, Failure]:
    """Every message of a topic of letters, by where it lay before (`topic/partition@offset`), and why it is there."""
    return {_origin(message.headers): _failure(message.headers) for message in log.replay(topic)}


def _origin(headers: Headers) -> str:
    topic, partition, offset = (headers.get(_ERROR + part, "?") for part in ("topic", "partition", "offset"))
    return f"{topic}/{partition}@{offset}"


def _failure(headers: Headers) -> Failure:
    said = headers.get(_ERROR + "exception")
    return Failure(said) if said in tuple(Failure) else Failure.UNREADABLE
