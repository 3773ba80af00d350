"""Messages that a stage could not use, kept with their original bytes, key and headers, and why.

    dead      `<topic>.<group>.dlq`: damaged, or about nothing known. No stage reads it again unless it is put back
    parked    `<topic>.<group>.parked`: of a version that its reader does not know yet; put back once one does
    late      `<topic>.<group>.late`: feedback that came after its session closed; a note, and never put back

A letter is as sealed as its message was: of somebody who was erased since that was read, there is none.

Delivery is at least once, so the same message may be written twice: it counts once, by where it lay. Putting letters
back is `ingest.log.redrive`'s.
"""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from infra import telemetry
from infra.errors import ErasedError
from infra.telemetry import metrics, names
from ingest.log.places import Place
from ingest.log.protocol import EventLog, Message
from ingest.log.topics import dead_letters, parked
from ingest.records.events import Headers

logger = logging.getLogger(__name__)

REDRIVEN = "redriven"  # the header that counts how often a message was put back

_ERROR = "onstream.errors."
_MAX_DIGITS = 9


class Failure(StrEnum):
    """Why a message could not be used, as the header `onstream.errors.exception` says it."""

    UNREADABLE = "RecordError"
    UNCLAIMED = "Unclaimed"
    LATE = "Late"
    ORPHANED = "Orphaned"
    NEWER = "NewerError"


@dataclass(frozen=True)
class Letter:
    """A letter: `message` is how it lies among the letters, `origin` where it lay when it failed.

    `told` says what was wrong, and `at` when that was found, in Unix seconds.
    """

    message: Message
    origin: Place
    failure: Failure
    told: str
    at: float

    @property
    def place(self) -> Place:
        return Place.of(self.message)

    @property
    def original_headers(self) -> Headers:
        return {name: value for name, value in self.message.headers.items() if not name.startswith(_ERROR)}

    @property
    def times(self) -> int:
        """How often it had been put back before it failed this time."""
        said = self.message.headers.get(REDRIVEN, "")
        return int(said) if said.isdecimal() and len(said) <= _MAX_DIGITS else 0

    @classmethod
    def of(cls, message: Message) -> "Letter | None":
        """`None` for a message without the headers of a letter: somebody else wrote it."""
        said = {name: message.headers.get(_ERROR + name, "") for name in ("topic", "partition", "offset", "at")}
        try:
            origin = Place.parse(f"{said['topic']}/{said['partition']}@{said['offset']}")
            at = float(said["at"])
        except ValueError:
            return None
        failure = message.headers.get(_ERROR + "exception")
        known = Failure(failure) if failure in tuple(Failure) else Failure.UNREADABLE
        return cls(message, origin, known, message.headers.get(_ERROR + "message", ""), at)


def bury(log: EventLog, group: str, message: Message, failure: Failure, told: str) -> bool:
    """Append a message to its group's dead letters, and count it. `told` says what was wrong. As `write` does."""
    is_written = write(log, dead_letters(message.topic, group), message, failure, told)
    if is_written:
        telemetry.count(metrics.DEAD_LETTERS, 1, {names.DESTINATION: message.topic, names.CAUSE: failure.value})
    return is_written


def park(log: EventLog, group: str, message: Message, told: str) -> bool:
    """Append a message to what its group keeps until it knows its version. It is no dead letter. As `write` does."""
    is_written = write(log, parked(message.topic, group), message, Failure.NEWER, told)
    if is_written:
        telemetry.count(metrics.PARKED, 1, {names.DESTINATION: message.topic})
    return is_written


def write(log: EventLog, topic: str, message: Message, failure: Failure, told: str) -> bool:
    """Append a message to `topic` as it was, with error headers.

    `False`: it is not written, since whom it is about was erased after it was read.
    """
    errors = {
        "topic": message.topic,
        "partition": str(message.partition),
        "offset": str(message.offset),
        "exception": failure.value,
        "message": told,
        "at": f"{time.time():.3f}",
    }
    headers = message.headers | {_ERROR + name: value for name, value in errors.items()}
    try:
        log.append(topic, message.key, message.value, headers)
    except ErasedError as exc:
        logger.info("%s/%d@%d: no letter: %s", message.topic, message.partition, message.offset, exc)
        return False
    return True


def each(log: EventLog, topic: str) -> Iterator[Letter]:
    """Every letter of a topic, oldest first, once. Messages that are no letters are passed over."""
    seen: set[Place] = set()
    for message in log.replay(topic):
        letter = Letter.of(message)
        if letter is not None and letter.origin not in seen:
            seen.add(letter.origin)
            yield letter


def read(log: EventLog, topic: str) -> dict[str, Failure]:
    """Every message of a topic of letters, by where it lay before (`topic/partition@offset`), and why it is there."""
    return {str(letter.origin): letter.failure for letter in each(log, topic)}
