"""The watch over a version that was promoted: a share of sessions stays on the version before, and harm takes it back.

It ends well after `max_units` sessions, or after `max_s` if there were `min_units`, or, with as many, once the next
version of the trainer waits. Nothing is taken back for want of sessions, and nothing ends well for it.
"""

import math
from collections.abc import Iterable, Mapping

from infra.config import RolloutConfig
from ingest.records.events import Arm, Mode, TrialState
from serving.rollout import caps, gate
from serving.rollout.evidence import Evidence
from serving.rollout.gate import Baseline, Standing, Unit, Verdict
from serving.rollout.moves import Moves, thaw
from serving.rollout.placement import changed
from serving.rollout.reading import Reading
from serving.rollout.writing import Writer


class Watch:
    """The watch that runs while the log names a holdback."""

    def __init__(
        self, writer: Writer, reading: Reading, moves: Moves, evidence: Evidence, config: RolloutConfig
    ) -> None:
        self._writer, self._reading, self._moves = writer, reading, moves
        self._evidence, self._config = evidence, config

    @property
    def is_on(self) -> bool:
        """Whether some sessions are held back now."""
        served = self._writer.served
        return served.state is TrialState.PROMOTED and served.holdback is not None

    def step(self, age_s: float) -> Standing:
        """Take the promoted version back, end the watch, or go on. `age_s` are the seconds since the promotion."""
        served, begun = self._writer.served, self._writer.begun
        assert begun is not None and served.candidate is not None and served.holdback is not None
        version, own = served.candidate, self._config.watch
        standing = judge(self._evidence.watched(version), thaw(begun.numbers), self._config, age_s=age_s)
        if standing.verdict is Verdict.REJECT:
            told = f"version {version} is taken back, version {served.holdback} serves everyone: {standing.reason}"
            self._moves.roll_back(served.holdback, told, standing.numbers)
        elif served.mode is not Mode.OPEN:
            return standing
        elif standing.verdict is Verdict.PASS:
            self._end(version, standing.reason, standing)
        elif standing.num_units >= own.min_units and self._waits(version):
            self._end(version, f"its next version waits; {standing.reason}", standing)
        elif (placed := self._moves.placement(version, served.holdback)) != served.engines:
            self._moves.place_watch(changed(served.engines, placed))
        return standing

    def _end(self, version: int, reason: str, standing: Standing) -> None:
        self._moves.end_watch(f"the watch over version {version} is over: {reason}", standing.numbers)

    def _waits(self, stable: int) -> bool:
        """A version that could go on trial next is there."""
        served = self._writer.served
        return any(one.parent == stable and one.version not in served.trials for one in self._reading.waiting.values())


def judge(units: Iterable[Unit], baselines: Mapping[str, Baseline], config: RolloutConfig, age_s: float) -> Standing:
    """REJECT on harm, PASS at the watch's end. The promoted version is in the candidate's place."""
    counted, own, numbers = caps.counted(units, config.gate), config.watch, dict[str, float]()
    line = numbers["log_threshold"] = -math.log(own.alpha)
    for arm in (Arm.STABLE, Arm.HOLDBACK):
        numbers[f"units.{arm}"] = float(sum(unit.arm is arm for unit in counted))
    margins = {gate.REWARD: config.gate.margin} | {rail.name: rail.margin for rail in config.gate.guardrails}
    alarms = []
    for name, margin in margins.items():
        if name not in baselines:
            continue
        outcomes = [
            (Arm.STABLE if unit.arm is Arm.HOLDBACK else Arm.CANDIDATE, _pi(unit), _outcome(unit, name))
            for unit in counted
            if name == gate.REWARD or name in unit.guardrails
        ]
        harm = numbers[f"log_harm.{name}"] = gate.log_harm(outcomes, baselines[name], margin)
        shared = line + (0.0 if name == gate.REWARD else math.log(max(1, len(config.gate.guardrails))))
        if harm >= shared:
            alarms.append(f"{name} is worse than held back, harm e^{harm:.2f} past e^{shared:.2f}")
    arms = f"{numbers['units.stable']:.0f} sessions with it and {numbers['units.holdback']:.0f} without"
    if alarms:
        return Standing(Verdict.REJECT, f"{alarms[0]} over {arms}", numbers)
    is_long = age_s >= own.max_s and len(counted) >= own.min_units
    if len(counted) >= own.max_units or is_long:
        return Standing(Verdict.PASS, f"no alarm over {arms}", numbers)
    return Standing(Verdict.HOLD, f"no alarm yet over {arms}", numbers)


def _pi(unit: Unit) -> float:
    """The chance that the coin gave the promoted version."""
    return 1.0 - unit.propensity if unit.arm is Arm.HOLDBACK else unit.propensity


def _outcome(unit: Unit, name: str) -> float:
    return unit.reward if name == gate.REWARD else unit.guardrails[name]
