"""What the release log says, as a value, and following it: what all of its readers share.

Only the rollout writes releases. A reader folds them in log order and skips a writer's entries once it has seen a
newer epoch.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ConfigDict, field_serializer

from infra.errors import RecordError
from ingest.log.protocol import EventLog, Positions
from ingest.log.reader import Follower, replay
from ingest.log.topics import RELEASES
from ingest.records import codec
from ingest.records.events import Arm, Mode, Release, ReleaseKind, TrialState

UNDECIDED = frozenset(
    {TrialState.PUBLISHED, TrialState.EVALUATING, TrialState.SUITES, TrialState.REPLAY, TrialState.CANARY}
)


def decides(release: Release) -> bool:
    """Whether an entry decides anything: a writer's own do not, nor a turn of arms but where their share changes."""
    if release.kind is ReleaseKind.BLOCK:
        return bool(release.numbers)
    return release.kind not in (ReleaseKind.CLAIM, ReleaseKind.ANNOUNCED)


def decided_by(release: Release) -> str:
    """Who asked for it; where nobody did, the gate for what became of a trial, else the controller."""
    if release.author:
        return release.author
    is_of_a_trial = release.kind is ReleaseKind.TRIAL or (release.kind is ReleaseKind.BLOCK and decides(release))
    return "the gate" if is_of_a_trial else "the controller"


class Decision(StrEnum):
    """What the release log has decided about a version. The gate's `Verdict` is what leads to one.

    Expired is a version about which nothing was learnt: too few sessions, no engine, a parent that is not stable.
    """

    UNDECIDED = "undecided"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    EXPIRED = "expired"


class End(StrEnum):
    """What became of a version."""

    FIRST = "first"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled back"
    EXPIRED = "expired"
    ON_TRIAL = "on trial"
    WAITS = "no trial yet"


_ENDS: Mapping[TrialState, End] = {
    TrialState.PROMOTED: End.PROMOTED,
    TrialState.REJECTED: End.REJECTED,
    TrialState.ROLLED_BACK: End.ROLLED_BACK,
    TrialState.EXPIRED: End.EXPIRED,
    **dict.fromkeys(UNDECIDED, End.ON_TRIAL),
}


@dataclass(frozen=True)
class Served:
    """What shall be served now, and what led to it.

    `epoch` is the highest seen and `last` the number of the last entry. `engines` maps an engine to its version.
    `lineage` are the versions that were stable, oldest first, without those rolled back. `trials` maps every
    candidate there ever was to its last state, in the order their trials began. `share` of sessions get the candidate,
    or, with a `holdback`, stay on that version while the promoted one is watched. `block` goes on, of a trial or a
    watch whose arms take turns.
    """

    epoch: int = 0
    last: int = -1
    candidate: int | None = None
    state: TrialState | None = None
    share: float = 0.0
    salt: str = ""
    holdback: int | None = None
    block: int | None = None
    mode: Mode = Mode.OPEN
    engines: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    lineage: tuple[int, ...] = ()
    trials: Mapping[int, TrialState] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def stable(self) -> int | None:
        """`None`: nothing was ever released."""
        return self.lineage[-1] if self.lineage else None

    @property
    def on_trial(self) -> int | None:
        """The candidate whose trial goes on."""
        return self.candidate if self.state in UNDECIDED else None

    @property
    def promoted(self) -> tuple[int, ...]:
        """Candidates that ever won their trial, also those rolled back later."""
        won = (TrialState.PROMOTED, TrialState.ROLLED_BACK)
        return tuple(version for version, state in self.trials.items() if state in won)

    @property
    def turn(self) -> Arm | None:
        """The arm whose block goes on: all engines shall serve its version. `None` between blocks, and without them."""
        if self.block is None:
            return None
        is_other = bool(self.engines) and set(self.engines.values()) != {self.stable}
        other = Arm.HOLDBACK if self.holdback is not None else Arm.CANDIDATE
        return other if is_other else Arm.STABLE

    def decision(self, version: int) -> Decision:
        """What was decided about `version`: nothing yet, where no release names it."""
        if version in self.lineage:
            return Decision.PROMOTED
        state = self.trials.get(version, TrialState.PUBLISHED)
        if state is TrialState.EXPIRED:
            return Decision.EXPIRED
        return Decision.UNDECIDED if state in UNDECIDED else Decision.REJECTED

    def end(self, version: int) -> End:
        """What became of `version`, for people."""
        if version in self.trials:
            return _ENDS[self.trials[version]]
        return End.FIRST if version in self.lineage else End.WAITS

    def age(self, version: int) -> int | None:
        """Promotions between `version` and stable; `None` for a version outside the lineage."""
        if version not in self.lineage:
            return None
        return len(self.lineage) - 1 - self.lineage.index(version)


