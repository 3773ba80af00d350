"""The table of open sessions: records go in, closed trajectories come out. No input or output of its own.

A session is keyed by its session key, which trace ids begin with, so feedback that names only a trace finds it. It
closes when `inactivity_s` have passed since its last trace or feedback, or `horizon_s` since it opened, whichever is
first. Times are the records' own, never later than the `now` of their arrival: a clock that runs ahead cannot hold a
session open. Nor is a session closed within `settle_s` of the arrival of its last record: where old records arrive,
after an outage of ours or the broker's, more of them are on their way. A trace that finished after its session's end
begins the next session of that key, whether or not the first was handed out by then, so that reading late splits
sessions where reading live does.

A client may end its session with feedback named `session_end`: it then closes at that time. A replay ends with its one
trace, or with the last of its group, and is handed out at once: nothing more of it is on its way.

Kept once: a trace id or feedback id that is open here, was handed out, or is one of those known from `before`.
Feedback before its session's first trace waits for it, `horizon_s` at most, with its message, so that it can be
dead-lettered as it was. Late feedback, about a session that was already handed out, changes nothing here, and feedback
that names what can be no trace waits for nothing: both are the caller's. So is a trace whose prefix leans on one that
is in no open session.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from infra.config import IngestConfig
from infra.telemetry.names import MAX_LINKS
from infra.telemetry.spans import TRACEPARENT
from ingest.log.protocol import Message
from ingest.records import prefixes
from ingest.records.codec import SUBJECT_HEADER
from ingest.records.events import (
    SESSION_END,
    Assignment,
    CloseReason,
    Consent,
    Feedback,
    Headers,
    Trace,
    Trajectory,
    content_id,
    key_of,
    session_key,
)
from ingest.records.ids import is_trace_id
from ingest.records.made import made
from ingest.sessions import chains, turns
from ingest.sessions.chains import Flaws
from ingest.sessions.held import AnyTrace, Held
from ingest.sessions.held_out import holds_out
from ingest.sessions.queues import Queue

Where = tuple[str, int]
"""(topic, partition)."""

_NEVER, _ALREADY = float("inf"), float("-inf")
_HORIZON, _INACTIVE, _ENDED = CloseReason.HORIZON, CloseReason.INACTIVE, CloseReason.ENDED
MAX_SETTLE_S = 30.0  # retries after an outage wait at most 15 s (ingest.log.reader, serving's spool): twice that


class Taken(StrEnum):
    """What became of a record given to the table."""

    KEPT = "kept"
    DUPLICATE = "duplicate"
    LATE = "late"
    UNKNOWN = "unknown"
    ORPHANED = "orphaned"


@dataclass(frozen=True)
class Closed:
    """A closed session: the key it is written under, and the headers that its last trace came with.

    `ids` are those of `ids_in`. `subjects` are the keys, `<subject>/<generation>`, that its records were sealed under.
    `contexts` are the trace contexts that its other records came with, as headers.
    """

    key: str
    trajectory: Trajectory
    ids: tuple[str, ...]
    headers: Headers
    subjects: tuple[str, ...] = ()
    contexts: tuple[Headers, ...] = ()


@dataclass(frozen=True)
class Unclaimed:
    """Feedback whose session did not come, and the message that it came in."""

    feedback: Feedback
    message: Message


@dataclass(eq=False, slots=True)
class _Low:
    """The smallest offset of an open session's records in one partition."""

    offset: int
    is_open: bool = True


