"""`onstream audit`: every trace and every feedback on the log, accounted for.

A trace has one outcome: one fate; or it is in flight, and where; or nothing explains it. In flight is a claim with an
end, after which the trace is unexplained:

    open session               its session may still be open: younger than `inactivity_s`, and it than `horizon_s`
    waiting for a reward       its trajectory was closed at most `rewards.max_wait_s` ago
    waiting for the trainer    it has a reward, still on its topic, and no fate yet
    parked for a newer reader  it, or its session's trajectory or reward, is of a version that a stage does not know yet

each but the last with `grace_s` for the stages to get there, counted anew from when something was put back. A message
of `traces` that cannot be read is dead-lettered if the dead-letter topic has it, and unexplained if not; one that was
put back counts by what became of it since. Feedback has an account of its own: `ingest.audit.feedback`.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from infra import broker, cli
from infra.config import Config
from infra.errors import RecordError
from infra.lifecycle import Deadline
from ingest.audit import feedback as audit_feedback
from ingest.audit.feedback import PARKED, FeedbackAccount, FeedbackBooks
from ingest.log import letters, redrive
from ingest.log.letters import Failure
from ingest.log.protocol import EventLog, Message
from ingest.log.reader import place
from ingest.log.topics import (
    FATES,
    FEEDBACK,
    READERS,
    REWARDS,
    TRACES,
    TRAJECTORIES,
    Topic,
    dead_letters,
    late_letters,
    parked,
)
from ingest.records import codec
from ingest.records.events import AnyRecord, Fate, FateKind, Feedback, Reward, Trace, Trajectory, key_of, session_key
from ingest.sessions.assemble import GROUP

GRACE_S = 120.0  # start of a stage (30 s settling) after an outage (15 s backoff), twice, and a tick each
OPEN_SESSION = "open session"
WAITING_FOR_REWARD = "waiting for a reward"
WAITING_FOR_TRAINER = "waiting for the trainer"
RETRY_S = 1.0


@dataclass(frozen=True)
class Limits:
    """How long, in seconds, a trace may be in flight before that explains nothing."""

    inactivity_s: float
    horizon_s: float
    retention_s: float
    reward_s: float = 0.0
    grace_s: float = GRACE_S

    @classmethod
    def of(cls, config: Config) -> "Limits":
        return cls(
            config.ingest.inactivity_s, config.ingest.horizon_s, config.log.retention_s, config.rewards.max_wait_s
        )


@dataclass
class Books:
    """What the topics say of each trace, ids and times only. Places are `topic/partition@offset`.

    `place_of` is where a trace lay last. `parked` and `dead_lettered` are places of traces; `put_back` is where
    messages lay that came back since, `back_at` when. `stuck` are the keys of sessions one of whose trajectories or
    rewards is among the letters and did not come back.
    """

    finished_at: dict[str, float] = field(default_factory=dict)
    session_of: dict[str, str] = field(default_factory=dict)
    num_deliveries: Counter[str] = field(default_factory=Counter)
    active_at: dict[str, float] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)
    dead_lettered: set[str] = field(default_factory=set)
    parked: set[str] = field(default_factory=set)
    put_back: set[str] = field(default_factory=set)
    place_of: dict[str, str] = field(default_factory=dict)
    stuck: dict[str, Failure] = field(default_factory=dict)
    closed_at: dict[str, float] = field(default_factory=dict)
    rewarded_at: dict[str, float] = field(default_factory=dict)
    fates: dict[str, list[Fate]] = field(default_factory=dict)
    feedback: FeedbackBooks = field(default_factory=FeedbackBooks)

    def add_trace(self, trace: Trace, place: str = "", back_at: float | None = None) -> None:
        """One that was put back is no second delivery, and begins its time in the open session anew."""
        key, at = session_key(trace.session_id), max(trace.finished_at, back_at or 0.0)
        if back_at is None or trace.trace_id not in self.num_deliveries:
            self.num_deliveries[trace.trace_id] += 1
        self.finished_at[trace.trace_id], self.place_of[trace.trace_id] = at, place
        self.session_of[trace.trace_id] = key
        self.add_activity(key, at)

    def add_activity(self, key: str, at: float) -> None:
        self.active_at[key] = max(at, self.active_at.get(key, at))

    def add_trajectory(self, trajectory: Trajectory, back_at: float | None = None) -> None:
        at = max(trajectory.closed_at, back_at or 0.0)
        self.closed_at.update({turn.trace_id: at for turn in trajectory.turns})
        self.feedback.add_trajectory(trajectory)

    def add_feedback(self, feedback: Feedback, place: str, back_at: float | None = None) -> None:
        self.add_activity(key_of(session_id=feedback.session_id, trace_id=feedback.trace_id), feedback.at)
        self.feedback.add(feedback, place, back_at)

    def add_reward(self, reward: Reward, back_at: float | None = None) -> None:
        self.rewarded_at.update(dict.fromkeys(reward.trace_ids, max(reward.at, back_at or 0.0)))

    def add_fate(self, fate: Fate) -> None:
        for trace_id in fate.trace_ids:
            self.fates.setdefault(trace_id, []).append(fate)

    def is_dead(self, trace_id: str) -> bool:
        """Its message was dead-lettered, though it can be read now, and nothing came of it since."""
        return self.place_of[trace_id] in self.dead_lettered and trace_id not in self.closed_at

    def letter_of(self, trace_id: str) -> Failure | None:
        """Why a later record of its session was not read, where that may have held it."""
        return None if trace_id in self.rewarded_at else self.stuck.get(self.session_of[trace_id])


@dataclass(frozen=True)
class Account:
    """The account. Fates, in flight, unexplained and conflicting traces add up to `num_traces`.

    `by_fate` counts by fate's kind; `by_reason` by (kind, version or reason). Messages that cannot be read count as
    traces, named by their place. `duplicates` were delivered more than once, and count once. `feedback` adds up on
    its own, and what waits of it does not unsettle the account: it may wait for something that never comes.
    """

    num_traces: int
    by_fate: Counter[str]
    by_reason: Counter[tuple[str, str]]
    in_flight: Counter[str]
    unexplained: tuple[str, ...]
    conflicts: tuple[str, ...]
    duplicates: tuple[str, ...]
    feedback: FeedbackAccount

    def is_complete(self) -> bool:
        """Nothing is unexplained, traces or feedback, and nothing contradicts itself."""
        return not self.unexplained and not self.conflicts and not self.feedback.unexplained

    def is_settled(self) -> bool:
        """Complete, and no trace is in flight any more."""
        return self.is_complete() and not self.in_flight.total()

    def as_json(self) -> str:
        reasons = [
            {"fate": kind, "reason": reason, "traces": n} for (kind, reason), n in sorted(self.by_reason.items())
        ]
        return json.dumps(
            {
                "num_traces": self.num_traces,
                "by_fate": dict(sorted(self.by_fate.items())),
                "by_reason": reasons,
                "in_flight": dict(sorted(self.in_flight.items())),
                "unexplained": list(self.unexplained),
                "conflicts": list(self.conflicts),
                "duplicates": list(self.duplicates),
                "feedback": self.feedback.as_dict(),
            }
        )


def account(books: Books, limits: Limits, now: float) -> Account:
    """Give every trace its outcome."""
    by_reason: Counter[tuple[str, str]] = Counter()
    in_flight: Counter[str] = Counter()
    unexplained, conflicts = [], []
    for trace_id in books.num_deliveries:
        outcomes = {_outcome(fate): fate for fate in books.fates.get(trace_id, [])}
        if len(outcomes) > 1:
            conflicts.append(f"{trace_id}: {' and '.join(sorted(outcomes))}")
        elif outcomes:
            fate = next(iter(outcomes.values()))
            by_reason[fate.kind.value, _detail(fate)] += 1
        elif books.is_dead(trace_id):
            by_reason[FateKind.DEAD_LETTERED.value, "unreadable"] += 1
        elif where := _in_flight(trace_id, books, limits, now):
            in_flight[where] += 1
        elif books.letter_of(trace_id) is not None:
            by_reason[FateKind.DEAD_LETTERED.value, "its trajectory or reward is unreadable"] += 1
        else:
            unexplained.append(f"{trace_id}: {_stuck(trace_id, books)}")
    unreadable = books.unreadable - books.put_back
    if found := unreadable & books.dead_lettered:
        by_reason[FateKind.DEAD_LETTERED.value, "unreadable"] += len(found)
    if waiting := unreadable & books.parked - found:
        in_flight[PARKED] += len(waiting)
    lost = sorted(unreadable - books.dead_lettered - books.parked)
    by_fate: Counter[str] = Counter()
    for (kind, _), num in by_reason.items():
        by_fate[kind] += num
    return Account(
        num_traces=len(books.num_deliveries) + len(unreadable),
        by_fate=by_fate,
        by_reason=by_reason,
        in_flight=in_flight,
        unexplained=(*unexplained, *(f"{place}: unreadable and not dead-lettered" for place in lost)),
        conflicts=tuple(conflicts),
        duplicates=tuple(trace_id for trace_id, num in books.num_deliveries.items() if num > 1),
        feedback=audit_feedback.account(books.feedback, _lost(books), limits.horizon_s + limits.grace_s, now),
    )


def _lost(books: Books) -> set[str]:
    """Keys of the sessions with dead-lettered traces: their feedback went with them."""
    dead = (name for name, told in books.fates.items() if any(fate.kind is FateKind.DEAD_LETTERED for fate in told))
    return {key_of(session_id=None, trace_id=trace_id) for trace_id in dead}


def _outcome(fate: Fate) -> str:
    """What must be the same in every fate of a trace; wording may differ between deliveries."""
    return fate.kind.value if fate.version is None else f"{fate.kind.value} in version {fate.version}"


def _detail(fate: Fate) -> str:
    return f"version {fate.version}" if fate.kind is FateKind.TRAINED else fate.reason


def _in_flight(trace_id: str, books: Books, limits: Limits, now: float) -> str | None:
    def is_young(at: float, limit_s: float) -> bool:
        return now - at <= limit_s + limits.grace_s

    if books.place_of[trace_id] in books.parked and trace_id not in books.closed_at:
        return PARKED
    if trace_id in books.rewarded_at:
        return WAITING_FOR_TRAINER if is_young(books.rewarded_at[trace_id], limits.retention_s) else None
    if trace_id in books.closed_at:
        return WAITING_FOR_REWARD if is_young(books.closed_at[trace_id], limits.reward_s) else None
    if books.letter_of(trace_id) is Failure.NEWER:
        return PARKED
    is_session_young = is_young(books.active_at[books.session_of[trace_id]], limits.inactivity_s)
    is_open = is_session_young and is_young(books.finished_at[trace_id], limits.horizon_s)
    return OPEN_SESSION if is_open else None


def _stuck(trace_id: str, books: Books) -> str:
    if trace_id in books.rewarded_at:
        return "has a reward, but the trainer never gave it a fate"
    if trace_id in books.closed_at:
        return "is in a trajectory, but has no reward"
    return "is in no trajectory, though its session must have ended"


def read(log: EventLog) -> Books:
    """Replay the topics, first stage to last: what a trace's books say is never older than the trace itself."""
    books = Books()
    for message, trace in _records(log, TRACES, Trace, books):
        if trace is None:
            books.unreadable.add(place(message))
        else:
            books.add_trace(trace, place(message), redrive.put_back_at(message.headers))
    for message, given in _records(log, FEEDBACK, Feedback, books):
        if given is None:
            books.feedback.unreadable.add(place(message))
        else:
            books.add_feedback(given, place(message), redrive.put_back_at(message.headers))
    for message, trajectory in _records(log, TRAJECTORIES, Trajectory, books):
        if trajectory is not None:
            books.add_trajectory(trajectory, redrive.put_back_at(message.headers))
    for message, reward in _records(log, REWARDS, Reward, books):
        if reward is not None:
            books.add_reward(reward, redrive.put_back_at(message.headers))
    _read_letters(log, books)
    for _, fate in _records(log, FATES, Fate, books):
        if fate is not None:
            books.add_fate(fate)
    return books


