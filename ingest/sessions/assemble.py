"""The ingest stage: traces and feedback in, trajectories out.

The commit order:

    1. poll    records are laid into the table of open sessions; undecodable ones, feedback that names what can be no
               trace, and traces whose prefix cannot be found go to the dead-letter topics; those of a newer version
               are parked
    2. close   sessions that ended are appended to `trajectories`, keyed by session key; so are amended ones, of which
               feedback came late; the traces of one that is too large for the log get their fate here; feedback whose
               session never came is dead-lettered
    3. flush   trajectories, fates and dead letters are durable
    4. index   the ids in those trajectories are noted on this machine's disk
    5. commit  each partition's position moves to its low watermark: the smallest offset of any record of a session
               that is still open, or of feedback that waits to amend one, else the next offset

The only database is a copy: `ingest.log.index` holds the ids that `trajectories` holds. After a crash the records of
open sessions are read again from the low watermark, and what the index knows is skipped:

    between 1 and 2   nothing was said; read again
    between 2 and 3   trajectories that arrived are copied into the index, the rest are made again
    between 3 and 5   trajectories are in the index by then, their traces skipped; open sessions are whole, never torn

Dead letters may be written again after a crash: `ingest.log.letters` counts a message once.

Time. A session ends on this process's clock only where nothing is unread: a topic with unread messages is known only
until the newest record read from each of its partitions (stream time), so turns that lie side by side after an outage
are joined before anything is closed.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from infra import telemetry
from infra.config import Config
from infra.errors import ErasedError, RecordError
from infra.lifecycle import Stop
from infra.telemetry import metrics, names
from ingest.log import fates, letters
from ingest.log.index import Index, Named, index_path
from ingest.log.letters import Failure
from ingest.log.protocol import EventLog, Message, Receipt
from ingest.log.reader import Erased, Reader, labels, place, send
from ingest.log.topics import FEEDBACK, READERS, TRACES, TRAJECTORIES, late_letters
from ingest.log.trajectories import read_at
from ingest.records.codec import ERASED_HEADER, SUBJECT_HEADER, decode
from ingest.records.events import (
    SESSION_END,
    CloseReason,
    Fate,
    FateKind,
    Feedback,
    Headers,
    Source,
    Trajectory,
    key_of,
)
from ingest.sessions.amend import Late, LateFeedback, amended
from ingest.sessions.elders import Elders
from ingest.sessions.held import Held
from ingest.sessions.table import Closed, SessionTable, Taken, Unclaimed, Where, ids_asked, ids_in, settle_s

logger = logging.getLogger(__name__)

GROUP = "ingest"
POLL_S = 0.5
ORPHANED = "its prefix is not on the log"
TICK_S = 1.0  # closing, flushing and committing cost round trips: once in this long, however fast records come

Kept = Held | Feedback | Erased | None
"""What is kept of a record while its batch is laid."""


class _LookedUp(dict[str, float | None]):
    """When ids were given a trajectory: those of a batch, looked up at once; any other is asked for."""

    def __init__(self, index: Index[Trajectory]) -> None:
        super().__init__()
        self._index = index

    def __missing__(self, name: str) -> float | None:
        entry = self._index.get(name)
        return None if entry is None else entry.at


class Assembler:
    """The stage's state between two polls. Build a new one after any `LogError`: that is a restart."""

    def __init__(
        self, log: EventLog, config: Config, clock: Callable[[], float] = time.time, max_messages: int = 500
    ) -> None:
        self._log, self._clock, self._max_messages = log, clock, max_messages
        self._timeout_s = config.log.timeout_s
        self._num_partitions, self._horizon_s = config.log.partitions, config.ingest.horizon_s
        # A trace is read again only while it is on its topic, and a session that may hold the position back is open.
        self._remember_s = config.log.retention_s + config.ingest.horizon_s
        self._index = Index(
            index_path(config, GROUP), log, TRAJECTORIES, Trajectory, ids_in, lambda one: one.closed_at, clock
        )
        self._elders = Elders(log, self._index)
        self._late = Late(settle_s(config.ingest))
        self._looked_up = _LookedUp(self._index)
        self.table = SessionTable(config.ingest, self._looked_up.__getitem__)
        self._written: list[tuple[Receipt, Named]] = []
        self._closed: Counter[CloseReason] = Counter()
        self._reader = Reader(log, READERS[GROUP], GROUP)
        self._assigned: frozenset[Where] = frozenset()
        self._next: dict[Where, int] = {}
        self._committed: dict[Where, int] = {}
        self._seen_until: dict[Where, float] = {}
        self._polled = 0
        self._next_tick = clock()
        telemetry.observe(metrics.OPEN_SESSIONS, lambda: len(self.table))

    def step(self, timeout_s: float = POLL_S) -> None:
        """Poll once; close, flush and commit when it is time to."""
        self.poll(timeout_s)
        if self._clock() >= self._next_tick:
            self._next_tick = self._clock() + TICK_S
            self.close_ended()
            self._log.flush(self._timeout_s)
            self.note()
            self.commit()

    def poll(self, timeout_s: float = POLL_S) -> int:
        """1: read and lay into the table. Returns how many messages there were."""
        batch = self._reader.poll_with(_kept, timeout_s, self._max_messages)
        self._follow_assignment()
        self._look_up(record for _, record in batch)
        now = self._clock()
        for message, record in batch:
            self._lay(message, record, now)
        self._looked_up.clear()
        self._polled = len(batch)
        return len(batch)

    def _follow_assignment(self) -> None:
        """Partitions lost take their open sessions along; partitions gained may have been another process's."""
        assigned = self._reader.subscription.assignment()
        if assigned == self._assigned:
            return
        gained, self._assigned = assigned - self._assigned, assigned
        dropped = self.table.drop(assigned)
        self._late.drop(assigned)
        if dropped:
            logger.info("partitions moved: %d open sessions went with them", dropped)
        for known in (self._next, self._committed, self._seen_until):
            for where in known.keys() - assigned:
                del known[where]
        if gained:
            num_new = self._index.catch_up({partition for _, partition in gained})
            logger.info("reading %d partitions; %d trajectories were new to the index", len(assigned), num_new)

    def _lay(self, message: Message, record: Kept, now: float) -> None:
        where = (message.topic, message.partition)
        self._committed.setdefault(where, message.offset)
        self._next[where] = message.offset + 1
        if isinstance(record, Held):
            self._saw(where, min(record.finished_at, now))
            self._lay_trace(message, record, now)
        elif isinstance(record, Feedback):
            self._saw(where, min(record.at, now))
            self._lay_feedback(message, record, now)
        elif isinstance(record, Erased) and record.topic == TRACES.name:
            fates.erased(self._log, [name for name in record.trace_ids if self._looked_up[name] is None], now)

    def _lay_trace(self, message: Message, trace: Held, now: float) -> None:
        taken = self.table.add_held(trace, message, now)
        if taken is Taken.KEPT:
            return
        if taken is Taken.ORPHANED and (whole := self._elders.whole(trace)):
            taken = self.table.add_held(whole, message, now)
        if taken is Taken.DUPLICATE:
            logger.debug("%s: trace %s was read before", place(message), trace.trace_id)
        elif taken is Taken.ORPHANED:
            assert trace.prefix is not None
            told = f"trace {trace.trace_id}: its prefix leans on trace {trace.prefix.parent}, which is not on the log"
            logger.error("%s: dead-lettered: %s", place(message), told)
            if not letters.bury(self._log, GROUP, message, Failure.ORPHANED, told):
                fates.erased(self._log, [trace.trace_id], now)
                return
            lost = Fate(trace_ids=(trace.trace_id,), kind=FateKind.DEAD_LETTERED, reason=ORPHANED, at=now)
            fates.tell(self._log, [lost])

    def _lay_feedback(self, message: Message, feedback: Feedback, now: float) -> None:
        match self.table.add_feedback(feedback, message, now):
            case Taken.LATE:
                self._late.add(feedback, message, now)
            case Taken.UNKNOWN:
                self._bury(Unclaimed(feedback, message), "trace ids begin with the 16 hex digits of a session's key")

    def _bury(self, unclaimed: Unclaimed, why: str) -> None:
        feedback = unclaimed.feedback
        named = f"trace {feedback.trace_id!r:.100}" if feedback.trace_id else f"session {feedback.session_id!r:.100}"
        told = f"feedback {feedback.feedback_id}: nothing is known of {named}: {why}"
        logger.warning("%s: dead-lettered: %s", place(unclaimed.message), telemetry.Local(told))
        if letters.bury(self._log, GROUP, unclaimed.message, Failure.UNCLAIMED, told):
            telemetry.count(metrics.FEEDBACK_UNCLAIMED)

    def _saw(self, where: Where, at: float) -> None:
        self._seen_until[where] = max(at, self._seen_until.get(where, at))

    def close_ended(self) -> None:
        """2: append a trajectory for every session that has ended, and bury feedback whose session never came."""
        now = self._clock()
        self._amend(now)
        if not self.table.may_close(now):
            return
        known_until = self._known_until()
        for closed in self.table.closing(now, known_until):
            self._write(closed)
        for unclaimed in self.table.unclaimed(now, known_until):
            self._bury(unclaimed, f"it did not come within {self._horizon_s:g} s")

    def _amend(self, now: float) -> None:
        """Issue the trajectories again that feedback came late for."""
        for waited in self._late.due(now):
            still_late = [one for one in waited if self.table.add_feedback(*one, now) is Taken.LATE]
            together: dict[Source | None, list[LateFeedback]] = {}
            for feedback, message in still_late:
                entry = self._index.get(feedback.trace_id or key_of(session_id=feedback.session_id, trace_id=None))
                is_end = feedback.name == SESSION_END
                together.setdefault(None if is_end or not entry else entry.source, []).append((feedback, message))
            for source, late in together.items():
                if source is None or not self._revise(source, late, now):
                    self._note_late(late)

    def _revise(self, source: Source, late: Sequence[LateFeedback], now: float) -> bool:
        """Issue the trajectory at `source` again. Whether the log still has it, and takes it with any of the feedback.

        Feedback whose person was erased since it was read has no part in it.
        """
        try:
            found = read_at(self._log, source)
        except ErasedError:
            found = None
        if found is None:
            return False
        if not self._write(_revision(*found, late, now)):
            late = [one for one in late if self._is_there(one[1])]
            if not late or not self._write(_revision(*found, late, now)):
                return False
        telemetry.count(metrics.FEEDBACK_LATE, len(late))
        return True

    def _is_there(self, message: Message) -> bool:
        """Whether a message that was read before can be read still."""
        found = self._log.fetch(message.topic, message.partition, message.offset)
        return found is not None and ERASED_HEADER not in found.headers

    def _note_late(self, late: Sequence[LateFeedback]) -> None:
        """Nothing can be amended by it: that is noted."""
        for feedback, message in late:
            told = f"feedback {feedback.feedback_id}: came after its session closed"
            logger.info("%s: %s", place(message), telemetry.Local(told))
            if letters.write(self._log, late_letters(message.topic, GROUP), message, Failure.LATE, told):
                telemetry.count(metrics.FEEDBACK_LATE)

    def _look_up(self, records: Iterable[Kept]) -> None:
        """Ask the index once for what a batch will ask of it id by id: nothing is noted while it is laid."""
        asked = {name for record in records if isinstance(record, Held | Feedback) for name in ids_asked(record)}
        self._looked_up |= dict.fromkeys(asked)
        self._looked_up |= {name: entry.at for name, entry in self._index.find(asked).items()}

    def _write(self, closed: Closed) -> bool:
        """Append a trajectory, or tell the fate of traces that the log does not take so. Whether it did.

        A revision's traces have their fate by the first of their trajectories: none is told of them here.
        """
        trajectory = closed.trajectory
        begun, told = time.monotonic(), _told_of(trajectory) if telemetry.is_tracing() else None
        with telemetry.span(names.CLOSE_SESSION, told, closed.headers, closed.contexts, of=TRACES.name):
            traces = [turn.trace_id for turn in trajectory.turns]
            about = labels(closed.subjects, traces)
            try:
                receipt = send(self._log, TRAJECTORIES, closed.key, trajectory, about)
                self._written.append((receipt, Named(closed.ids, trajectory.closed_at)))
            except RecordError as exc:
                if trajectory.revision > 1:
                    logger.warning("trajectory %s is not issued again: %s", trajectory.trajectory_id, exc)
                elif isinstance(exc, ErasedError):
                    fates.erased(self._log, traces, self._clock())
                else:
                    fates.dead_letter(self._log, trajectory, str(exc), self._clock())
                return False
        if telemetry.is_measuring():
            telemetry.record(metrics.PROCESS_DURATION, time.monotonic() - begun, _about_messages())
            self._closed[trajectory.closed] += 1
        logger.info(
            "session %s closed (%s): trajectory %s, revision %d, %d turns, %d feedback",
            telemetry.Local(trajectory.session_id),
            trajectory.closed.value,
            trajectory.trajectory_id,
            trajectory.revision,
            len(trajectory.turns),
            len(trajectory.feedback),
        )
        return True

    def _known_until(self) -> dict[int, float]:
        """Partition index -> until when its records are known, for those that may have unread ones."""
        unread = self._topics_with_unread()
        known: dict[int, float] = {}
        for where in self._assigned:
            if where[0] in unread:
                seen = self._seen_until.get(where, float("-inf"))
                known[where[1]] = min(seen, known.get(where[1], seen))
        return known

    def _topics_with_unread(self) -> frozenset[str]:
        """Asks the broker, so that an unreachable broker is an error here and not silence.

        What the group has not committed, less what this process read since its commit. The log counts the whole
        group; where other processes share it, an empty poll has to do.
        """
        topics = frozenset({TRACES.name, FEEDBACK.name})
        lag = self._log.lag(GROUP, topics)
        if not self._assigned:
            return topics
        is_shared = len(self._assigned) < len(topics) * self._num_partitions
        if is_shared and self._polled == 0:
            return frozenset()
        for where, following in self._next.items():
            lag[where[0]] -= following - self._committed[where]
        return frozenset(topic for topic in topics if lag[topic] > 0)

    def note(self) -> None:
        """4: copy what was written into the index, let the table forget what it says, and tell how much it was."""
        for reason, num in self._closed.items():
            telemetry.count(metrics.TRAJECTORIES_CLOSED, num, {names.CLOSED: reason.value})
        self._closed.clear()
        if self._written:
            self._index.note(self._written)
            self._written.clear()
            self.table.forget()
        self._index.forget(self._clock() - self._remember_s)

    def commit(self) -> None:
        """5: move the group's positions to their low watermarks."""
        held, late = self.table.held(), self._late.held()
        held |= {where: min(offset, held.get(where, offset)) for where, offset in late.items()}
        positions = {where: min(held.get(where, following), following) for where, following in self._next.items()}
        if positions != self._committed:
            self._reader.subscription.commit(positions)
            self._committed = positions

    def close(self) -> None:
        """Leave the group. Nothing is committed that was not flushed."""
        self._reader.close()
        self._index.close()


