"""What is known of one session, kept small: a trial holds tens of thousands."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from infra.config import SCORED
from ingest.records.events import Arm, Reward
from serving.rollout.evidence.caps import Begun

_NAMES: dict[tuple[str, ...], tuple[str, ...]] = {}
_COMMON = {0.0: 0.0, 1.0: 1.0}


class Unit(NamedTuple):
    """A session's outcomes at the newest revision of its reward.

    `root` is its first trace's id, the same in every revision. `values` are the guardrails' outcomes, by `names`, which
    units share. `is_pure` says that its arm alone served it; one that is not counts for nothing. `propensity` is the
    chance that its coin gave it of the arm it has; `began_at`, `scored_at`, `ended_at` are Unix time. `version` is the
    one that served it alone, `block` the one that it began in, where arms take turns.
    """

    session_id: str
    root: str
    revision: int
    scored_at: float
    is_pure: bool
    arm: Arm
    propensity: float
    reward: float
    names: tuple[str, ...]
    values: tuple[float, ...]
    tenant: str
    user: str
    began_at: float
    version: int | None = None
    ended_at: float = 0.0
    block: int | None = None

    @classmethod
    def of(cls, reward: Reward, is_pure: bool = True) -> "Unit":
        """From a reward with an assignment. A guardrail's number that is no rate is none."""
        assert reward.assignment is not None
        rails = {name: value for name, value in reward.guardrails.items() if math.isfinite(value) and 0 <= value <= 1}
        rails[SCORED] = float(reward.has_signal)
        names = tuple(sorted(rails))
        return cls(
            session_id=reward.session_id,
            root=reward.trace_ids[0],
            revision=reward.revision,
            scored_at=reward.at,
            is_pure=is_pure,
            arm=reward.assignment.arm,
            propensity=reward.assignment.propensity,
            reward=_shared(reward.value),
            names=names_once(names),
            values=tuple(_shared(rails[name]) for name in names),
            tenant=reward.tenant,
            user=reward.user,
            began_at=reward.opened_at,
            version=reward.versions[0] if len(set(reward.versions)) == 1 else None,
            ended_at=reward.opened_at if reward.ended_at is None else reward.ended_at,
            block=reward.assignment.block,
        )

    @property
    def guardrails(self) -> Mapping[str, float]:
        return dict(zip(self.names, self.values, strict=True))

    @property
    def begun(self) -> Begun:
        return Begun(self.began_at, self.session_id, self.tenant, self.user)

    def replaces(self, other: "Unit") -> bool:
        """Whether it is what counts of their session.

        A session that goes on after it was closed has several roots: the first counts, since whether somebody comes
        back may depend on the arm. Of one root the newest revision counts, and of one revision scored twice the newest
        score. So the same is kept in whatever order they come.
        """
        if self.root != other.root:
            return (self.began_at, self.root) < (other.began_at, other.root)
        return (self.revision, self.scored_at) > (other.revision, other.scored_at)


def _shared(value: float) -> float:
    return _COMMON.get(value, value)


def names_once(names: tuple[str, ...]) -> tuple[str, ...]:
    """The same names as one object, whoever asks: units share it."""
    return _NAMES.setdefault(names, names)
