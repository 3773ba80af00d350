"""What measures a trial's evidence again for its story: the gate's own functions, over the same rewards."""

import math
from collections.abc import Sequence

from infra.config import GateConfig, RolloutConfig, WatchConfig
from ingest.records.events import Release, Reward
from ingest.store import releases
from serving.rollout.evidence import REWARD, Evidence, Standing, judge, watch
from serving.rollout.moves import thaw
from serving.rollout.operators.compose import LineOf


class TrialGauge:
    """A canary's evidence. `begin` is the release that began it, `before` are those before that."""

    def __init__(self, begin: Release, before: Sequence[Release], config: GateConfig) -> None:
        assert begin.candidate is not None
        served = releases.fold((*before, begin))
        self._trial, self._begin, self._config = begin.candidate, begin, config
        self._baselines = thaw(begin.numbers)
        self._number, self._promotions = 1 + list(served.trials).index(begin.candidate), len(served.promoted)
        self._evidence = Evidence()

    def add(self, reward: Reward) -> None:
        self._evidence.add(reward)

    def look(self, at: float) -> Standing:
        tally = self._evidence.trial(self._trial, self._baselines, self._config)
        return judge(tally, self._number, self._promotions, wall_s=at - self._begin.at)


class WatchGauge:
    """The evidence of the watch over a promoted version. `begin` is the release that promoted it."""

    def __init__(self, begin: Release, gate: GateConfig, config: WatchConfig) -> None:
        assert begin.candidate is not None
        self._version, self._baselines = begin.candidate, thaw(begin.numbers)
        self._gate, self._config = gate, config
        self._evidence = Evidence()

    def add(self, reward: Reward) -> None:
        self._evidence.add(reward)

    def look(self, at: float) -> Standing:
        tally, own = self._evidence.watch(self._version, self._baselines, self._gate), self._config
        return watch(tally, own.alpha, own.max_units, own.max_s, own.min_units)


def harm_line(config: RolloutConfig) -> LineOf:
    """As the gate and the watch have it: guardrails share an alpha among them."""
    shared = math.log(max(1, len(config.gate.guardrails)))

    def line(outcome: str, is_watch: bool) -> float:
        alpha = config.watch.alpha if is_watch else config.gate.alpha_rollback
        return (0.0 if outcome == REWARD else shared) - math.log(alpha)

    return line