def _records(
    log: EventLog, topic: Topic, kind: type[AnyRecord], books: Books
) -> Iterator[tuple[Message, AnyRecord | None]]:
    """Every message of a topic, with its record where it can be read."""
    for message in log.replay(topic.name):
        if origin := redrive.origin_of(message.headers):
            books.put_back.add(origin)
        try:
            yield message, codec.decode(message.value, message.headers, kind)
        except RecordError:
            yield message, None


def _read_letters(log: EventLog, books: Books) -> None:
    """Who could not use what, and has not been given it again since."""
    books.dead_lettered |= letters.read(log, dead_letters(TRACES.name, GROUP)).keys()
    books.parked |= letters.read(log, parked(TRACES.name, GROUP)).keys()
    for source in (late_letters, dead_letters, parked):
        books.feedback.letters |= letters.read(log, source(FEEDBACK.name, GROUP))
    for group, topics in READERS.items():
        for topic in topics:
            if topic in (TRAJECTORIES, REWARDS):
                for source in (parked, dead_letters):
                    for letter in letters.each(log, source(topic.name, group)):
                        if str(letter.origin) not in books.put_back:
                            books.stuck[letter.message.key] = letter.failure
    for origin in books.put_back:
        books.feedback.letters.pop(origin, None)
    books.feedback.unreadable -= books.put_back


