"""Scorers: one number in [0, 1] for a turn, or the reason why there is none.

A scorer is any object with a `name`, a `version` and `score(trajectory, turn)`; see `Scorer`, and `BatchScorer` for one
that waits for something outside this process. Those here are built in and go by a short name in a reward spec:
`feedback`, `followup`, `reply`. They are frozen values, equal when they score alike, which is how a spec tells a
guardrail from a reward component.

A scorer that is only about turns of some kind says so: `kinds: ClassVar = frozenset({TurnKind.SUMMARY})`. Without it,
it is asked about main and summary turns; nobody is asked about side turns. One that scores what a user did or did not
do, or reads any later turn, says `needs_user: ClassVar = True`: of a replay, which no user ever saw, it is not asked.
"""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Annotated, ClassVar, Protocol, runtime_checkable

from pydantic import AfterValidator, ConfigDict
from pydantic.dataclasses import dataclass

from ingest.records.events import Trajectory, Turn, TurnKind
from rewards.summary.likelihood import Likelihoods


@dataclasses.dataclass(frozen=True)
class Scored:
    """A number in [0, 1]; 1 is best. Raises `ValueError` for any other."""

    value: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and 0.0 <= self.value <= 1.0):
            raise ValueError(f"a score lies in [0, 1], got {self.value}")


@dataclasses.dataclass(frozen=True)
class Unscored:
    """No number, and why. Not the same as 0: it takes no part in any mean."""

    reason: str


Outcome = Scored | Unscored


@runtime_checkable
class Scorer(Protocol):
    """What a reward spec may name. `version` changes whenever the same turn would score otherwise."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def score(self, trajectory: Trajectory, turn: Turn) -> Outcome:
        """Score one turn of a closed session. Raising is `Unscored`, never 0."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a scorer that waits for others declares of itself.

    `timeout_s` bounds one call of `score_batch`; `window_s` all attempts at a turn, outages included; `concurrency`
    is how many calls run at a time, `batch` how many turns one call takes. Raises `ValueError` for what cannot be kept.
    """

    timeout_s: float
    window_s: float
    concurrency: int = 1
    batch: int = 8

    def __post_init__(self) -> None:
        if not (self.timeout_s > 0 and self.window_s > 0 and self.concurrency >= 1 and self.batch >= 1):
            raise ValueError(f"a cost's times must be above 0, its numbers 1 or more, got {self}")


@dataclasses.dataclass(frozen=True)
class Services:
    """What a `BatchScorer` may ask. `likelihoods` is none where no engine has a scoring port."""

    likelihoods: Likelihoods | None = None


@runtime_checkable
class BatchScorer(Protocol):
    """A scorer that waits for something outside this process. Fast scorers never wait for it.

    All batch scorers share one event loop: `score_batch` awaits and does not block.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def cost(self) -> Cost: ...

    def applies(self, trajectory: Trajectory, turn: Turn) -> Unscored | None:
        """Why there is nothing to ask about this turn, told at once; `None` when there is."""

    async def score_batch(self, batch: Sequence[tuple[Trajectory, Turn]], services: Services) -> Sequence[Outcome]:
        """An outcome for each, in order. `UnavailableError` is tried again within the window; then it is `Unscored`,
        as is anything else raised."""


AnyScorer = Scorer | BatchScorer
TRAINED_KINDS = frozenset({TurnKind.MAIN, TurnKind.SUMMARY})


def kinds_of(scorer: AnyScorer) -> frozenset[TurnKind]:
    """The kinds of turns that a scorer is asked about."""
    kinds: frozenset[TurnKind] = getattr(scorer, "kinds", TRAINED_KINDS)
    return kinds


def needs_user(scorer: AnyScorer) -> bool:
    """Whether only a user's doing can tell the scorer anything."""
    return bool(getattr(scorer, "needs_user", False))


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as exc:
        raise ValueError(f"{pattern!r} is no regular expression: {exc}") from exc
    return pattern


