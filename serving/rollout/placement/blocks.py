"""Blocks: stretches of time in which every engine serves one arm, by a coin of their own. Pure.

A block begins with a release that has its number, and ends with the next release that has not. Between two blocks of
different arms lies the swap: sessions that begin there are of no trial. Numbers count within a candidate's life, on
through its watch, so that no coin is tossed twice.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import NamedTuple

from ingest.records.events import Arm, Release
from ingest.store.releases import Served


class Block(NamedTuple):
    """One block of `arm`, whose `version` every engine served. `share` is the chance with which its coin chose the arm
    `beside` stable; times are Unix seconds, and `closed_at` infinity while it goes on. `before` is the arm of the block
    before it."""

    number: int
    arm: Arm
    version: int
    beside: Arm
    share: float
    opened_at: float
    closed_at: float = math.inf
    before: Arm | None = None


class Blocks:
    """The blocks of one candidate, as the release log tells them."""

    def __init__(self) -> None:
        self.trial: int | None = None
        self._blocks: list[Block] = []

    def take(self, served: Served, release: Release) -> None:
        """What is served after `release`. Another candidate's blocks begin anew."""
        if served.candidate != self.trial:
            self.trial, self._blocks = served.candidate, []
        now = self.open
        if (served.block if served.turn else None) == (now.number if now else None):
            return
        if now is not None:
            self._blocks[-1] = now._replace(closed_at=release.at)
        if served.block is None or served.turn is None:
            return
        beside = Arm.CANDIDATE if served.holdback is None else Arm.HOLDBACK
        before = self._blocks[-1] if self._blocks else None
        is_same_stage = before is not None and before.beside is beside
        version = next(iter(served.engines.values()))
        self._blocks.append(
            Block(served.block, served.turn, version, beside, served.share, release.at,
                  before=before.arm if before is not None and is_same_stage else None)
        )  # fmt: skip

    @property
    def open(self) -> Block | None:
        """The one that goes on."""
        return self._blocks[-1] if self._blocks and self._blocks[-1].closed_at == math.inf else None

    @property
    def all(self) -> Sequence[Block]:
        """In their order."""
        return self._blocks

    @property
    def closed(self) -> tuple[Block, ...]:
        """Those that ended, in their order."""
        return tuple(self._blocks[:-1] if self.open else self._blocks)

    @property
    def following(self) -> int:
        """The next one's number."""
        return self._blocks[-1].number + 1 if self._blocks else 0


def toss(salt: str, number: int) -> float:
    """A number in [0, 1) that `salt` and the block decide: below the share, it is not stable's."""
    digest = hashlib.blake2b(f"{salt}\0block {number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64