@dataclass(eq=False, slots=True)
class _Session:
    """An open session, or feedback that waits for one. `held` are its smallest offsets, by partition.

    `opened_at` and `last_at` are times of its records, `ended_at` when its client said that it is over; `arrived_at` is
    when the last of them came here. `messages` are those of feedback, by its id, for as long as no trace has come.
    `ends_at` and `reason` are when and why it closes, as its records stand. `looked_at` is when it will next be seen to
    have ended or not: never after its end. `num_replays` is how many traces make a replay whole; 0: it is none.
    """

    key: str
    partition: int
    opened_at: float
    last_at: float
    arrived_at: float
    last_began: float = float("-inf")
    ended_at: float | None = None
    num_replays: int = 0
    traces: dict[str, Held] = field(default_factory=dict)
    late: set[str] = field(default_factory=set)
    duplicated: set[str] = field(default_factory=set)
    feedback: dict[str, Feedback] = field(default_factory=dict)
    messages: dict[str, Message] = field(default_factory=dict)
    held: dict[Where, _Low] = field(default_factory=dict)
    headers: Headers = field(default_factory=dict)
    contexts: dict[str, None] = field(default_factory=dict)
    subjects: set[str] = field(default_factory=set)
    is_open: bool = True
    ends_at: float = _NEVER
    reason: CloseReason = CloseReason.HORIZON
    looked_at: float = _NEVER

    @property
    def is_whole_replay(self) -> bool:
        return 0 < self.num_replays <= len(self.traces)

    def set_end(self, inactivity_s: float, horizon_s: float) -> None:
        """After any change of what else it has: when it closes, and why."""
        self.ends_at, self.reason = self.opened_at + horizon_s, _HORIZON
        if not self.traces:
            return
        inactive_at = self.last_at + inactivity_s
        if self.num_replays and self.is_whole_replay:
            self.ends_at, self.reason = self.last_at, _ENDED
        elif self.ended_at is not None and self.ended_at < min(inactive_at, self.ends_at):
            self.ends_at, self.reason = self.ended_at, _ENDED
        elif inactive_at <= self.ends_at:
            self.ends_at, self.reason = inactive_at, _INACTIVE


