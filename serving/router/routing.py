"""Which arm a session gets and which engines may take its request: pure decisions over what was released."""

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from ingest.records.events import Arm, Assignment, TrialState
from ingest.store.releases import Served


@dataclass
class Health:
    """What the router knows of its engines. An engine is up until a request or a probe fails, and again after one
    succeeds."""

    down: set[str] = field(default_factory=set)

    def is_up(self, engine_id: str) -> bool:
        return engine_id not in self.down


def assign(session_id: str, served: Served, engines: tuple[str, ...], health: Health) -> Assignment:
    """The arm of a session: a salted hash against the share, the same in every process.

    In a trial the share is the candidate's; while a promoted version is watched, it is of those held back.

    No coin is tossed while an arm has no engine that answers. Its sessions would be served by the other arm and be no
    evidence; without them the rest would no longer be split as the coin says.

    Where arms take turns the coin was the block's, and is every session's that begins in it. What a session began with
    is read from its first request: none need be remembered here, and routers agree on it.
    """
    if served.turn is not None:
        return _in_block(served.turn, served, engines, health)
    arm = _beside_stable(served)
    if arm is None or served.share <= 0.0:
        return Assignment()
    if not all(any(map(health.is_up, pool(served, one, engines))) for one in (Arm.STABLE, arm)):
        return Assignment()
    if coin(session_id, served.salt) < served.share:
        return Assignment(arm=arm, trial=served.candidate, propensity=served.share)
    return Assignment(arm=Arm.STABLE, trial=served.candidate, propensity=1.0 - served.share)


def _in_block(arm: Arm, served: Served, engines: tuple[str, ...], health: Health) -> Assignment:
    if not any(map(health.is_up, engines)):
        return Assignment()
    propensity = 1.0 - served.share if arm is Arm.STABLE else served.share
    return Assignment(arm=arm, trial=served.candidate, propensity=propensity, block=served.block)


def _beside_stable(served: Served) -> Arm | None:
    """The other arm, where sessions are split."""
    if served.state is TrialState.CANARY:
        return Arm.CANDIDATE
    if served.state is TrialState.PROMOTED and served.holdback is not None:
        return Arm.HOLDBACK
    return None


def coin(session_id: str, salt: str) -> float:
    """A number in [0, 1) that `salt` and the session decide."""
    digest = hashlib.blake2b(f"{salt}\0{session_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64


def pool(served: Served, arm: Arm, engines: Iterable[str], stables: Collection[str] = ()) -> tuple[str, ...]:
    """Engines that shall serve an arm's version. While nothing was heard of a release, those that stable's engines are
    by the configuration, `stables`: another may serve what nobody has checked yet. All of them without any."""
    if served.stable is None and stables:
        return tuple(name for name in engines if name in stables)
    version = {Arm.STABLE: served.stable, Arm.CANDIDATE: served.candidate, Arm.HOLDBACK: served.holdback}[arm]
    return tuple(name for name in engines if version is None or served.engines.get(name) == version)


def order(
    session_id: str,
    assignment: Assignment,
    served: Served,
    engines: tuple[str, ...],
    health: Health,
    stables: Collection[str] = (),
) -> tuple[str, ...]:
    """Engines to try, best first: the session's arm before the other, those that answer before those that do not.

    Within an arm the order is a rendezvous hash of the session, so a conversation stays where its prefix is cached
    and moves only when that engine is down. The other arm is last: users are served even when a whole pool is gone.
    """
    mine = set(pool(served, assignment.arm, engines, stables))

    def rank(name: str) -> tuple[bool, bool, bytes]:
        return not health.is_up(name), name not in mine, _weight(session_id, name)

    return tuple(sorted(engines, key=rank))


def _weight(session_id: str, engine: str) -> bytes:
    return hashlib.blake2b(f"{engine}\0{session_id}".encode(), digest_size=8).digest()
