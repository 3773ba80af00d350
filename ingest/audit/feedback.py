"""The part of `onstream audit` that accounts for feedback: every one that was taken, and what became of it.

    joined          it is in a trajectory; `about a turn that never came` where that has no such turn
    late            it came after its session closed, and ingest noted so
    dead-lettered   about nothing known, unreadable, or with its session, which the log did not take
    waiting         for its session, `horizon_s` at most, counted anew from when it was put back
    parked          of a version that ingest does not know yet

Anything else is unexplained. What was joined counts as that, whatever else was noted of it. An id counts once.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ingest.log.letters import Failure
from ingest.records.events import Feedback, Trajectory, key_of

JOINED, LATE, DEAD_LETTERED = "joined", "late", "dead_lettered"
WAITING_FOR_SESSION = "waiting for its session"
PARKED = "parked for a newer reader"

_LETTERS = {
    Failure.UNREADABLE: (DEAD_LETTERED, "unreadable"),
    Failure.UNCLAIMED: (DEAD_LETTERED, "about nothing known"),
    Failure.LATE: (LATE, "its session was closed"),
}
_WITH_SESSION = (DEAD_LETTERED, "with its session")


@dataclass
class FeedbackBooks:
    """What the topics say of feedback, by its id. Places are `topic/partition@offset`."""

    given_at: dict[str, float] = field(default_factory=dict)
    key: dict[str, str] = field(default_factory=dict)
    places: dict[str, list[str]] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)
    joined: dict[str, str] = field(default_factory=dict)
    letters: dict[str, Failure] = field(default_factory=dict)

    def add(self, feedback: Feedback, place: str, back_at: float | None = None) -> None:
        name = feedback.feedback_id
        self.given_at[name] = max(feedback.at, back_at or 0.0)
        self.key[name] = key_of(session_id=feedback.session_id, trace_id=feedback.trace_id)
        self.places.setdefault(name, []).append(place)

    def add_trajectory(self, trajectory: Trajectory) -> None:
        known = {turn.trace_id for turn in trajectory.turns}
        for feedback in trajectory.feedback:
            is_there = feedback.trace_id is None or feedback.trace_id in known
            self.joined[feedback.feedback_id] = "" if is_there else "about a turn that never came"

    def outcome(self, name: str, lost_keys: frozenset[str]) -> tuple[str, str] | None:
        """What became of it, and in what way; none as long as nothing did."""
        if name in self.joined:
            return JOINED, self.joined[name]
        letter = self.letter(name)
        if letter in _LETTERS:
            return _LETTERS[letter]
        return _WITH_SESSION if self.key[name] in lost_keys else None

    def letter(self, name: str) -> Failure | None:
        """Why ingest could not use it, where it said so."""
        return next((self.letters[place] for place in self.places[name] if place in self.letters), None)


@dataclass(frozen=True)
class FeedbackAccount:
    """The account. Outcomes, in flight and unexplained add up to `num_feedback`.

    `by_outcome` counts by (outcome, detail). Messages that cannot be read count as feedback, named by their place.
    """

    num_feedback: int
    by_outcome: Counter[tuple[str, str]]
    in_flight: Counter[str]
    unexplained: tuple[str, ...]

    def as_dict(self) -> Mapping[str, Any]:
        told = [
            {"outcome": how, "detail": detail, "feedback": n} for (how, detail), n in sorted(self.by_outcome.items())
        ]
        return {
            "num_feedback": self.num_feedback,
            "by_outcome": told,
            "in_flight": dict(sorted(self.in_flight.items())),
            "unexplained": list(self.unexplained),
        }


def account(books: FeedbackBooks, lost_keys: Iterable[str], waits_s: float, now: float) -> FeedbackAccount:
    """Give every feedback its outcome. It may wait for `waits_s`; the log did not take the sessions `lost_keys`."""
    lost = frozenset(lost_keys)
    by_outcome: Counter[tuple[str, str]] = Counter()
    in_flight: Counter[str] = Counter()
    unexplained = []
    for name, at in books.given_at.items():
        if outcome := books.outcome(name, lost):
            by_outcome[outcome] += 1
        elif books.letter(name) is Failure.NEWER:
            in_flight[PARKED] += 1
        elif now - at <= waits_s:
            in_flight[WAITING_FOR_SESSION] += 1
        else:
            unexplained.append(f"feedback {name}: is in no trajectory and no dead letter, though its time is over")
    for place in sorted(books.unreadable):
        letter = books.letters.get(place)
        if letter is Failure.NEWER:
            in_flight[PARKED] += 1
        elif letter is not None:
            by_outcome[_LETTERS[letter]] += 1
        else:
            unexplained.append(f"{place}: unreadable and not dead-lettered")
    num_feedback = len(books.given_at) + len(books.unreadable)
    return FeedbackAccount(num_feedback, by_outcome, in_flight, tuple(unexplained))
