"""From a message to the facts it says.

A fact's key is the record's own, which its trace ids begin with, and the message's where the record cannot be read: so
a message, its letter and what was put back of it have the same one.

Only the fields that are needed are decoded, and validated. A record that its stage refuses for another field is
readable here, and its letter says what became of it.

A record that was erased has no time. It counts by the ids in its headers, at the time of the newest record before it
in its partition.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from pydantic import BaseModel, ConfigDict

from infra.errors import ErasedError, RecordError
from ingest.audit.facts import (
    BackFact,
    ClosedFact,
    Fact,
    FateFact,
    FeedbackFact,
    JoinedFact,
    LetterFact,
    RewardedFact,
    TraceFact,
    UnreadableFact,
)
from ingest.audit.sources import SOURCES, TOPICS, Source
from ingest.log import redrive
from ingest.log.letters import Letter
from ingest.log.protocol import Message
from ingest.log.reader import place
from ingest.log.topics import FATES, FEEDBACK, REWARDS, TRACES, TRAJECTORIES, Topic
from ingest.records import codec
from ingest.records.events import FateKind, Name, key_of
from ingest.records.named import ids_in, trace_ids_in


class _Part(BaseModel, ABC):
    """Some fields of a record. `key` is its session's, `when` its time."""

    model_config = ConfigDict(extra="ignore")

    @property
    @abstractmethod
    def key(self) -> str: ...

    @property
    @abstractmethod
    def when(self) -> float: ...

    @abstractmethod
    def facts(self, where: str, back_at: float | None) -> Iterable[Fact]: ...


class _Trace(_Part):
    trace_id: Name
    finished_at: float

    @property
    def key(self) -> str:
        return _session(self.trace_id)

    @property
    def when(self) -> float:
        return self.finished_at

    def facts(self, where: str, back_at: float | None) -> Iterable[Fact]:
        return (TraceFact(_session(self.trace_id), self.trace_id, self.finished_at, where, back_at),)


class _Feedback(_Part):
    feedback_id: Name
    trace_id: str | None = None
    session_id: str | None = None
    at: float

    @property
    def key(self) -> str:
        return key_of(session_id=self.session_id, trace_id=self.trace_id)

    @property
    def when(self) -> float:
        return self.at

    def facts(self, where: str, back_at: float | None) -> Iterable[Fact]:
        return (FeedbackFact(self.key, self.feedback_id, self.at, where, back_at),)


class _Turn(BaseModel):
    model_config = ConfigDict(extra="ignore")

    trace_id: str


class _Trajectory(_Part):
    closed_at: float
    turns: tuple[_Turn, ...]
    feedback: tuple[_Feedback, ...]

    @property
    def key(self) -> str:
        return _session(self.turns[0].trace_id) if self.turns else ""

    @property
    def when(self) -> float:
        return self.closed_at

    def facts(self, where: str, back_at: float | None) -> Iterable[Fact]:
        names = [turn.trace_id for turn in self.turns]
        at = max(self.closed_at, back_at or 0.0)
        yield from (ClosedFact(key, together, at) for key, together in _by_session(names))
        for given in self.feedback:
            yield JoinedFact(given.key, given.feedback_id, given.trace_id is None or given.trace_id in names)


class _Reward(_Part):
    """Records of versions 1 and 2 named their traces in their trajectory only."""

    trace_ids: tuple[str, ...] | None = None
    trajectory: _Trajectory | None = None
    at: float

    @property
    def names(self) -> Sequence[str]:
        if self.trace_ids is None and self.trajectory is not None:
            return [turn.trace_id for turn in self.trajectory.turns]
        return self.trace_ids or ()

    @property
    def key(self) -> str:
        return _session(self.names[0]) if self.names else ""

    @property
    def when(self) -> float:
        return self.at

    def facts(self, where: str, back_at: float | None) -> Iterable[Fact]:
        at = max(self.at, back_at or 0.0)
        return (RewardedFact(key, together, at) for key, together in _by_session(self.names))