Patterns = tuple[Annotated[str, AfterValidator(_compiles)], ...]
STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, config=STRICT)
class FeedbackScorer:
    """Mean of the feedback about a turn, from [-1, 1] to [0, 1].

    Args:
        names: feedback names that count; empty: all.
        session_level: feedback that names no trace counts for every main turn.
    """

    names: tuple[str, ...] = ()
    session_level: bool = True
    name: ClassVar[str] = "feedback"
    version: ClassVar[str] = "1"
    needs_user: ClassVar[bool] = True

    def score(self, trajectory: Trajectory, turn: Turn) -> Outcome:
        values = [
            item.value
            for item in trajectory.feedback
            if (not self.names or item.name in self.names) and self._is_about(item.trace_id, turn)
        ]
        if not values:
            return Unscored("no feedback")
        return Scored((math.fsum(values) / len(values) + 1.0) / 2.0)

    def _is_about(self, trace_id: str | None, turn: Turn) -> bool:
        if trace_id:
            return trace_id == turn.trace_id
        return self.session_level and turn.kind is TurnKind.MAIN


DISPLEASED = (
    r"\b(that'?s|that is|this is|it'?s|it is|you'?re|you are) (\w+ )?(wrong|incorrect|not right|not what i)\b",
    r"\b(doesn'?t|does not|didn'?t|did not) (work|help)\b",
    r"\bnot what i (asked|meant|wanted)\b",
    r"\b(try|do it|do that) again\b",
    r"^\s*(no|wrong|nope)\b[.,! ]",
)
PLEASED = (
    r"\b(thanks|thank you|perfect|great|awesome|excellent)\b",
    r"\b(that|it|this) (works|worked|helps|helped)\b",
)


@dataclass(frozen=True, config=STRICT)
class FollowupRule:
    """What the user's next words say of a turn: 0 when displeased, 1 when pleased, unscored otherwise.

    Args:
        displeased: regular expressions; any match is 0, also where a pleased one matches ("thanks, but that's wrong").
        pleased: regular expressions; any match is 1.
        ignore_case: match without regard to case.
    """

    displeased: Patterns = DISPLEASED
    pleased: Patterns = PLEASED
    ignore_case: bool = True
    name: ClassVar[str] = "followup"
    version: ClassVar[str] = "1"
    needs_user: ClassVar[bool] = True

    def score(self, trajectory: Trajectory, turn: Turn) -> Outcome:
        if turn.followup is None:
            return Unscored("no follow-up")
        flags = re.IGNORECASE if self.ignore_case else 0
        if any(re.search(pattern, turn.followup, flags) for pattern in self.displeased):
            return Scored(0.0)
        if any(re.search(pattern, turn.followup, flags) for pattern in self.pleased):
            return Scored(1.0)
        return Unscored("follow-up says neither")


@dataclass(frozen=True, config=STRICT)
class ReplyRule:
    """1 when the reply keeps every condition given, else 0. At least one must be given.

    Args:
        min_words, max_words: words, divided by white space, inclusive.
        must_match, must_not_match: regular expressions searched for in the reply.
        finish_reasons: the reply's finish reason is one of these.
    """

    min_words: int | None = None
    max_words: int | None = None
    must_match: Patterns = ()
    must_not_match: Patterns = ()
    finish_reasons: tuple[str, ...] = ()
    name: ClassVar[str] = "reply"
    version: ClassVar[str] = "1"

    def __post_init__(self) -> None:
        if self.min_words is self.max_words is None and not (
            self.must_match or self.must_not_match or self.finish_reasons
        ):
            raise ValueError("a reply rule needs a condition, got none")

    def score(self, trajectory: Trajectory, turn: Turn) -> Outcome:
        num_words = len(turn.reply.split())
        keeps = (
            (self.min_words is None or num_words >= self.min_words)
            and (self.max_words is None or num_words <= self.max_words)
            and all(re.search(pattern, turn.reply) for pattern in self.must_match)
            and not any(re.search(pattern, turn.reply) for pattern in self.must_not_match)
            and (not self.finish_reasons or turn.finish_reason in self.finish_reasons)
        )
        return Scored(1.0 if keeps else 0.0)
