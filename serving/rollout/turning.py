"""Arms that take turns: when a block begins, and when engines swap for the next.

A block begins with a release. What the log says of it is all that is known, so that a controller that starts in the
middle of a block goes on with it. With placement `split` nobody takes turns.
"""

from collections.abc import Callable

from infra.config import Placement, RolloutConfig
from ingest.records.events import Mode, TrialState
from serving.rollout.evidence import Standing
from serving.rollout.fleet import Fleet
from serving.rollout.moves import BLOCK_S, Moves
from serving.rollout.placement.switchback import Turns, step
from serving.rollout.writing import Writer


class Turning:
    """The blocks of what is on trial or under watch."""

    def __init__(
        self, writer: Writer, fleet: Fleet, moves: Moves, config: RolloutConfig, now: Callable[[], float]
    ) -> None:
        self._writer, self._fleet, self._moves, self._now = writer, fleet, moves, now
        self._least_s = config.switchback.block_s
        self.is_on = config.placement is Placement.SWITCHBACK

    @property
    def beside(self) -> int | None:
        """The version that takes turns with stable now."""
        served = self._writer.served
        if not self.is_on:
            return None
        return {TrialState.CANARY: served.candidate, TrialState.PROMOTED: served.holdback}.get(
            served.state or TrialState.PUBLISHED
        )

    @property
    def block_s(self) -> float:
        """How long blocks are: as the trial, or its watch, began with."""
        begun = self._writer.begun
        return self._least_s if begun is None else begun.numbers.get(BLOCK_S, self._least_s)

    def go_on(self, share: float | None = None, standing: Standing | None = None) -> None:
        """The next block, or the swap before it, if it is time. Without a `share` it stays what it is."""
        served, beside = self._writer.served, self.beside
        if beside is None:
            return
        share = served.share if share is None else share
        turns = Turns(self._writer.stable, beside, share, served.salt)
        found = step(
            self._writer.blocks, self._fleet.engines, served.engines, turns, self._now(), self.block_s, self._holds
        )
        if found is not None:
            self._moves.take_turns(found, share, {} if standing is None else standing.numbers)

    def open(self) -> None:
        """Begin the block that engines were swapped for just now, without waiting for a tick."""
        served = self._writer.served
        if served.block is None and served.mode is not Mode.FROZEN:
            self.go_on()

    def _holds(self) -> bool:
        return self._fleet.serves(self._writer.served.engines)
