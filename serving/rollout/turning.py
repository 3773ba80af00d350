"""Arms that take turns: when a block begins, and what a trial or a watch in blocks is judged by.

With placement `split` the units are sessions, and nobody takes turns. A block begins with a release; what the log says
of it is all that is known, so that a controller that starts in the middle of a block goes on with it.
"""

from collections.abc import Callable, Mapping

from infra.config import Placement, RolloutConfig
from ingest.records.events import Arm, Mode, TrialState
from serving.rollout.evidence import Baseline, Evidence, Standing
from serving.rollout.evidence.blocks import with_kept
from serving.rollout.evidence.tally import Totals
from serving.rollout.fleet import Fleet
from serving.rollout.moves import Moves
from serving.rollout.placement.switchback import Turns, step
from serving.rollout.writing import Writer


class Turning:
    """The blocks of what is on trial or under watch, where arms take turns."""

    def __init__(
        self,
        writer: Writer,
        fleet: Fleet,
        moves: Moves,
        evidence: Evidence,
        config: RolloutConfig,
        now: Callable[[], float],
    ) -> None:
        self._writer, self._fleet, self._moves, self._evidence, self._now = writer, fleet, moves, evidence, now
        self._own, self._gate = config.switchback, config.gate
        self.is_on = config.placement is Placement.SWITCHBACK
        if self.is_on:
            self._gate = with_kept(config.gate, config.switchback.kept_margin)

    # -- what is judged

    def baselines(self, stable: int) -> dict[str, Baseline] | None:
        """Of the champion, or `None` while there are too few sessions."""
        if self.is_on:
            return self._evidence.rehearsed(stable, self._gate, self._own.block_s)
        return self._evidence.baselines(stable, self._gate)

    def trial(self, candidate: int, baselines: Mapping[str, Baseline]) -> Totals:
        """What a trial comes to."""
        if self.is_on:
            return self._evidence.in_blocks(candidate, baselines, self._gate, self._writer.blocks.all)
        return self._evidence.trial(candidate, baselines, self._gate)

    def watch(self, promoted: int, baselines: Mapping[str, Baseline], since: float) -> Totals:
        """What a watch comes to that began `since`."""
        if self.is_on:
            blocks = self._writer.blocks.all
            return self._evidence.in_blocks(promoted, baselines, self._gate, blocks, Arm.STABLE, Arm.HOLDBACK)
        return self._evidence.watch(promoted, baselines, self._gate, since=since)

    # -- whose turn it is

    @property
    def beside(self) -> int | None:
        """The version that takes turns with stable now."""
        served = self._writer.served
        if not self.is_on:
            return None
        return {TrialState.CANARY: served.candidate, TrialState.PROMOTED: served.holdback}.get(
            served.state or TrialState.PUBLISHED
        )

    def go_on(self, share: float | None = None, standing: Standing | None = None) -> None:
        """The next block, or the swap before it, if it is time. Without a `share` it stays what it is."""
        served, beside = self._writer.served, self.beside
        if beside is None:
            return
        self._fleet.hold((self._writer.stable, beside))
        share = served.share if share is None else share
        turns = Turns(self._writer.stable, beside, share, served.salt)
        found = step(
            self._writer.blocks, self._fleet.engines, served.engines, turns, self._now(), self._own.block_s, self._holds
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