def advance(served: Served, release: Release) -> Served:
    """`served` after one more entry; an entry of an older epoch, or one seen already, changes nothing."""
    return fold((release,), served)


def fold(releases: Iterable[Release], served: Served | None = None) -> Served:
    """The state after all of `releases`, in log order, from `served` on: itself where they change nothing.

    What grows with the log is copied once for all of them, so that a restart takes time in proportion to what it reads.
    """
    now = before = served or Served()
    lineage, trials = list[int](), dict[int, TrialState]()
    for release in releases:
        if (release.epoch, release.release) <= (now.epoch, now.last):
            continue
        if release.kind in (ReleaseKind.CLAIM, ReleaseKind.ANNOUNCED):
            now = replace(now, epoch=release.epoch, last=release.release)
            continue
        if not lineage:
            lineage, trials = list(before.lineage), dict(before.trials)
        _stand_on(lineage, release.stable)
        if release.candidate is not None and release.state is not None:
            trials[release.candidate] = release.state
        now = replace(
            now,
            epoch=release.epoch,
            last=release.release,
            candidate=release.candidate,
            state=release.state,
            share=release.share,
            salt=release.salt,
            holdback=release.holdback,
            block=release.block,
            mode=release.mode,
            engines=MappingProxyType(dict(release.engines)),
        )
    return replace(now, lineage=tuple(lineage), trials=MappingProxyType(trials)) if lineage else now


def _stand_on(lineage: list[int], stable: int) -> None:
    """A return to an older version drops those after it."""
    if stable not in lineage[-1:]:
        if stable in lineage:
            del lineage[lineage.index(stable) :]
        lineage.append(stable)


Mark = tuple[int, int, float]
"""What tells an entry from any other, on any log: its epoch, its number and when it was written."""


class Known(BaseModel):
    """What a log says before its entry at `offset`, the next after the one that `after` marks. It is kept, so that a
    restart reads on from there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    served: Served
    offset: int
    after: Mark

    @field_serializer("served")
    def _plain(self, served: Served) -> dict[str, Any]:
        return vars(served) | {"engines": dict(served.engines), "trials": dict(served.trials)}

    @property
    def positions(self) -> Positions:
        return {(RELEASES.name, 0): self.offset}

    def is_of(self, log: EventLog) -> bool:
        """Whether it was kept of this log, and not of one that is lost. Raises `LogError`."""
        message = log.fetch(RELEASES.name, 0, self.offset - 1)
        try:
            return message is not None and mark(codec.decode(message.value, message.headers, Release)) == self.after
        except RecordError:
            return False


def mark(release: Release) -> Mark:
    """An entry's own."""
    return release.epoch, release.release, release.at


def read(log: EventLog, known: Known | None = None) -> Served:
    """What the log says now, from all of its entries, or those since what is `known` of it. Raises `LogError`."""
    if known is None:
        return fold(replay(log, RELEASES, Release))
    return fold(replay(log, RELEASES, Release, known.positions), known.served)


class ReleaseFollower:
    """Follows the log in no group: all of it, where `served` is what was known before, or from where what is `known` of
    it ends. `poll` costs only what is new; `catch_up` is current."""

    def __init__(self, log: EventLog, served: Served | None = None, known: Known | None = None) -> None:
        self._log = log
        self._follower = Follower(log, [RELEASES], known.positions if known else None)
        self.known = known
        self.served = known.served if known else served or Served()

    def catch_up(self) -> Served:
        """Everything on the log at the time of the call: what `poll` has not read yet. Raises `LogError`."""
        self.served = fold(replay(self._log, RELEASES, Release, self._follower.positions), self.served)
        return self.served

    def poll(self, timeout_s: float) -> Served:
        """With what arrived since. Raises `LogError` when the log is away: make a new follower then."""
        found = [(one, at.offset) for one, at in self._follower.read(timeout_s) if isinstance(one, Release)]
        if found:
            self.served = fold((release for release, _ in found), self.served)
            last, offset = found[-1]
            self.known = Known(served=self.served, offset=offset + 1, after=mark(last))
        return self.served

    def close(self) -> None:
        self._follower.close()
