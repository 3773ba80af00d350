"""What measures a trial's evidence again for its story: the gate's own functions, over the same rewards."""

import math
from collections.abc import Sequence

from infra.config import GateConfig
from ingest.records.events import Release, Reward
from ingest.store import releases
from serving.rollout import gate
from serving.rollout.controller import thaw
from serving.rollout.evidence import Evidence
from serving.rollout.gate import Standing
from serving.rollout.operators.compose import LineOf


class TrialGauge:
    """A canary's evidence. `begin` is the release that began it, `before` are those before that."""

    def __init__(self, begin: Release, before: Sequence[Release], config: GateConfig) -> None:
        assert begin.candidate is not None
        served = releases.fold((*before, begin))
        self._trial, self._begin, self._config = begin.candidate, begin, config
        self._baselines = thaw(begin.numbers)
        self._number, self._promotions = 1 + list(served.trials).index(begin.candidate), len(served.promoted)
        self._held = Evidence()

    def add(self, reward: Reward) -> None:
        self._held.add(reward)

    def look(self, at: float) -> Standing:
        """The verdict at a time. As the controller has it: its limits of time begin with the canary."""
        return gate.judge(
            self._held.units_of(self._trial),
            self._baselines,
            self._config,
            trial=self._number,
            promotions=self._promotions,
            age_s=at - self._begin.at,
        )


def harm_line(config: GateConfig) -> LineOf:
    """As the gate has it: guardrails share `alpha_rollback` among them."""
    line = -math.log(config.alpha_rollback)
    shared = line + math.log(max(1, len(config.guardrails)))
    return lambda name, _is_watch: line if name == gate.REWARD else shared
