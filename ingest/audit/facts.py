"""Facts: what one message says to the audit, ids, times and places, and nothing of the content.

Every fact has the key of its session first: facts with the same key are accounted for together.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ingest.records.events import FateKind


class TraceFact(NamedTuple):
    """A trace was delivered, at `place`. `back_at` is when it was put back there, if it was."""

    key: str
    trace_id: str
    at: float
    place: str
    back_at: float | None = None
    is_erased: bool = False


class FeedbackFact(NamedTuple):
    """Feedback was taken."""

    key: str
    feedback_id: str
    at: float
    place: str
    back_at: float | None = None
    is_erased: bool = False


class UnreadableFact(NamedTuple):
    """A message of `topic` says nothing that can be read: damaged, or newer; or erased without naming its ids."""

    key: str
    topic: str
    place: str
    is_erased: bool = False


class BackFact(NamedTuple):
    """What lay at `origin` was put back."""

    key: str
    origin: str


class ClosedFact(NamedTuple):
    """These traces are in a trajectory."""

    key: str
    trace_ids: Sequence[str]
    at: float
    is_erased: bool = False


class JoinedFact(NamedTuple):
    """Feedback is in a trajectory; `is_there` says whether the turn is, that it is about."""

    key: str
    feedback_id: str
    is_there: bool


class RewardedFact(NamedTuple):
    """These traces have a reward."""

    key: str
    trace_ids: Sequence[str]
    at: float


class FateFact(NamedTuple):
    """These traces ended so."""

    key: str
    trace_ids: Sequence[str]
    kind: FateKind
    version: int | None
    reason: str
    at: float


class LetterFact(NamedTuple):
    """A stage could not use what lay at `origin`, and left it on the topic of letters `source`."""

    key: str
    source: str
    origin: str
    failure: str


Fact = (
    TraceFact
    | FeedbackFact
    | UnreadableFact
    | BackFact
    | ClosedFact
    | JoinedFact
    | RewardedFact
    | FateFact
    | LetterFact
)
KINDS: tuple[type[Fact], ...] = (
    TraceFact,
    FeedbackFact,
    UnreadableFact,
    BackFact,
    ClosedFact,
    JoinedFact,
    RewardedFact,
    FateFact,
    LetterFact,
)


def row(fact: Fact) -> tuple[object, ...]:
    """A fact as a JSON array holds it."""
    return (_NUMBERS[type(fact)], *fact)


def of_row(values: list[Any]) -> Fact:
    """The fact that `row` made `values` of."""
    kind = KINDS[values[0]]
    if kind is FateFact:
        values[_FATE_KIND] = FateKind(values[_FATE_KIND])
    found: Fact = kind(*values[1:])
    return found


_NUMBERS = {kind: number for number, kind in enumerate(KINDS)}
_FATE_KIND = 1 + FateFact._fields.index("kind")
