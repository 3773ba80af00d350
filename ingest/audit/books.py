"""What is known of every trace and of all feedback of some sessions, from facts as they were told."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

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
from ingest.audit.feedback import FeedbackBooks
from ingest.audit.sources import SOURCES, Shelf
from ingest.log.letters import Failure
from ingest.log.topics import FEEDBACK, TRACES
from ingest.records.events import FateKind


@dataclass
class Books:
    """What the topics say of each trace, ids and times only. Places are `topic/partition@offset`.

    `place_of` is where a trace lay last, and `back_at` when it was put back there. `parked` and `dead_lettered` are
    places of traces; `put_back` is where messages lay that came back since. `stuck` are letters that are a session's
    trajectory or reward: where that lay, the session's key, why. `erased` are the keys of sessions of which something
    was erased. `nameless` are places of erased traces that are known by nothing else.
    """

    finished_at: dict[str, float] = field(default_factory=dict)
    session_of: dict[str, str] = field(default_factory=dict)
    num_deliveries: Counter[str] = field(default_factory=Counter)
    place_of: dict[str, str] = field(default_factory=dict)
    back_at: dict[str, float] = field(default_factory=dict)
    active_at: dict[str, float] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)
    nameless: set[str] = field(default_factory=set)
    dead_lettered: dict[str, Failure] = field(default_factory=dict)
    parked: set[str] = field(default_factory=set)
    put_back: set[str] = field(default_factory=set)
    stuck: list[tuple[str, str, Failure]] = field(default_factory=list)
    closed_at: dict[str, float] = field(default_factory=dict)
    rewarded_at: dict[str, float] = field(default_factory=dict)
    fates: dict[str, list[FateFact]] = field(default_factory=dict)
    erased: set[str] = field(default_factory=set)
    feedback: FeedbackBooks = field(default_factory=FeedbackBooks)

    def add(self, fact: Fact) -> None:
        """Note a fact. Those of a session must come first stage to last, and in the order of their topic."""
        _ADD[type(fact)](self, fact)

    def _add_trace(self, fact: TraceFact) -> None:
        """One that was put back is no second delivery, and begins its time in the open session anew."""
        name, at = fact.trace_id, max(fact.at, fact.back_at or 0.0)
        if fact.back_at is None or name not in self.num_deliveries:
            self.num_deliveries[name] += 1
        if fact.back_at is not None:
            self.back_at[name] = max(fact.back_at, self.back_at.get(name, 0.0))
        self.finished_at[name], self.place_of[name], self.session_of[name] = at, fact.place, fact.key
        self._add_activity(fact.key, at)
        if fact.is_erased:
            self.erased.add(fact.key)

    def _add_feedback(self, fact: FeedbackFact) -> None:
        self._add_activity(fact.key, fact.at)
        self.feedback.add(fact)

    def _add_closed(self, fact: ClosedFact) -> None:
        self.closed_at.update(dict.fromkeys(fact.trace_ids, fact.at))
        if fact.is_erased:
            self.erased.add(fact.key)

    def _add_joined(self, fact: JoinedFact) -> None:
        self.feedback.add_joined(fact)

    def _add_rewarded(self, fact: RewardedFact) -> None:
        self.rewarded_at.update(dict.fromkeys(fact.trace_ids, fact.at))

    def _add_fate(self, fact: FateFact) -> None:
        for trace_id in fact.trace_ids:
            self.fates.setdefault(trace_id, []).append(fact)

    def _add_back(self, fact: BackFact) -> None:
        self.put_back.add(fact.origin)

    def _add_activity(self, key: str, at: float) -> None:
        self.active_at[key] = max(at, self.active_at.get(key, at))

    def _add_unreadable(self, fact: UnreadableFact) -> None:
        if fact.topic == FEEDBACK.name:
            self.feedback.add_unreadable(fact)
        else:
            (self.nameless if fact.is_erased else self.unreadable).add(fact.place)

    def _add_letter(self, fact: LetterFact) -> None:
        source, failure = SOURCES[fact.source], Failure(fact.failure)
        if source.topic is FEEDBACK:
            self.feedback.letters[fact.origin] = failure
        elif source.topic is not TRACES:
            self.stuck.append((fact.origin, fact.key, failure))
        elif source.shelf is Shelf.PARKED:
            self.parked.add(fact.origin)
        else:
            self.dead_lettered[fact.origin] = failure

    def fates_of(self, trace_id: str) -> list[FateFact]:
        """How it ended. What ended in a dead letter and was put back since has not ended so."""
        told = self.fates.get(trace_id, [])
        back_at = self.back_at.get(trace_id)
        if back_at is None:
            return told
        return [fate for fate in told if fate.kind is not FateKind.DEAD_LETTERED or fate.at > back_at]

    def is_dead(self, trace_id: str) -> bool:
        """Its message was dead-lettered, though it can be read now, and nothing came of it since."""
        return self.place_of[trace_id] in self.dead_lettered and trace_id not in self.closed_at

    def stuck_sessions(self) -> dict[str, Failure]:
        """Keys of sessions one of whose trajectories or rewards is among the letters and did not come back."""
        return {key: failure for origin, key, failure in self.stuck if origin not in self.put_back}


_ADD: dict[type[Fact], Callable[[Books, Any], None]] = {
    TraceFact: Books._add_trace,
    FeedbackFact: Books._add_feedback,
    UnreadableFact: Books._add_unreadable,
    BackFact: Books._add_back,
    ClosedFact: Books._add_closed,
    JoinedFact: Books._add_joined,
    RewardedFact: Books._add_rewarded,
    FateFact: Books._add_fate,
    LetterFact: Books._add_letter,
}