class SessionTable:
    """All open sessions. `before` tells when an id that the table does not know was given a trajectory, or `None`."""

    def __init__(self, config: IngestConfig, before: Callable[[str], float | None] = lambda _: None) -> None:
        self._config, self._before = config, before
        self._inactivity_s, self._horizon_s, self._settle_s = config.inactivity_s, config.horizon_s, settle_s(config)
        self._open: dict[str, list[_Session]] = {}
        self._done: dict[str, float] = {}
        self._given: list[tuple[tuple[str, ...], float]] = []  # goes into `_done` once that is asked for
        self._ends: Queue[_Session] = Queue(lambda session, at: not session.is_open or at != session.looked_at)
        self._reached_before: list[_Session] = []  # open, and their end was reached when it was last looked
        self._lows: dict[Where, Queue[_Low]] = {}

    def add_trace(self, trace: Trace, message: Message, now: float) -> Taken:
        """Lay a trace into its session, or open one."""
        return self.add_held(Held.of(trace, message), message, now)

    def add_held(self, held: Held, message: Message, now: float) -> Taken:
        """The same, of one that is held already."""
        key, name, prefix, started_at = session_key(held.session_id), held.trace_id, held.prefix, held.started_at
        sessions = self._open.get(key, ())
        if self._closed_at(name) is not None:
            return Taken.DUPLICATE
        for other in sessions:
            if name in other.traces:
                other.duplicated.add(name)
                return Taken.DUPLICATE
        began, ended = min(started_at, now), min(held.finished_at, now)
        session = sessions[-1] if sessions and sessions[-1].ends_at > ended else None
        parent = session.traces.get(prefix.parent) if prefix is not None and session is not None else None
        if prefix is not None and parent is None:
            elder = self._elder(prefix, sessions)
            if elder is None:
                return Taken.ORPHANED
            held = prefixes.whole(held, elder)
        elif prefix is not None and parent is not None and not parent.carries(prefix):
            return Taken.ORPHANED
        if session is None:
            session = self._begin(key, message, began, now)
        session.opened_at = min(session.opened_at, began) if session.traces else began
        session.last_at, session.arrived_at = max(session.last_at, ended), now
        if held.assignment.replay_of is not None:
            session.num_replays = held.assignment.group.size if held.assignment.group else 1
        if (self._closed_at(key) or began) > began or session.last_began > ended:
            session.late.add(name)
        session.last_began = max(session.last_began, started_at)
        session.traces[name] = held
        session.messages.clear()
        session.headers = message.headers
        self._hold(session, message)
        return Taken.KEPT

    def _elder(self, prefix: prefixes.AnyPrefix, sessions: Iterable[_Session]) -> Held | None:
        """The trace that a prefix leans on, whole, in another open session of its key."""
        for session in sessions:
            if prefix.parent in session.traces and session.traces[prefix.parent].carries(prefix):
                return prefixes.Wholes(session.traces).whole(session.traces[prefix.parent])
        return None

    def _closed_at(self, known: str) -> float | None:
        """When an id was given a trajectory; see `ids_in`."""
        if self._given:
            for ids, at in self._given:
                self._done |= dict.fromkeys(ids, at)
            self._given.clear()
        found = self._done.get(known) if self._done else None
        return self._before(known) if found is None else found

    def add_feedback(self, feedback: Feedback, message: Message, now: float) -> Taken:
        """Lay feedback into its session, or let it wait for one. After its session's end it no longer prolongs it."""
        if not feedback.session_id and not is_trace_id(feedback.trace_id or ""):
            return Taken.UNKNOWN
        key = key_of(session_id=feedback.session_id, trace_id=feedback.trace_id)
        sessions = self._open.get(key, [])
        name = feedback.feedback_id
        if self._closed_at(of_feedback(name)) is not None or any(name in session.feedback for session in sessions):
            return Taken.DUPLICATE
        if self._is_late(feedback, key, is_open=bool(sessions)):
            return Taken.LATE
        at = min(feedback.at, now)
        session = self._about(feedback, sessions) or self._begin(key, message, at, now)
        if feedback.name == SESSION_END:
            session.ended_at = at if session.ended_at is None else min(at, session.ended_at)
        session.set_end(self._inactivity_s, self._horizon_s)
        if at < session.ends_at:
            session.last_at, session.arrived_at = max(session.last_at, at), now
        session.feedback[name] = feedback
        if not session.traces:
            session.messages[name] = message
        self._hold(session, message)
        return Taken.KEPT

    def _is_late(self, feedback: Feedback, key: str, is_open: bool) -> bool:
        if feedback.trace_id:
            return self._closed_at(feedback.trace_id) is not None
        return not is_open and self._closed_at(key) is not None

    def _about(self, feedback: Feedback, sessions: Sequence[_Session]) -> _Session | None:
        """The open session that feedback is about: its trace's, else the last, if that has not been ended already."""
        about = next((session for session in sessions if feedback.trace_id in session.traces), None)
        if about is not None or not sessions:
            return about
        is_for_the_next = feedback.name == SESSION_END and sessions[-1].ended_at is not None
        return None if is_for_the_next else sessions[-1]

    def _begin(self, key: str, message: Message, at: float, now: float) -> _Session:
        session = _Session(key, message.partition, opened_at=at, last_at=at, arrived_at=now)
        self._open.setdefault(key, []).append(session)
        return session

    def _hold(self, session: _Session, message: Message) -> None:
        """Note where a record of a session lies, whom it is about, and when the session ends now."""
        headers = message.headers
        if SUBJECT_HEADER in headers:
            session.subjects.update(headers[SUBJECT_HEADER].split())
        if TRACEPARENT in headers and len(session.contexts) <= MAX_LINKS:
            session.contexts[headers[TRACEPARENT]] = None
        where, offset = (message.topic, message.partition), message.offset
        low = session.held.get(where)
        if low is None or offset < low.offset:
            self._lower(session, where, offset)
        session.set_end(self._inactivity_s, self._horizon_s)
        self._look_at(session)

    def _lower(self, session: _Session, where: Where, offset: int) -> None:
        low = session.held.setdefault(where, _Low(offset))
        low.offset = offset
        if where not in self._lows:
            self._lows[where] = Queue(lambda one, at: not one.is_open or at != one.offset)
        self._lows[where].add(offset, low)

    def _look_at(self, session: _Session) -> None:
        if session.ends_at < session.looked_at:
            session.looked_at = session.ends_at
            self._ends.add(session.ends_at, session)

    def due(self, now: float, known_until: Mapping[int, float] | None = None) -> list[Closed]:
        """Take out and return the sessions that have ended by `now`.

        `known_until[partition]` stands in for `now` in partitions that still have unread records: nothing is known
        there about what came later.
        """
        return list(self.closing(now, known_until))

    def closing(self, now: float, known_until: Mapping[int, float] | None = None) -> Iterator[Closed]:
        """The same, one after the other: of many that end at once, one is held at a time."""
        for session in self._take_ended(now, known_until or {}, with_traces=True):
            trajectory = _trajectory(session, now, self._config)
            ids = self.remember(trajectory)
            subjects = tuple(sorted(session.subjects))
            above = session.headers.get(TRACEPARENT)
            contexts = tuple([{TRACEPARENT: one} for one in session.contexts if one != above])
            session.traces.clear()  # it is still queued for the time of its end
            yield Closed(session.key, trajectory, ids, session.headers, subjects, contexts)

    def unclaimed(self, now: float, known_until: Mapping[int, float] | None = None) -> list[Unclaimed]:
        """Take out and return feedback whose session did not come within `horizon_s`."""
        ended = self._take_ended(now, known_until or {}, with_traces=False)
        return [
            Unclaimed(feedback, session.messages[name])
            for session in ended
            for name, feedback in session.feedback.items()
        ]

    def _take_ended(self, now: float, known_until: Mapping[int, float], *, with_traces: bool) -> list[_Session]:
        ended = []
        for session in self._reached(now):
            reached = min(now, known_until.get(session.partition, now))
            if bool(session.traces) is with_traces and self._has_ended(session, now, reached):
                self._remove(session)
                ended.append(session)
        return ended

    def _reached(self, now: float) -> list[_Session]:
        """The sessions whose end lies before `now`. Of those that a record came for since, the end is awaited anew."""
        reached = dict.fromkeys((*self._reached_before, *self._ends.take(now)))  # one may wait for two equal ends
        found = [session for session in reached if session.is_open]
        self._reached_before = [session for session in found if session.ends_at <= now]
        for session in found:
            session.looked_at = _ALREADY if session.ends_at <= now else _NEVER
            self._look_at(session)
        return self._reached_before

    def _has_ended(self, session: _Session, now: float, reached: float) -> bool:
        settle_s = 0.0 if session.is_whole_replay else self._settle_s
        return session.ends_at <= reached and session.arrived_at + settle_s <= now

    def may_close(self, now: float) -> bool:
        """Whether any session has ended, unless an unread record says otherwise."""
        return any(self._has_ended(session, now, now) for session in self._reached(now))

    def _remove(self, session: _Session) -> None:
        session.is_open = False
        for low in session.held.values():
            low.is_open = False
        self._open[session.key].remove(session)
        if not self._open[session.key]:
            del self._open[session.key]

    def remember(self, trajectory: Trajectory) -> tuple[str, ...]:
        """Its traces and feedback were given a trajectory: they are not taken again. Returns the ids of that."""
        ids = ids_in(trajectory)
        self._given.append((ids, trajectory.closed_at))
        return ids

    def forget(self) -> None:
        """What was handed out up to now is known from `before`."""
        self._done.clear()
        self._given.clear()

    def drop(self, assigned: Iterable[Where]) -> int:
        """Forget sessions with records in partitions that are not `assigned`: who reads those now has them."""
        mine = frozenset(assigned)
        lost = [one for sessions in self._open.values() for one in sessions if not mine.issuperset(one.held)]
        for session in lost:
            self._remove(session)
            session.traces.clear()  # it is still queued for the time of its end
        return len(lost)

    def held(self) -> dict[Where, int]:
        """The smallest offset, per partition, of any record of an open session."""
        for lows in self._lows.values():
            lows.sweep(len(self._open))
        lowest = {where: lows.lowest() for where, lows in self._lows.items()}
        return {where: int(offset) for where, offset in lowest.items() if offset is not None}

    def __len__(self) -> int:
        return sum(map(len, tuple(self._open.values())))  # in one step: it is also asked for from another thread


