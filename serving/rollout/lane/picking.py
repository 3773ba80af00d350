"""Which prompts are asked again. Pure.

A prompt can be: its session may train and be set back to it (`ingest.sessions.resettable`, which names one turn of a
session), it was scored by something that needs no user, and all of the session was answered by the version that is
stable now, so that its answer and its replays are of one policy. It is drawn with propensity

    q = share x max(FLOOR, 2 sqrt(p (1 - p))),    p = (its own outcome + its tenant's mean before it) / 2

an outcome being the weighted mean of what those scorers said, in [0, 1]. The deviation of a group's rewards, and so the
size of its gradient, goes with sqrt(p (1 - p)): drawing by it and weighting by 1 / q is the choice of least variance
(Neyman 1934), and SPO's for its prompts (arXiv 2509.13232). The draw is a hash of the trace under a salt:
the same for everybody at any time. What was drawn waits for an idle engine, the newest first; that some of it never
finds one, or is beyond a budget, does not depend on how it turned out.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import blake2b
from math import fsum, sqrt

from infra.config import LaneConfig
from ingest.records.events import Arm, Part, Reward, Source

SALT = "onstream replay lane"
FLOOR = 0.2
"""The least of q / share: 1 / q, which weights what was drawn, spreads over no more than a factor of five."""
WINDOW_TURNS = 100
"""A tenant's mean forgets outcomes older than about so many."""
MAX_WAITING = 1024
HOUR_S = 3600.0


class Draw(StrEnum):
    """What became of a prompt, for telemetry."""

    DRAWN = "drawn"
    NOT_DRAWN = "not drawn"
    NOT_RESETTABLE = "no turn that its session can be set back to"
    NEEDS_USER = "scored by users alone"
    NEVER_TRAINS = "held out, a replay or revised"
    OTHER_VERSION = "answered by another version"


@dataclass(frozen=True)
class Anchor:
    """A turn whose prompt is asked again. `source` is where its trajectory lies, `parts` what needs no user, `at` when
    it was scored; `owner` counts as its user."""

    trace_id: str
    source: Source
    version: int
    parts: Mapping[str, float]
    spec: str
    propensity: float
    owner: str
    at: float


def propensity(outcome: float, expected: float, share: float) -> float:
    """The probability of drawing a prompt that came to `outcome`, of a tenant whose prompts come to `expected`."""
    p = (outcome + expected) / 2.0
    return share * max(FLOOR, 2.0 * sqrt(p * (1.0 - p)))


def coin(trace_id: str) -> float:
    """A number in [0, 1) that the trace decides."""
    digest = blake2b(f"{SALT}\0{trace_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


@dataclass
class _Mean:
    """Of a tenant's outcomes: begins at a half, which counts as one."""

    value: float = 0.5
    num: int = 1

    def add(self, outcome: float) -> None:
        self.num = min(self.num + 1, WINDOW_TURNS)
        self.value += (outcome - self.value) / self.num


@dataclass
class Picks:
    """What was drawn and waits, and what was asked for in the last hour. Times are Unix seconds, and given."""

    config: LaneConfig
    _expected: dict[str, _Mean] = field(default_factory=dict)
    _waiting: deque[Anchor] = field(default_factory=lambda: deque(maxlen=MAX_WAITING))
    _begun: deque[tuple[float, str]] = field(default_factory=deque)

    def offer(self, reward: Reward, stable: int | None) -> Draw:
        """Look at one more reward, and keep its prompt if it is drawn."""
        found = _alone(reward, stable)
        if isinstance(found, Draw):
            return found
        trace_id, alone = found
        outcome = fsum(part.weight * part.value for part in alone) / fsum(part.weight for part in alone)
        mean = self._expected.setdefault(reward.tenant, _Mean())
        q = propensity(outcome, mean.value, self.config.share)
        mean.add(outcome)
        if coin(trace_id) >= q:
            return Draw.NOT_DRAWN
        assert reward.source is not None
        owner = f"user {reward.tenant} {reward.user}" if reward.user else f"session {reward.session_id}"
        parts = {part.name: part.value for part in alone}
        self._waiting.append(
            Anchor(trace_id, reward.source, reward.versions[0], parts, reward.spec, q, owner, reward.at)
        )
        return Draw.DRAWN

    def take(self, stable: int | None, now: float) -> Anchor | None:
        """The newest that waits and is within all budgets, which it is charged to."""
        while self._begun and self._begun[0][0] <= now - HOUR_S:
            self._begun.popleft()
        fresh = [one for one in self._waiting if one.version == stable and one.at > now - self.config.max_age_s]
        self._waiting = deque(fresh, MAX_WAITING)
        if (len(self._begun) + 1) * self.config.group_size > self.config.replays_per_hour:
            return None
        owners = [owner for _, owner in self._begun]
        for anchor in reversed(fresh):
            if owners.count(anchor.owner) < self.config.groups_per_user:
                self._waiting.remove(anchor)
                self._begun.append((now, anchor.owner))
                return anchor
        return None


def _alone(reward: Reward, stable: int | None) -> tuple[str, tuple[Part, ...]] | Draw:
    """The turn that can be asked again and what its replays can be compared by, or why there is none."""
    given = reward.assignment
    if reward.held_out or reward.revision > 1 or given is None or given.replay_of is not None:
        return Draw.NEVER_TRAINS
    if reward.versions != (stable,) or given.arm is not Arm.STABLE:
        return Draw.OTHER_VERSION
    told = [(turn.trace_id, turn.alone) for turn in reward.turns if turn.alone is not None]
    if not told:
        return Draw.NOT_RESETTABLE
    trace_id, alone = told[0]
    return (trace_id, alone) if alone else Draw.NEEDS_USER
