"""Letters put back on the topic they lay on: the original bytes, key and headers, each once.

The order, for a batch of letters:

    1. note    `begun` for each, with where the original topic ends now, on the notes' topic (`<letters>.redriven`),
               and flush
    2. append  the messages to the original topic, with four headers: `redriven` (how often), `redriven-from` (where
               it lay before), `redriven-via` (the topic of letters) and `redriven-at`; and flush
    3. note    `done` for each, and flush

A message that was put back is its own proof, so whoever finds `begun` without `done` looks for it on the original
topic, from where it ended then, before anything else is sent:

    killed between 1 and 2   it is not there: noted `missing`, and free to be put back
    killed between 2 and 3   it is there: noted `done`, and not sent again

The log cannot write to two topics at once without transactions, so two ways are left in which a letter lies there
twice: the broker takes the killed process's message after the next one has looked, or two processes put the same letter
back at the same time. Both copies have the same ids, and every sink keeps an id once: a repeat changes nothing.
"""

import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain

from infra import telemetry
from infra.errors import NewerError, RecordError
from infra.telemetry import metrics, names
from ingest.log import letters, topics
from ingest.log.letters import REDRIVEN, Letter
from ingest.log.protocol import EventLog, Message
from ingest.log.topics import Topic
from ingest.records import codec
from ingest.records.events import Headers

FROM, VIA, AT = "redriven-from", "redriven-via", "redriven-at"
FLUSH_S = 30.0

_BATCH = 100
_BATCH_BYTES = 16 << 20  # of payloads held at once, and the one that goes over it
_STEP = "onstream.redrive.step"


class Step(StrEnum):
    """What a note says of a letter; the last one counts."""

    BEGUN = "begun"
    MISSING = "missing"
    DONE = "done"


@dataclass(frozen=True)
class Note:
    """A step, and, where that is `begun`, the ends of the original topic then (partition -> offset)."""

    step: Step
    ends: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, message: Message) -> "Note":
        ends = json.loads(message.value) if message.value else {}
        return cls(Step(message.headers[_STEP]), {int(partition): offset for partition, offset in ends.items()})

    def value(self) -> bytes:
        return json.dumps(self.ends).encode() if self.ends else b""


def origin_of(headers: Headers) -> str | None:
    """Where a message that was put back lay before (`topic/partition@offset`); `None` for any other."""
    return headers.get(FROM)


def put_back_at(headers: Headers) -> float | None:
    """When a message was put back, in Unix seconds; `None` for any other."""
    try:
        return float(headers[AT])
    except (KeyError, ValueError):
        return None


def notes(log: EventLog, source: str) -> dict[str, Note]:
    """What is noted of each letter of a topic of letters, by where it lay (`topic/partition@offset`)."""
    return {message.key: Note.of(message) for message in log.replay(topics.redriven(source))}


def done(log: EventLog, source: str) -> frozenset[str]:
    """Which letters of a topic of letters were put back, by where they lay (`topic/partition@offset`)."""
    return frozenset(origin for origin, note in notes(log, source).items() if note.step is Step.DONE)


class Redriver:
    """Puts the letters of one topic back. Begins by finding out what an earlier one that was killed had done."""

    def __init__(
        self, log: EventLog, source: str, timeout_s: float = FLUSH_S, clock: Callable[[], float] = time.time
    ) -> None:
        self._log, self._source, self._timeout_s, self._clock = log, source, timeout_s, clock
        self._notes = notes(log, source)
        self._settle()

    def is_done(self, letter: Letter) -> bool:
        """It was put back before."""
        note = self._notes.get(str(letter.origin))
        return note is not None and note.step is Step.DONE

    def put_back(self, found: Iterable[Letter], say: Callable[[int], object] = lambda _num: None) -> int:
        """Put back what was not before; `say` hears the number of each batch. Returns how many there were.

        Raises:
            LogError: the log does not take them; call again on a new `Redriver`.
        """
        total = 0
        for batch in _batches(letter for letter in found if not self.is_done(letter)):
            ends = {topic: self._log.ends(topic) for topic in {letter.origin.topic for letter in batch}}
            self._note({str(letter.origin): Note(Step.BEGUN, ends[letter.origin.topic]) for letter in batch})
            self._append(batch)
            self._note({str(letter.origin): Note(Step.DONE) for letter in batch})
            total += len(batch)
            say(len(batch))
        return total

    def _append(self, batch: Sequence[Letter]) -> None:
        for letter in batch:
            again = {
                REDRIVEN: str(letter.times + 1),
                FROM: str(letter.origin),
                VIA: self._source,
                AT: f"{self._clock():.3f}",
            }
            self._log.append(
                letter.origin.topic, letter.message.key, letter.message.value, letter.original_headers | again
            )
            telemetry.count(metrics.REDRIVEN, 1, {names.DESTINATION: letter.origin.topic})
        self._log.flush(self._timeout_s)

    def _note(self, said: Mapping[str, Note]) -> None:
        for origin, note in said.items():
            self._log.append(topics.redriven(self._source), origin, note.value(), {_STEP: note.step.value})
            self._notes[origin] = note
        self._log.flush(self._timeout_s)

    def _settle(self) -> None:
        """Look for what was begun and not noted as done."""
        unsure = {origin: note.ends for origin, note in self._notes.items() if note.step is Step.BEGUN}
        if not unsure:
            return
        there: set[str] = set()
        for topic in {_topic(origin) for origin in unsure}:
            ends = [ends for origin, ends in unsure.items() if _topic(origin) == topic]
            there.update(origin for origin in self._sent_since(topic, ends) if origin in unsure)
        self._note({origin: Note(Step.DONE if origin in there else Step.MISSING) for origin in unsure})

    def _sent_since(self, topic: str, all_ends: Sequence[Mapping[int, int]]) -> Iterator[str]:
        """Where those lay that were put back since the earliest of these ends; all of a partition without one."""
        partitions = set(all_ends[0]).intersection(*all_ends)
        begin = {(topic, number): min(ends[number] for ends in all_ends) for number in partitions}
        for message in self._log.replay(topic, begin):
            if message.headers.get(VIA) == self._source:
                yield message.headers.get(FROM, "")


def put_back_parked(log: EventLog, group: str, topic: Topic, partitions: Collection[int]) -> int:
    """Put back what is parked for `group` from these partitions of `topic`, as far as this process knows its version.

    Whoever reads a partition puts back what lay in it, so that no two processes of a group do. Returns how many.

    Raises:
        LogError: the log gives or takes nothing.
    """
    source = topics.parked(topic.name, group)
    found = (
        letter
        for letter in letters.each(log, source)
        if letter.origin.partition in partitions and not _is_newer(letter.message, topic)
    )
    first = next(found, None)
    if first is None:
        return 0
    return Redriver(log, source).put_back(chain([first], found))


def _is_newer(message: Message, topic: Topic) -> bool:
    try:
        codec.decode(message.value, message.headers, topic.record)
    except NewerError:
        return True
    except RecordError:
        return False  # damaged after all: its reader will say so
    return False


def _batches(found: Iterable[Letter]) -> Iterator[list[Letter]]:
    batch: list[Letter] = []
    num_bytes = 0
    for letter in found:
        batch.append(letter)
        num_bytes += len(letter.message.value)
        if len(batch) >= _BATCH or num_bytes >= _BATCH_BYTES:
            yield batch
            batch, num_bytes = [], 0
    if batch:
        yield batch


def _topic(origin: str) -> str:
    return origin.partition("/")[0]