def settle_s(config: IngestConfig) -> float:
    """How long to wait, after a record came, for more that were held up with it."""
    return min(config.inactivity_s, MAX_SETTLE_S)


def of_feedback(feedback_id: str) -> str:
    """A feedback's id, told apart from traces' and sessions': clients choose it."""
    return f"feedback:{feedback_id}"


def ids_in(trajectory: Trajectory) -> tuple[str, ...]:
    """What is known to have been given a trajectory by this one: its session's key, its traces, its feedback."""
    return (
        session_key(trajectory.session_id),
        *[turn.trace_id for turn in trajectory.turns],
        *[of_feedback(feedback.feedback_id) for feedback in trajectory.feedback],
    )


def ids_asked(record: Held | Feedback) -> list[str]:
    """What the table will ask `before` for when it is given a record, or nearly all of it."""
    if isinstance(record, Held):
        return [record.trace_id, session_key(record.session_id)]
    named = [of_feedback(record.feedback_id), key_of(session_id=record.session_id, trace_id=record.trace_id)]
    return [*named, record.trace_id] if record.trace_id else named


def trajectory_id(session_id: str, trace_ids: Sequence[str], revision: int) -> str:
    """The id of a session's trajectory, or of a later revision of it."""
    parts = (session_id, trace_ids[0], trace_ids[-1], str(len(trace_ids)))
    return content_id(*parts) if revision == 1 else content_id(*parts, str(revision))