def settle(log: EventLog, limits: Limits, wait_s: float, clock: Callable[[], float] = time.time) -> Account:
    """Take the account; for up to `wait_s`, take it again until every trace has its fate."""
    deadline = Deadline.after(wait_s)
    while True:
        now = clock()
        found = account(read(log), limits, now)
        if found.is_settled() or deadline.passed():
            return found
        time.sleep(min(RETRY_S, deadline.left_s()))


def main(argv: list[str]) -> int:
    """The command. Exit status 0: every trace and all feedback is explained, and no trace has two fates."""
    about = "Account for every trace and every feedback on the log."
    parser = argparse.ArgumentParser(prog="onstream audit", description=about)
    cli.add_config(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="wait for traces still in flight")
    args = parser.parse_args(argv)

    def run(config: Config) -> int:
        from ingest.log.connect import connect

        broker.require_running(config.log)
        log = connect(config, client_id="audit")
        try:
            found = settle(log, Limits.of(config), args.wait)
        finally:
            log.close()
        print(found.as_json()) if args.json else show(found)
        return 0 if found.is_complete() else 1

    return cli.guarded(args.config, run, verbose=False)


def show(found: Account) -> None:
    """The accounts as tables, then a line for everything that is wrong."""

    table = Table("outcome", "detail", "traces", title=f"{found.num_traces} traces")
    table.columns[2].justify = "right"
    for (kind, reason), num in sorted(found.by_reason.items()):
        table.add_row(kind, escape(reason), str(num))
    for where, num in sorted(found.in_flight.items()):
        table.add_row("in flight", where, str(num))
    table.add_row("UNEXPLAINED", "", str(len(found.unexplained)))
    table.add_row("CONFLICT", "", str(len(found.conflicts)))
    console = Console(soft_wrap=True)
    console.print(table, _feedback_table(found.feedback))
    for line in found.conflicts:
        console.print(f"CONFLICT {escape(line)}")
    for line in (*found.unexplained, *found.feedback.unexplained):
        console.print(f"UNEXPLAINED {escape(line)}")
    if found.duplicates:
        console.print(f"{len(found.duplicates)} traces were delivered more than once and count once")


def _feedback_table(found: FeedbackAccount) -> Table:
    table = Table("outcome", "detail", "feedback", title=f"{found.num_feedback} feedback")
    table.columns[2].justify = "right"
    for (how, detail), num in sorted(found.by_outcome.items()):
        table.add_row(how, detail, str(num))
    for where, num in sorted(found.in_flight.items()):
        table.add_row("in flight", where, str(num))
    table.add_row("UNEXPLAINED", "", str(len(found.unexplained)))
    return table
