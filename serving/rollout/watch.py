"""The watch over a version that was promoted: a share of sessions stays on the version before, and harm takes it back.

It ends well after `max_units` sessions, or after `max_s` if there were `min_units`, or, with as many, once the next
version of the trainer waits. Nothing is taken back for want of sessions, and nothing ends well for it.
"""

from infra.config import RolloutConfig
from ingest.records.events import Mode, TrialState
from serving.rollout import evidence
from serving.rollout.evidence import Standing, Verdict
from serving.rollout.judged import Judged
from serving.rollout.moves import Moves, thaw
from serving.rollout.placement import changed
from serving.rollout.reading import Reading
from serving.rollout.turning import Turning
from serving.rollout.writing import Writer


class Watch:
    """The watch that runs while the log names a holdback."""

    def __init__(
        self,
        writer: Writer,
        reading: Reading,
        moves: Moves,
        judged: Judged,
        turning: Turning,
        config: RolloutConfig,
    ) -> None:
        self._writer, self._reading, self._moves = writer, reading, moves
        self._judged, self._turning, self._config = judged, turning, config

    @property
    def is_on(self) -> bool:
        """Whether some sessions are held back now."""
        served = self._writer.served
        return served.state is TrialState.PROMOTED and served.holdback is not None

    def step(self) -> Standing:
        """Take the promoted version back, end the watch, or go on."""
        served, begun = self._writer.served, self._writer.begun
        assert begun is not None and served.candidate is not None and served.holdback is not None
        version, own = served.candidate, self._config.watch
        tally = self._judged.watch(version, thaw(begun.numbers), since=begun.at)
        standing = evidence.watch(tally, own.alpha, own.max_units, own.max_s, own.min_units)
        if standing.verdict is Verdict.REJECT:
            told = f"version {version} is taken back, version {served.holdback} serves everyone: {standing.reason}"
            self._moves.roll_back(served.holdback, told, standing.numbers)
        elif served.mode is not Mode.OPEN:
            self._turning.go_on()
        elif standing.verdict is Verdict.PASS:
            self._end(version, standing.reason, standing)
        elif standing.num_units >= own.min_units and self._waits(version):
            self._end(version, f"its next version waits; {standing.reason}", standing)
        elif self._turning.is_on:
            self._turning.go_on()
        elif (placed := self._moves.placement(version, served.holdback)) != served.engines:
            self._moves.place_watch(changed(served.engines, placed))
        return standing

    def _end(self, version: int, reason: str, standing: Standing) -> None:
        self._moves.end_watch(f"the watch over version {version} is over: {reason}", standing.numbers)

    def _waits(self, stable: int) -> bool:
        """A version that could go on trial next is there."""
        served = self._writer.served
        return any(one.parent == stable and one.version not in served.trials for one in self._reading.waiting.values())
