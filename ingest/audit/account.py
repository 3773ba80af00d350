"""Every trace and every feedback, accounted for: pure, from books.

A trace has one outcome: one fate; or it is in flight, and where; or nothing explains it. In flight is a claim with an
end, after which the trace is unexplained:

    open session               its session may still be open: younger than `inactivity_s`, and it than `horizon_s`
    waiting for a reward       its trajectory was closed at most `rewards.max_wait_s` ago
    waiting for the trainer    it has a reward, still on its topic, and no fate yet: nor has what trained in a version
                               that is not decided
    parked for a newer reader  it, or its session's trajectory or reward, is of a version that a stage does not know yet

each but the last with `grace_s` for the stages to get there, counted anew from when something was put back. A trace may
be in several trajectories: late feedback issues one again. A message of `traces` that cannot be read is dead-lettered
if the dead-letter topic has it, and unexplained if not; one that was put back counts by what became of it since, also
where it had ended in a dead letter before. An erased trace counts by its id like any other.

Sessions do not touch each other: accounts of the books of some sessions each add up to the account of all.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from infra.config import Config
from ingest.audit import feedback as audit_feedback
from ingest.audit.books import Books
from ingest.audit.facts import FateFact
from ingest.audit.feedback import PARKED, FeedbackAccount, Sessions
from ingest.audit.named import Named
from ingest.log.letters import Failure
from ingest.records.events import FateKind

GRACE_S = 120.0  # start of a stage (30 s settling) after an outage (15 s backoff), twice, and a tick each
OPEN_SESSION = "open session"
WAITING_FOR_REWARD = "waiting for a reward"
WAITING_FOR_TRAINER = "waiting for the trainer"
ERASED = "erased"

_DEAD = {Failure.ORPHANED: "its prefix is not on the log"}


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


@dataclass(frozen=True)
class Account:
    """The account. Fates, in flight, unexplained and conflicting traces add up to `num_traces`.

    `by_reason` counts by (fate's kind, version or reason). Messages that cannot be read count as traces, named by
    their place. `duplicates` were delivered more than once, and count once. `feedback` adds up on its own, and what
    waits of it does not unsettle the account: it may wait for something that never comes.
    """

    num_traces: int
    by_reason: Counter[tuple[str, str]]
    in_flight: Counter[str]
    unexplained: Named
    conflicts: Named
    duplicates: Named
    feedback: FeedbackAccount

    @property
    def by_fate(self) -> Counter[str]:
        """How many ended in each kind of fate."""
        found: Counter[str] = Counter()
        for (kind, _), num in self.by_reason.items():
            found[kind] += num
        return found

    def __add__(self, other: "Account") -> "Account":
        return Account(
            self.num_traces + other.num_traces,
            self.by_reason + other.by_reason,
            self.in_flight + other.in_flight,
            self.unexplained + other.unexplained,
            self.conflicts + other.conflicts,
            self.duplicates + other.duplicates,
            self.feedback + other.feedback,
        )

    def is_complete(self) -> bool:
        """Nothing is unexplained, traces or feedback, and nothing contradicts itself."""
        return not self.unexplained and not self.conflicts and not self.feedback.unexplained

    def is_settled(self) -> bool:
        """Complete, and no trace is in flight any more."""
        return self.is_complete() and not self.in_flight.total()

    def as_json(self) -> str:
        """One object. Lists of names end somewhere; the number beside each is that of all."""
        reasons = [
            {"fate": kind, "reason": reason, "traces": n} for (kind, reason), n in sorted(self.by_reason.items())
        ]
        return json.dumps(
            {
                "num_traces": self.num_traces,
                "by_fate": dict(sorted(self.by_fate.items())),
                "by_reason": reasons,
                "in_flight": dict(sorted(self.in_flight.items())),
                "num_unexplained": self.unexplained.num,
                "unexplained": list(self.unexplained.names),
                "num_conflicts": self.conflicts.num,
                "conflicts": list(self.conflicts.names),
                "num_duplicates": self.duplicates.num,
                "duplicates": list(self.duplicates.names),
                "feedback": self.feedback.as_dict(),
            }
        )


def account(books: Books, limits: Limits, now: float) -> Account:
    """Give every trace and every feedback its outcome."""
    by_reason: Counter[tuple[str, str]] = Counter()
    in_flight: Counter[str] = Counter()
    unexplained, conflicts = [], []
    stuck = books.stuck_sessions()
    for trace_id in books.num_deliveries:
        outcomes = {_outcome(fate): fate for fate in books.fates_of(trace_id)}
        if len(outcomes) > 1:
            conflicts.append(f"{trace_id}: {' and '.join(sorted(outcomes))}")
        elif outcomes:
            fate = next(iter(outcomes.values()))
            by_reason[fate.kind.value, _detail(fate)] += 1
        elif books.is_dead(trace_id):
            by_reason[_dead(books.dead_lettered[books.place_of[trace_id]])] += 1
        elif where := _in_flight(trace_id, books, stuck, limits, now):
            in_flight[where] += 1
        elif _letter(trace_id, books, stuck) is not None:
            by_reason[FateKind.DEAD_LETTERED.value, "its trajectory or reward is unreadable"] += 1
        else:
            unexplained.append(f"{trace_id}: {_stuck(trace_id, books)}")
    unreadable, nameless = books.unreadable - books.put_back, books.nameless - books.put_back
    for place in unreadable:
        if place in books.dead_lettered:
            by_reason[_dead(books.dead_lettered[place])] += 1
        elif place in books.parked:
            in_flight[PARKED] += 1
        else:
            unexplained.append(f"{place}: unreadable and not dead-lettered")
    by_reason[FateKind.REFUSED.value, ERASED] += len(nameless)
    sessions = Sessions(_lost(books), books.erased, frozenset(books.put_back))
    return Account(
        num_traces=len(books.num_deliveries) + len(unreadable) + len(nameless),
        by_reason=+by_reason,
        in_flight=in_flight,
        unexplained=Named.of(unexplained),
        conflicts=Named.of(conflicts),
        duplicates=Named.of(trace_id for trace_id, num in books.num_deliveries.items() if num > 1),
        feedback=audit_feedback.account(books.feedback, sessions, limits.horizon_s + limits.grace_s, now),
    )


def _lost(books: Books) -> set[str]:
    """Keys of the sessions with dead-lettered traces: their feedback went with them."""
    return {
        fate.key for trace_id in books.fates for fate in books.fates_of(trace_id) if fate.kind is FateKind.DEAD_LETTERED
    }


def _outcome(fate: FateFact) -> str:
    """What must be the same in every fate of a trace; wording may differ between deliveries."""
    return fate.kind.value if fate.version is None else f"{fate.kind.value} in version {fate.version}"


def _detail(fate: FateFact) -> str:
    return f"version {fate.version}" if fate.kind is FateKind.TRAINED else fate.reason


def _dead(failure: Failure) -> tuple[str, str]:
    return FateKind.DEAD_LETTERED.value, _DEAD.get(failure, "unreadable")


def _letter(trace_id: str, books: Books, stuck: Mapping[str, Failure]) -> Failure | None:
    """Why a later record of its session was not read, where that may have held it."""
    return None if trace_id in books.rewarded_at else stuck.get(books.session_of[trace_id])


def _in_flight(trace_id: str, books: Books, stuck: Mapping[str, Failure], limits: Limits, now: float) -> str | None:
    def is_young(at: float, limit_s: float) -> bool:
        return now - at <= limit_s + limits.grace_s

    if books.place_of[trace_id] in books.parked and trace_id not in books.closed_at:
        return PARKED
    if trace_id in books.rewarded_at:
        return WAITING_FOR_TRAINER if is_young(books.rewarded_at[trace_id], limits.retention_s) else None
    if trace_id in books.closed_at:
        return WAITING_FOR_REWARD if is_young(books.closed_at[trace_id], limits.reward_s) else None
    if _letter(trace_id, books, stuck) is Failure.NEWER:
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
