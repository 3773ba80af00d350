"""What the release log says to the trainer: the stable version, its lineage, the trial now on.

Only the rollout writes releases. A reader folds them in order and skips a writer's entries once a newer epoch has
been seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType

from ingest.events import Release, ReleaseKind, TrialState
from ingest.log import EventLog
from ingest.reader import Follower, replay
from ingest.topics import RELEASES

UNDECIDED = frozenset({TrialState.PUBLISHED, TrialState.EVALUATING, TrialState.CANARY})


class Verdict(StrEnum):
    """What became of a version."""

    UNDECIDED = "undecided"
    PROMOTED = "promoted"
    REJECTED = "rejected"


@dataclass(frozen=True)
class Releases:
    """The fold of the release log.

    `lineage` are the versions that were stable, oldest first, without those that were rolled back; `epoch` is the
    highest seen and `last` the number of the last entry. `trials` maps a candidate to its last state.
    """

    epoch: int = -1
    last: int = -1
    lineage: tuple[int, ...] = ()
    trials: Mapping[int, TrialState] = field(default_factory=lambda: MappingProxyType({}))
    on_trial: int | None = None

    @property
    def stable(self) -> int | None:
        return self.lineage[-1] if self.lineage else None

    def fold(self, release: Release) -> "Releases":
        """The state after one more entry; one of an older epoch, or one seen already, changes nothing."""
        if (release.epoch, release.release) <= (self.epoch, self.last):
            return self
        seen = replace(self, epoch=release.epoch, last=release.release)
        if release.kind is ReleaseKind.BOOTSTRAP:
            return replace(seen, lineage=_served(seen.lineage, release.stable))
        if release.kind is not ReleaseKind.TRIAL or release.candidate is None or release.state is None:
            return seen
        promoted = release.state is TrialState.PROMOTED
        return replace(
            seen,
            lineage=_served(seen.lineage, release.candidate if promoted else release.stable),
            trials=MappingProxyType({**seen.trials, release.candidate: release.state}),
            on_trial=release.candidate if release.state in UNDECIDED else None,
        )

    def verdict(self, version: int) -> Verdict:
        """What became of `version`. One that no release names has not been decided."""
        state = self.trials.get(version)
        if version in self.lineage:
            return Verdict.PROMOTED
        return Verdict.UNDECIDED if state is None or state in UNDECIDED else Verdict.REJECTED

    def age(self, version: int) -> int | None:
        """Promotions between `version` and stable; `None` for a version outside the lineage."""
        if version not in self.lineage:
            return None
        return len(self.lineage) - 1 - self.lineage.index(version)


def _served(lineage: tuple[int, ...], stable: int) -> tuple[int, ...]:
    """A return to an older version drops those after it."""
    if stable in lineage:
        return lineage[: lineage.index(stable) + 1]
    return (*lineage, stable)


class ReleaseFollower:
    """Follows the release log outside of any group: `poll` costs only what is new, `catch_up` is current."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._follower = Follower(log, [RELEASES])
        self.view = Releases()

    def catch_up(self) -> Releases:
        """Everything on the log at the time of the call. Raises `LogError`."""
        for release in replay(self._log, RELEASES, Release):
            self.view = self.view.fold(release)
        return self.view

    def poll(self) -> Releases:
        """What arrived since. Raises `LogError`."""
        for record in self._follower.poll(0.0):
            if isinstance(record, Release):
                self.view = self.view.fold(record)
        return self.view

    def close(self) -> None:
        self._follower.close()
