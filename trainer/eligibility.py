"""Which traces train, as values: `Trainable`, `Held` until a trial is decided, or `Ineligible` with its fate."""

import math
from dataclasses import dataclass, field
from enum import StrEnum

from ingest.log import fates
from ingest.records.events import FateKind, Part, Reward, Segment, Trajectory, Turn, TurnKind, TurnReward, versions_of
from ingest.sessions.contamination import TaskIndex
from ingest.sessions.sketch import sketches
from ingest.store.releases import Served
from trainer.setups import Setup, setups

HTTP_OK = 200
SOLE_PART = "value"
"""The name of the part that a turn's value is, where its record gives no parts: version 1 gave none."""


class Reason(StrEnum):
    """Why a trace does not train, as an operator reads it."""

    HELD_OUT = "its session is held out"
    REPLAY = "replay"
    CONTAMINATED = "contaminated"
    SIDE = "side turn"
    STATUS = "the request failed"
    EMPTY = "empty reply"
    UNKNOWN_WEIGHTS = "unknown weights"
    NOT_FINITE = "log-probabilities are not finite"
    MISALIGNED = "its segment does not match its chain"
    UNSCORED = "unscored"
    REJECTED_WEIGHTS = "weights of a rejected candidate"
    STALE = "stale"
    DISCARDED = "its update was discarded"
    EXPIRED = "no version took it while the log kept its reward"
    ERASED = fates.ERASED
    ALTERED = "something in it was redacted"
    GONE = "the log keeps its trajectory no longer"


@dataclass(frozen=True)
class Trainable:
    """A trace that may train on `reward`."""

    reward: float


@dataclass(frozen=True)
class Held:
    """A trace sampled by `candidate`, whose trial is not decided and which the learner does not go on from."""

    candidate: int


@dataclass(frozen=True)
class Ineligible:
    """A trace that never trains. `detail` is what the reason is about, such as a file's name."""

    reason: Reason
    detail: str = ""

    @property
    def told(self) -> str:
        """The fate's reason."""
        return f"{self.reason.value}: {self.detail}" if self.detail else self.reason.value

    @property
    def fate(self) -> FateKind:
        held_out = dict.fromkeys((Reason.HELD_OUT, Reason.REPLAY), FateKind.HELD_OUT)
        expired = dict.fromkeys((Reason.EXPIRED, Reason.GONE), FateKind.EXPIRED)
        return (held_out | expired).get(self.reason, FateKind.REFUSED)


Eligibility = Trainable | Held | Ineligible


@dataclass(frozen=True)
class EligibleTurn:
    """A turn that only its weights can still rule out. `reward` is its value, `parts` are at least one.

    `sketch` is of its prompt, as `ingest.sessions.sketch` makes it, `setup` its system prompt and tools.
    `is_corrected`: what comes next in its chain may teach it (`trainer.hinting`).
    """

    trace_id: str
    kind: TurnKind
    reward: float
    parts: tuple[Part, ...]
    versions: tuple[int, ...]
    sketch: str = ""
    setup: Setup = field(default_factory=Setup)
    is_corrected: bool = False


def screen(
    reward: Reward, trajectory: Trajectory | None, tasks: TaskIndex | None = None, trains_altered: bool = False
) -> dict[str, EligibleTurn | Ineligible]:
    """Every trace of a reward by its id, screened by all that can never change. `tasks` must never train.

    `trains_altered`: a turn trains although something in its request was redacted. One whose reply was redacted never
    does: its tokens are not those that were sampled. Nor does a replay of a trial's check, whoever says that it is not
    held out.
    """
    given = [one.assignment for one in (reward, trajectory) if one and one.assignment]
    if any(one.is_of_a_check for one in given):
        return {trace_id: Ineligible(Reason.REPLAY) for trace_id in reward.trace_ids}
    if trajectory is None:
        return {trace_id: Ineligible(Reason.GONE) for trace_id in reward.trace_ids}
    segments = {
        segment.trace_id: (segment, chain.shared + len(chain.token_ids))
        for chain in trajectory.chains
        for segment in chain.segments
    }
    scores = {turn.trace_id: turn for turn in reward.turns}
    prompts, set_up = sketches(trajectory), setups(trajectory)
    taken_from = tasks.contaminated(trajectory) if tasks else {}
    return {
        turn.trace_id: Ineligible(Reason.CONTAMINATED, taken_from[turn.trace_id])
        if turn.trace_id in taken_from and not trajectory.held_out
        else _screen_turn(
            trajectory.held_out,
            turn,
            segments.get(turn.trace_id),
            scores.get(turn.trace_id),
            (prompts[turn.trace_id], set_up[turn.trace_id]),
            trains_altered,
        )
        for turn in trajectory.turns
    }


def _screen_turn(
    is_held_out: bool,
    turn: Turn,
    found: tuple[Segment, int] | None,
    score: TurnReward | None,
    asked: tuple[str, Setup],
    trains_altered: bool,
) -> EligibleTurn | Ineligible:
    """`found` is the turn's segment and how many tokens its whole chain has, `asked` its sketch and setup.

    A malformed reply has tokens and a score, and trains: what is dropped is what a policy learns to exploit.
    """
    if is_held_out:
        return Ineligible(Reason.HELD_OUT)
    if turn.kind is TurnKind.SIDE:
        return Ineligible(Reason.SIDE)
    if turn.is_reply_altered or (turn.is_altered and not trains_altered):
        return Ineligible(Reason.ALTERED)
    if turn.status != HTTP_OK:
        return Ineligible(Reason.STATUS)
    if found is None or not found[0].logprobs:
        return Ineligible(Reason.EMPTY)
    segment, num_tokens = found
    if not segment.spans:
        return Ineligible(Reason.UNKNOWN_WEIGHTS)
    if not 0 < segment.start < segment.end <= num_tokens or segment.end - segment.start != len(segment.logprobs):
        return Ineligible(Reason.MISALIGNED)
    if not all(map(math.isfinite, segment.logprobs)):
        return Ineligible(Reason.NOT_FINITE)
    if score is None or score.value is None or not 0.0 <= score.value <= 1.0:
        return Ineligible(Reason.UNSCORED)
    parts = score.parts or (Part(name=SOLE_PART, weight=1.0, value=score.value),)
    return EligibleTurn(turn.trace_id, turn.kind, score.value, parts, versions_of(segment.spans), *asked)


def eligibility_of(turn: EligibleTurn, served: Served, own: int | None, max_staleness: int) -> Eligibility:
    """A screened turn under the release log as it is now; `own` is the version on trial that the learner goes on from.

    What that one sampled trains, and is given back should it be rejected. A trace sampled across a swap is as old as
    its oldest token, and as untrusted as its worst weights.
    """
    unknown = [version for version in turn.versions if served.age(version) is None and version != own]
    if any(version != served.on_trial for version in unknown):
        return Ineligible(Reason.REJECTED_WEIGHTS)
    if any((served.age(version) or 0) > max_staleness for version in turn.versions):
        return Ineligible(Reason.STALE)
    return Held(unknown[0]) if unknown else Trainable(turn.reward)
