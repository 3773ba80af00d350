"""The part of `onstream audit` that accounts for feedback: every one that was taken, and what became of it.

    joined          it is in a trajectory; `about a turn that never came` where that has no such turn
    late            it came after its session closed, and ingest noted so
    dead-lettered   about nothing known, unreadable, or with its session, which the log did not take
    erased          it, a trace or a trajectory of its session was erased, and nothing else is known of it
    waiting         for its session, `horizon_s` at most, counted anew from when it was put back
    parked          of a version that ingest does not know yet

Anything else is unexplained. What was joined counts as that, whatever else was noted of it. An id counts once in a
session.
"""

from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

from ingest.audit.facts import FeedbackFact, JoinedFact, UnreadableFact
from ingest.audit.named import Named
from ingest.log.letters import Failure

JOINED, LATE, DEAD_LETTERED, ERASED = "joined", "late", "dead_lettered", "erased"
WAITING_FOR_SESSION = "waiting for its session"
PARKED = "parked for a newer reader"

Given = tuple[str, str]
"""The key of a session, and the id of feedback about it."""

_LETTERS = {
    Failure.UNREADABLE: (DEAD_LETTERED, "unreadable"),
    Failure.UNCLAIMED: (DEAD_LETTERED, "about nothing known"),
    Failure.LATE: (LATE, "its session was closed"),
}
_WITH_SESSION = (DEAD_LETTERED, "with its session")
_ERASED = (ERASED, "with its person")


@dataclass
class FeedbackBooks:
    """What the topics say of feedback. Places are `topic/partition@offset`."""

    given_at: dict[Given, float] = field(default_factory=dict)
    places: dict[Given, list[str]] = field(default_factory=dict)
    joined: dict[Given, str] = field(default_factory=dict)
    erased: set[Given] = field(default_factory=set)
    unreadable: set[str] = field(default_factory=set)
    nameless: set[str] = field(default_factory=set)
    letters: dict[str, Failure] = field(default_factory=dict)

    def add(self, fact: FeedbackFact) -> None:
        name = (fact.key, fact.feedback_id)
        self.given_at[name] = max(fact.at, fact.back_at or 0.0)
        self.places.setdefault(name, []).append(fact.place)
        if fact.is_erased:
            self.erased.add(name)

    def add_unreadable(self, fact: UnreadableFact) -> None:
        (self.nameless if fact.is_erased else self.unreadable).add(fact.place)

    def add_joined(self, fact: JoinedFact) -> None:
        self.joined[fact.key, fact.feedback_id] = "" if fact.is_there else "about a turn that never came"

    def letter(self, name: Given, back: Container[str]) -> Failure | None:
        """Why ingest could not use it, where it said so and it was not put back since."""
        places = (place for place in self.places[name] if place in self.letters and place not in back)
        return next((self.letters[place] for place in places), None)


@dataclass(frozen=True)
class FeedbackAccount:
    """The account. Outcomes, in flight and unexplained add up to `num_feedback`.

    `by_outcome` counts by (outcome, detail). Messages that cannot be read count as feedback, named by their place.
    """

    num_feedback: int
    by_outcome: Counter[tuple[str, str]]
    in_flight: Counter[str]
    unexplained: Named

    def __add__(self, other: "FeedbackAccount") -> "FeedbackAccount":
        return FeedbackAccount(
            self.num_feedback + other.num_feedback,
            self.by_outcome + other.by_outcome,
            self.in_flight + other.in_flight,
            self.unexplained + other.unexplained,
        )

    def as_dict(self) -> Mapping[str, Any]:
        told = [
            {"outcome": how, "detail": detail, "feedback": n} for (how, detail), n in sorted(self.by_outcome.items())
        ]
        return {
            "num_feedback": self.num_feedback,
            "by_outcome": told,
            "in_flight": dict(sorted(self.in_flight.items())),
            "num_unexplained": self.unexplained.num,
            "unexplained": list(self.unexplained.names),
        }


@dataclass(frozen=True)
class Sessions:
    """What is known of sessions, by their keys, and of messages that were put back, by where they lay before."""

    lost: Container[str]
    erased: Container[str]
    back: frozenset[str] = frozenset()


def account(books: FeedbackBooks, sessions: Sessions, waits_s: float, now: float) -> FeedbackAccount:
    """Give every feedback its outcome. It may wait for `waits_s`."""
    by_outcome: Counter[tuple[str, str]] = Counter()
    in_flight: Counter[str] = Counter()
    unexplained = []
    for name, at in books.given_at.items():
        if outcome := _outcome(name, books, sessions):
            by_outcome[outcome] += 1
        elif books.letter(name, sessions.back) is Failure.NEWER:
            in_flight[PARKED] += 1
        elif now - at <= waits_s:
            in_flight[WAITING_FOR_SESSION] += 1
        else:
            unexplained.append(f"feedback {name[1]}: is in no trajectory and no dead letter, though its time is over")
    unreadable = books.unreadable - sessions.back
    for place in unreadable:
        letter = books.letters.get(place)
        if letter is Failure.NEWER:
            in_flight[PARKED] += 1
        elif letter is not None:
            by_outcome[_LETTERS.get(letter, _LETTERS[Failure.UNREADABLE])] += 1
        else:
            unexplained.append(f"{place}: unreadable and not dead-lettered")
    nameless = books.nameless - sessions.back
    by_outcome[_ERASED] += len(nameless)
    num_feedback = len(books.given_at) + len(unreadable) + len(nameless)
    return FeedbackAccount(num_feedback, +by_outcome, in_flight, Named.of(unexplained))


def _outcome(name: Given, books: FeedbackBooks, sessions: Sessions) -> tuple[str, str] | None:
    """What became of it, and in what way; none as long as nothing did."""
    if name in books.joined:
        return JOINED, books.joined[name]
    letter = books.letter(name, sessions.back)
    if letter in _LETTERS:
        return _LETTERS[letter]
    if name[0] in sessions.lost:
        return _WITH_SESSION
    return _ERASED if name in books.erased or name[0] in sessions.erased else None
