"""One pool: arms take turns on all engines, in blocks of seconds whose arm is a coin's, by hot swap. Pure.

    a block is over  ->  the next one's coin is tossed
        the same arm's       the next block begins at once
        the other arm's      engines are told to swap, and no block goes on; requests in flight are kept
    all engines serve it ->  the block begins

So no session begins in a block before every engine that answers serves its version, and how long a swap takes is no
arm's loss. Before users meet a candidate its checks need an engine: `apart` from the pool, with two engines or more.
With one there is none to take; then it is loaded where it will serve, answers a probe, and the first that meet it are
users (`serving.rollout.switchback.live_only`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from infra.config import EngineSlot
from serving.rollout.placement.blocks import Blocks, toss

FIT = 3.0
"""Blocks so many times as long as a session keep two thirds of the sessions whole, if these begin at any time."""


def length_s(least_s: float, session_s: float | None) -> float:
    """How long each block of a trial is, where stable's sessions last `session_s` in the median, or none is known."""
    return max(least_s, FIT * (session_s or 0.0))


class Step(NamedTuple):
    """What the next release says: every engine's version, and the block that begins with it, if one does."""

    engines: dict[str, int]
    block: int | None


class Turns(NamedTuple):
    """What takes turns: stable's version, and the one `beside` it, of `share` of the blocks by coins of `salt`."""

    stable: int
    beside: int
    share: float
    salt: str

    def version(self, number: int) -> int:
        """Whose block it is."""
        return self.beside if toss(self.salt, number) < self.share else self.stable


def apart(slots: Sequence[EngineSlot]) -> tuple[EngineSlot, ...]:
    """The engines that are taken from the pool while a candidate is checked: those meant for it, else the last one;
    the only one, where it is alone."""
    meant = tuple(slot for slot in slots if slot.arm == "candidate")
    return meant if 0 < len(meant) < len(slots) else tuple(slots[-1:])


def step(
    blocks: Blocks,
    engines: Iterable[str],
    serving: Mapping[str, int],
    turns: Turns,
    now: float,
    block_s: float,
    holds: Callable[[], bool],
) -> Step | None:
    """The next release, or `None`: the block goes on, or a swap does.

    `serving` is what the last release says, `holds` whether all engines that answer serve that. A clock that went
    back ends a block, as one that went on does.
    """
    names, now_open = tuple(engines), blocks.open
    is_over = now_open is None or not 0.0 <= now - now_open.opened_at < block_s
    if not is_over and serving.keys() == set(names):
        return None
    following = Step(dict.fromkeys(names, turns.version(blocks.following)), blocks.following)
    if following.engines == serving and holds():
        return following
    if following.engines == serving and now_open is None:
        return None
    return following._replace(block=None)
