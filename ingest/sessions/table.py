"""The table of open sessions: records go in, closed trajectories come out. No input or output of its own.

A session is keyed by its session key, which trace ids begin with, so feedback that names only a trace finds it. It
closes when `inactivity_s` have passed since its last trace or feedback, or `horizon_s` since it opened, whichever is
first. Times are the records' own, never later than the `now` of their arrival: a clock that runs ahead cannot hold a
session open. Nor is a session closed within `settle_s` of the arrival of its last record: where old records arrive,
after an outage of ours or the broker's, more of them are on their way. A trace that finished after its session's end
begins the next session of that key, whether or not the first was handed out by then, so that reading late splits
sessions where reading live does.

Kept once: a trace id or feedback id that is open here, or was given a trajectory within `remember_s`.
Feedback before its session's first trace waits for it, `horizon_s` at most, with its message, so that it can be
dead-lettered as it was. Late feedback, about a session that was already handed out, changes nothing, and feedback
that names what can be no trace waits for nothing: both are the caller's.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from infra.config import IngestConfig
from ingest.log.protocol import Message
from ingest.records.events import (
    Assignment,
    CloseReason,
    Feedback,
    Headers,
    Trace,
    Trajectory,
    content_id,
    key_of,
    session_key,
)
from ingest.records.ids import is_trace_id
from ingest.sessions import chains, turns
from ingest.sessions.chains import Flaws
from ingest.sessions.held_out import holds_out

Where = tuple[str, int]
"""(topic, partition)."""

MAX_SETTLE_S = 30.0  # retries after an outage wait at most 15 s (ingest.log.reader, serving's spool): twice that


class Taken(StrEnum):
    """What became of a record given to the table."""

    KEPT = "kept"
    DUPLICATE = "duplicate"
    LATE = "late"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Closed:
    """A closed session: the key it is written under, and the headers that its last trace came with."""

    key: str
    trajectory: Trajectory
    headers: Headers


@dataclass(frozen=True)
class Unclaimed:
    """Feedback whose session did not come, and the message that it came in."""

    feedback: Feedback
    message: Message


@dataclass
class _Session:
    """An open session, or feedback that waits for one. `held` is its smallest offset in each partition.

    `opened_at` and `last_at` are times of its records; `arrived_at` is when the last of them came here. `messages` are
    those of feedback, by its id, for as long as no trace has come.
    """

    partition: int
    opened_at: float
    last_at: float
    arrived_at: float
    traces: dict[str, Trace] = field(default_factory=dict)
    late: set[str] = field(default_factory=set)
    duplicated: set[str] = field(default_factory=set)
    feedback: dict[str, Feedback] = field(default_factory=dict)
    messages: dict[str, Message] = field(default_factory=dict)
    held: dict[Where, int] = field(default_factory=dict)
    headers: Headers = field(default_factory=dict)

    def hold(self, message: Message) -> None:
        where = (message.topic, message.partition)
        self.held[where] = min(message.offset, self.held.get(where, message.offset))

    def has_later_than(self, at: float) -> bool:
        """Whether a trace that began after `at` is here already."""
        return any(trace.started_at > at for trace in self.traces.values())

    def end(self, config: IngestConfig) -> tuple[float, CloseReason]:
        """When it closes, as its records stand, and why."""
        horizon = (self.opened_at + config.horizon_s, CloseReason.HORIZON)
        if not self.traces:
            return horizon
        return min((self.last_at + config.inactivity_s, CloseReason.INACTIVE), horizon)


class SessionTable:
    """All open sessions, and the ids that were lately given a trajectory."""

    def __init__(self, config: IngestConfig, remember_s: float) -> None:
        self._config, self._remember_s = config, remember_s
        self._settle_s = min(config.inactivity_s, MAX_SETTLE_S)
        self._open: dict[str, list[_Session]] = {}
        self._done: dict[str, float] = {}

    def add_trace(self, trace: Trace, message: Message, now: float) -> Taken:
        """Lay a trace into its session, or open one."""
        key = session_key(trace.session_id)
        sessions = self._open.get(key, [])
        if trace.trace_id in self._done:
            return Taken.DUPLICATE
        for held in sessions:
            if trace.trace_id in held.traces:
                held.duplicated.add(trace.trace_id)
                return Taken.DUPLICATE
        began, ended = min(trace.started_at, now), min(trace.finished_at, now)
        session = sessions[-1] if sessions else None
        if session is None or session.end(self._config)[0] <= ended:
            session = self._begin(key, message, began, now)
        session.opened_at = min(session.opened_at, began) if session.traces else began
        session.last_at, session.arrived_at = max(session.last_at, ended), now
        if self._done.get(key, began) > began or session.has_later_than(ended):
            session.late.add(trace.trace_id)
        session.traces[trace.trace_id] = trace
        session.messages.clear()
        session.headers = message.headers
        session.hold(message)
        return Taken.KEPT

    def add_feedback(self, feedback: Feedback, message: Message, now: float) -> Taken:
        """Lay feedback into its session, or let it wait for one. After its session's end it no longer prolongs it."""
        if not feedback.session_id and not is_trace_id(feedback.trace_id or ""):
            return Taken.UNKNOWN
        key = key_of(session_id=feedback.session_id, trace_id=feedback.trace_id)
        sessions = self._open.get(key, [])
        if feedback.feedback_id in self._done or any(feedback.feedback_id in s.feedback for s in sessions):
            return Taken.DUPLICATE
        if feedback.trace_id in self._done or (not feedback.trace_id and not sessions and key in self._done):
            return Taken.LATE
        at = min(feedback.at, now)
        about = [session for session in sessions if feedback.trace_id in session.traces] or sessions[-1:]
        session = about[0] if about else self._begin(key, message, at, now)
        if at < session.end(self._config)[0]:
            session.last_at, session.arrived_at = max(session.last_at, at), now
        session.feedback[feedback.feedback_id] = feedback
        if not session.traces:
            session.messages[feedback.feedback_id] = message
        session.hold(message)
        return Taken.KEPT

    def _begin(self, key: str, message: Message, at: float, now: float) -> _Session:
        session = _Session(message.partition, opened_at=at, last_at=at, arrived_at=now)
        self._open.setdefault(key, []).append(session)
        return session

    def due(self, now: float, known_until: Mapping[int, float] | None = None) -> list[Closed]:
        """Take out and return the sessions that have ended by `now`.

        `known_until[partition]` stands in for `now` in partitions that still have unread records: nothing is known
        there about what came later.
        """
        closed = []
        for key, session in self._take_ended(now, known_until or {}, with_traces=True):
            trajectory = _trajectory(session, session.end(self._config)[1], now, self._config)
            self.remember(trajectory)
            closed.append(Closed(key, trajectory, session.headers))
        return closed

    def unclaimed(self, now: float, known_until: Mapping[int, float] | None = None) -> list[Unclaimed]:
        """Take out and return feedback whose session did not come within `horizon_s`."""
        ended = self._take_ended(now, known_until or {}, with_traces=False)
        return [
            Unclaimed(feedback, session.messages[name])
            for _, session in ended
            for name, feedback in session.feedback.items()
        ]

    def _take_ended(
        self, now: float, known_until: Mapping[int, float], *, with_traces: bool
    ) -> Iterator[tuple[str, _Session]]:
        for key, sessions in list(self._open.items()):
            for session in list(sessions):
                reached = min(now, known_until.get(session.partition, now))
                if bool(session.traces) is with_traces and self._has_ended(session, now, reached):
                    self._remove(key, session)
                    yield key, session

    def _has_ended(self, session: _Session, now: float, reached: float) -> bool:
        return session.end(self._config)[0] <= reached and session.arrived_at + self._settle_s <= now

    def may_close(self, now: float) -> bool:
        """Whether any session has ended, unless an unread record says otherwise."""
        return any(self._has_ended(session, now, now) for sessions in self._open.values() for session in sessions)

    def _remove(self, key: str, session: _Session) -> None:
        self._open[key] = [other for other in self._open[key] if other is not session]
        if not self._open[key]:
            del self._open[key]

    def remember(self, trajectory: Trajectory) -> None:
        """Its traces and feedback were given a trajectory: they are not taken again."""
        ids = [turn.trace_id for turn in trajectory.turns]
        ids += [feedback.feedback_id for feedback in trajectory.feedback]
        for known in [*ids, session_key(trajectory.session_id)]:
            self._done.pop(known, None)
            self._done[known] = trajectory.closed_at

    def forget(self, now: float) -> None:
        """Let go of ids remembered for longer than `remember_s`."""
        while self._done and (oldest := next(iter(self._done))) and self._done[oldest] < now - self._remember_s:
            del self._done[oldest]

    def drop(self, assigned: Iterable[Where]) -> int:
        """Forget sessions with records in partitions that are not `assigned`: who reads those now has them."""
        mine = frozenset(assigned)
        lost = [(key, s) for key, sessions in self._open.items() for s in sessions if not mine.issuperset(s.held)]
        for key, session in lost:
            self._remove(key, session)
        return len(lost)

    def held(self) -> dict[Where, int]:
        """The smallest offset, per partition, of any record of an open session."""
        low: dict[Where, int] = {}
        for sessions in self._open.values():
            for session in sessions:
                for where, offset in session.held.items():
                    low[where] = min(offset, low.get(where, offset))
        return low

    def __len__(self) -> int:
        return sum(len(sessions) for sessions in self._open.values())


def _trajectory(session: _Session, reason: CloseReason, now: float, config: IngestConfig) -> Trajectory:
    ordered = chains.in_order(session.traces.values())
    joined = chains.join(ordered, Flaws(session.late, session.duplicated))
    first, last = ordered[0], ordered[-1]
    return Trajectory(
        trajectory_id=content_id(first.session_id, first.trace_id, last.trace_id, str(len(ordered))),
        session_id=first.session_id,
        parent_session_id=next((trace.parent_session_id for trace in ordered if trace.parent_session_id), None),
        tenant=first.tenant,
        assignment=_common_assignment(ordered),
        held_out=holds_out(config, ordered),
        closed=reason,
        opened_at=session.opened_at,
        closed_at=max(now, session.last_at),
        turns=turns.build(joined.readings),
        chains=joined.chains,
        feedback=tuple(sorted(session.feedback.values(), key=lambda item: (item.at, item.feedback_id))),
    )


def _common_assignment(traces: list[Trace]) -> Assignment | None:
    first = traces[0].assignment
    return first if all(trace.assignment == first for trace in traces) else None