def _kept(message: Message) -> Held | Feedback:
    return Held.read(message) if message.topic == TRACES.name else decode(message.value, message.headers, Feedback)


def _revision(before: Trajectory, headers: Headers, late: Sequence[LateFeedback], now: float) -> Closed:
    """The next revision of a trajectory whose message had these headers."""
    message = late[-1][1]
    about = [headers, *(message.headers for _, message in late)]
    subjects = {name for one in about for name in one.get(SUBJECT_HEADER, "").split()}
    revised = amended(before, (feedback for feedback, _ in late), now)
    return Closed(message.key, revised, ids_in(revised), message.headers, tuple(sorted(subjects)), tuple(about[:-1]))


def _about_messages() -> names.Told:
    return names.messaging("process", TRACES.name) | {names.GROUP: GROUP}


def _told_of(trajectory: Trajectory) -> names.Told:
    """What a span says of a session that closed."""
    return _about_messages() | {
        names.BATCH_COUNT: len(trajectory.turns) + len(trajectory.feedback),
        names.TRAJECTORY: trajectory.trajectory_id,
        names.NUM_TURNS: len(trajectory.turns),
        names.CLOSED: trajectory.closed.value,
    }


def run(log: EventLog, config: Config, stop: Stop) -> None:
    """Assemble until `stop` is set. Raises `LogError` when the log fails; call again to go on from what it has."""
    stage = Assembler(log, config)
    try:
        while not stop.is_set():
            stage.step()
            stop.pulse.beat()
    finally:
        stage.close()