class _Fate(_Part):
    """Records of version 1 were of one trace."""

    trace_ids: tuple[str, ...] = ()
    trace_id: str | None = None
    kind: FateKind
    version: int | None = None
    reason: str
    at: float

    @property
    def names(self) -> Sequence[str]:
        return self.trace_ids if self.trace_id is None else (self.trace_id,)

    @property
    def key(self) -> str:
        return _session(self.names[0]) if self.names else ""

    @property
    def when(self) -> float:
        return self.at

    def facts(self, where: str, back_at: float | None) -> Iterable[Fact]:
        for key, together in _by_session(self.names):
            yield FateFact(key, together, self.kind, self.version, self.reason, self.at)


_PARTS: dict[str, type[_Part]] = {
    TRACES.name: _Trace,
    FEEDBACK.name: _Feedback,
    TRAJECTORIES.name: _Trajectory,
    REWARDS.name: _Reward,
    FATES.name: _Fate,
}


def _session(trace_id: str) -> str:
    return trace_id.partition("-")[0]


def _by_session(trace_ids: Sequence[str]) -> Iterable[tuple[str, Sequence[str]]]:
    """Traces with the key of their session: of one session, as good as always."""
    together: dict[str, list[str]] = {}
    for trace_id in trace_ids:
        together.setdefault(_session(trace_id), []).append(trace_id)
    return together.items()


def _decoded(message: Message, topic: Topic) -> _Part:
    """Raises `RecordError`."""
    return codec.decode_part(message.value, message.headers, topic.record, _PARTS[topic.name])


class Teller:
    """Says what the messages of one topic say, of letters too. Wants each partition in its order."""

    def __init__(self, name: str) -> None:
        """`name` is one of `TOPICS` or `SOURCES`."""
        self._topic, self._source = TOPICS.get(name), SOURCES.get(name)
        self._until: dict[int, float] = {}

    def facts(self, message: Message) -> list[Fact]:
        if self._topic is not None:
            return self._record(message, self._topic)
        assert self._source is not None
        return _letter(message, self._source)

    def _record(self, message: Message, topic: Topic) -> list[Fact]:
        back_at, partition = redrive.put_back_at(message.headers), message.partition
        try:
            part = _decoded(message, topic)
        except RecordError as exc:
            key, found = message.key, self._unreadable(message, topic, back_at, isinstance(exc, ErasedError))
        else:
            key, found = part.key, list(part.facts(place(message), back_at))
            self._until[partition] = max(part.when, self._until.get(partition, 0.0))
        if origin := redrive.origin_of(message.headers):
            found.append(BackFact(key, origin))
        return found

    def _unreadable(self, message: Message, topic: Topic, back_at: float | None, is_erased: bool) -> list[Fact]:
        key, where = message.key, place(message)
        names = trace_ids_in(key, message.headers) if is_erased else ()
        at = self._until.get(message.partition, 0.0)
        if topic is TRACES and names:
            return [TraceFact(key, name, at, where, back_at, is_erased) for name in names]
        if topic is FEEDBACK and names:
            return [FeedbackFact(key, name, at, where, back_at, is_erased) for name in ids_in(message.headers)]
        if topic in (TRACES, FEEDBACK):
            return [UnreadableFact(key, topic.name, where, is_erased)]
        if topic is TRAJECTORIES and is_erased:
            return [ClosedFact(key, names, max(at, back_at or 0.0), is_erased)]
        return [RewardedFact(key, names, max(at, back_at or 0.0))] if topic is REWARDS and names else []


def _letter(message: Message, source: Source) -> list[Fact]:
    letter = Letter.of(message)
    if letter is None:
        return []
    try:
        key = _decoded(message, source.topic).key
    except RecordError:
        key = message.key
    return [LetterFact(key, message.topic, str(letter.origin), letter.failure.value)]