def _trajectory(session: _Session, now: float, config: IngestConfig) -> Trajectory:
    joined = chains.join(session.traces.values(), Flaws(session.late, session.duplicated))
    ordered = [reading.trace for reading in joined.readings.values()]
    first, traces = ordered[0], [trace.trace_id for trace in ordered]
    return made(
        Trajectory,
        trajectory_id=trajectory_id(first.session_id, traces, 1),
        revision=1,
        partition=session.traces[first.trace_id].partition,
        session_id=first.session_id,
        parent_session_id=next((trace.parent_session_id for trace in ordered if trace.parent_session_id), None),
        tenant=first.tenant,
        user=next((trace.user for trace in ordered if trace.user), ""),
        consent=_common_consent(ordered),
        assignment=_common_assignment(ordered),
        held_out=holds_out(config, ordered),
        closed=session.reason,
        opened_at=session.opened_at,
        closed_at=max(now, session.last_at),
        turns=turns.build(joined.readings, {name: held.offset for name, held in session.traces.items()}),
        chains=joined.chains,
        feedback=in_order(session.feedback.values()),
    )


def in_order(feedback: Iterable[Feedback]) -> tuple[Feedback, ...]:
    """Feedback as it was given; ids settle ties."""
    return tuple(sorted(feedback, key=lambda item: (item.at, item.feedback_id)))


def _common_consent(traces: list[AnyTrace]) -> Consent:
    """Given, where it was given for every trace."""
    is_given = all(trace.consent is Consent.GIVEN for trace in traces)
    return Consent.GIVEN if is_given else Consent.ASSUMED


def _common_assignment(traces: list[AnyTrace]) -> Assignment | None:
    """The one that all of them have. Blocks go on under a session: there it is the one that it began with."""
    first, *others = [trace.assignment for trace in traces]
    is_one = all(one is first or one == first for one in others)
    return first if is_one or any(trace.assignment.block is not None for trace in traces) else None
