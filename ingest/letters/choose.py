"""Which letters are meant, and which of them may be put back."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial

from infra.errors import RecordError
from ingest.log import letters
from ingest.log.letters import Failure, Letter
from ingest.log.places import Place
from ingest.log.protocol import EventLog
from ingest.log.topics import FEEDBACK, READERS, TRACES, Topic, dead_letters, late_letters, parked
from ingest.records import codec
from ingest.records.events import Feedback, Trace, key_of
from ingest.records.ids import is_trace_id
from ingest.records.prefixes import AnyPrefix
from ingest.sessions import elders
from ingest.sessions.held import Held

MAX_TIMES = 3


def label(failure: Failure) -> str:
    """A failure, as people name it."""
    return failure.name.lower()


def times(letter: Letter) -> str:
    """How often it had been put back, for people."""
    return {0: "never", 1: "once"}.get(letter.times, f"{letter.times} times")


@dataclass(frozen=True)
class Source:
    """A topic of letters: `name`, whose group left them there, and the topic they came from."""

    name: str
    group: str
    topic: Topic


SOURCES = tuple(
    Source(name(topic.name, group), group, topic)
    for group, read in READERS.items()
    for topic in read
    for name in (dead_letters, parked)
)
"""Every topic of letters that can be put back."""
NOTES = Source(late_letters(FEEDBACK.name, "ingest"), "ingest", FEEDBACK)
"""The topic of what came too late: notes, which nothing is to be done about."""
SHOWN = (*SOURCES, NOTES)


@dataclass(frozen=True)
class Wanted:
    """A choice of letters; `None` is any. `place` is a letter's own or where it lay before."""

    topic: str | None = None
    group: str | None = None
    failure: Failure | None = None
    place: Place | None = None

    def sources(self) -> Iterator[Source]:
        for source in SOURCES if self.place is None else SHOWN:
            is_placed = self.place is None or self.place.topic in (source.name, source.topic.name)
            if is_placed and self.topic in (None, source.topic.name) and self.group in (None, source.group):
                yield source

    def takes(self, letter: Letter) -> bool:
        return self.failure in (None, letter.failure) and self.place in (None, letter.place, letter.origin)


@dataclass
class Rules:
    """What is refused. `keys` gives the keys of all sessions that traces are there of; it is asked once, if at all.
    `is_whole` tells whether all is there that a trace leans on.
    """

    max_times: int
    is_forced: bool
    keys: Callable[[], frozenset[str]]
    is_whole: Callable[[Trace], bool]

    @classmethod
    def of(cls, log: EventLog, max_times: int, is_forced: bool = False) -> "Rules":
        """The rules, by what lies on a log."""
        return cls(max_times, is_forced, partial(keys_of_traces, log), Lines(log).is_whole)

    def refusal(self, letter: Letter, topic: Topic) -> str | None:
        """Why a letter is not put back, for people; `None`: it is."""
        if letter.failure is Failure.LATE:
            return "it is a note: the session was closed without it, and nothing is to be done"
        if letter.times >= self.max_times:
            return f"was put back {times(letter)} before, and --max-times is {self.max_times}"
        if self.is_forced:
            return None
        again = self.would_fail(letter, topic)
        return f"would fail again: {again}" if again else None

    def would_fail(self, letter: Letter, topic: Topic) -> str | None:
        """Why its reader could not use it now either; `None`: nothing is known against it."""
        try:
            record = codec.decode(letter.message.value, letter.message.headers, topic.record)
        except RecordError as exc:
            return str(exc)
        if letter.failure is Failure.UNCLAIMED and isinstance(record, Feedback):
            return self._unclaimed(record)
        if letter.failure is Failure.ORPHANED and isinstance(record, Trace) and not self.is_whole(record):
            return "what its prefix leans on is still not on the log"
        return None

    def _unclaimed(self, feedback: Feedback) -> str | None:
        if not feedback.session_id and not is_trace_id(feedback.trace_id or ""):
            return "it names what can be no trace"
        key = key_of(session_id=feedback.session_id, trace_id=feedback.trace_id)
        return None if key in self._keys else "there is still no trace of its session"

    @cached_property
    def _keys(self) -> frozenset[str]:
        return self.keys()


def keys_of_traces(log: EventLog) -> frozenset[str]:
    """The keys of all sessions that have a trace on the log. Replays the topic."""
    return frozenset(message.key for message in log.replay(TRACES.name))


class Lines:
    """Finds what orphaned traces lean on, by a replay of the traces of their sessions, once, if at all."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def is_whole(self, trace: Trace) -> bool:
        """Whether all that an orphaned trace's prefixes left out can be read. Raises `LogError`."""
        return elders.whole(trace, self._find) is not None

    def _find(self, prefix: AnyPrefix) -> Held | None:
        place = self._places.get(prefix.parent)
        return place and elders.held_at(self._log, place.partition, place.offset)

    @cached_property
    def _places(self) -> dict[str, Place]:
        found = letters.each(self._log, dead_letters(TRACES.name, "ingest"))
        keys = {letter.message.key for letter in found if letter.failure is Failure.ORPHANED}
        places = {}
        for message in self._log.replay(TRACES.name):
            if message.key in keys:
                with suppress(RecordError):
                    trace = codec.decode(message.value, message.headers, Trace)
                    places[trace.trace_id] = Place.of(message)
        return places


@dataclass
class Plan:
    """What a redrive of one topic of letters comes to. `refused` are (place, why)."""

    source: Source
    chosen: set[Place] = field(default_factory=set)
    refused: list[tuple[Place, str]] = field(default_factory=list)
    num_done: int = 0


def plan(log: EventLog, source: Source, wanted: Wanted, rules: Rules, is_done: Callable[[Letter], bool]) -> Plan:
    """Look at every letter of a topic; places are kept, and no payload. Raises `LogError`."""
    found = Plan(source)
    for letter in letters.each(log, source.name):
        if not wanted.takes(letter):
            continue
        if is_done(letter):
            found.num_done += 1
        elif why := rules.refusal(letter, source.topic):
            found.refused.append((letter.place, why))
        else:
            found.chosen.add(letter.origin)
    return found


def _at(log: EventLog, asked: str) -> tuple[Source, Letter] | None:
    """The letter that lies exactly there."""
    with suppress(ValueError):
        place = Place.parse(asked)
        for source in SHOWN:
            message = log.fetch(*place) if place.topic == source.name else None
            letter = Letter.of(message) if message else None
            if letter:
                return source, letter
    return None


def _holding(asked: str) -> list[Source]:
    """Where to look: a whole place says it itself."""
    try:
        place = Place.parse(asked)
    except ValueError:
        return list(SHOWN)
    return list(Wanted(place=place).sources()) or list(SHOWN)


@dataclass
class Found:
    """What a name stands for: one letter, or the places of several, or nothing."""

    letter: tuple[Source, Letter] | None = None
    places: list[Place] = field(default_factory=list)


def find(log: EventLog, asked: str) -> Found:
    """The letter at a place, its own or where it lay before; else the one whose own place `asked` is a part of: its
    end, where that names an offset.

    Raises:
        LogError: the log does not answer.
    """
    if at_once := _at(log, asked):
        return Found(at_once, [at_once[1].place])
    found = Found()
    for source in _holding(asked):
        for letter in letters.each(log, source.name):
            if asked == str(letter.origin):
                return Found((source, letter), [letter.place])
            if str(letter.place).endswith(asked) if "@" in asked else asked in str(letter.place):
                found.places.append(letter.place)
                found.letter = (source, letter) if len(found.places) == 1 else None
    return found
