"""What the release log says, as a value: the fold that router, engines and rollout share."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from ingest.events import Arm, Assignment, Release, ReleaseKind, TrialState

OPEN = (TrialState.EVALUATING, TrialState.CANARY)


@dataclass(frozen=True)
class Served:
    """What shall be served now.

    `engines` maps an engine to its version. `lineage` holds the versions that were stable, oldest first. `trials`
    are the candidates of all trials begun, in order; `promoted` those promoted.
    """

    epoch: int = 0
    last: int = -1
    stable: int | None = None
    candidate: int | None = None
    state: TrialState | None = None
    share: float = 0.0
    salt: str = ""
    engines: dict[str, int] = field(default_factory=dict)
    lineage: tuple[int, ...] = ()
    trials: tuple[int, ...] = ()
    promoted: tuple[int, ...] = ()

    def is_trial_open(self) -> bool:
        """A candidate holds an engine."""
        return self.state in OPEN

    def assign(self, session_id: str) -> Assignment:
        """The arm of a session: a salted hash against the share, the same in every process."""
        if self.state is not TrialState.CANARY or self.share <= 0.0:
            return Assignment()
        if coin(session_id, self.salt) < self.share:
            return Assignment(arm=Arm.CANDIDATE, trial=self.candidate, propensity=self.share)
        return Assignment(arm=Arm.STABLE, trial=self.candidate, propensity=1.0 - self.share)

    def version_of(self, arm: Arm) -> int | None:
        """The version an arm serves."""
        return self.candidate if arm is Arm.CANDIDATE else self.stable


def coin(session_id: str, salt: str) -> float:
    """A number in [0, 1) that `salt` and the session decide."""
    digest = hashlib.blake2b(f"{salt}\0{session_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def advance(served: Served, release: Release) -> Served:
    """`served` after one more entry; an entry of an older epoch, or one seen already, changes nothing."""
    if (release.epoch, release.release) <= (served.epoch, served.last):
        return served
    served = replace(served, epoch=release.epoch, last=release.release)
    if release.kind in (ReleaseKind.CLAIM, ReleaseKind.ANNOUNCED):
        return served
    begun = release.candidate is not None and release.candidate not in served.trials
    is_promotion = release.state is TrialState.PROMOTED
    is_new_stable = release.stable != served.stable
    return replace(
        served,
        stable=release.stable,
        candidate=release.candidate,
        state=release.state,
        share=release.share,
        salt=release.salt,
        engines=dict(release.engines),
        lineage=(*served.lineage, release.stable) if is_new_stable else served.lineage,
        trials=(*served.trials, release.candidate) if begun and release.candidate is not None else served.trials,
        promoted=(*served.promoted, release.stable) if is_promotion else served.promoted,
    )


def fold(releases: Iterable[Release]) -> Served:
    """The state after all of `releases`, in log order."""
    served = Served()
    for release in releases:
        served = advance(served, release)
    return served
