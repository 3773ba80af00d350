"""What measures a trial's evidence again for its story: the gate's own functions, over the same rewards."""

from collections import deque
from collections.abc import Iterable, Sequence

from infra.config import RolloutConfig
from ingest.records.events import Release, Reward
from ingest.store.releases import Served, advance, fold
from serving.rollout.evidence import Evidence, Standing, judge, lines, watch
from serving.rollout.judged import Judged, gate_of
from serving.rollout.moves import thaw
from serving.rollout.operators.compose import LineOf
from serving.rollout.placement.blocks import Blocks


class TrialGauge:
    """A canary's evidence. `begin` is the release that began it, among all `releases`."""

    def __init__(self, begin: Release, releases: Sequence[Release], config: RolloutConfig) -> None:
        assert begin.candidate is not None
        served = fold(one for one in releases if one.release <= begin.release)
        self._trial, self._begin = begin.candidate, begin
        self._baselines = thaw(begin.numbers)
        self._number, self._promotions = 1 + list(served.trials).index(begin.candidate), len(served.promoted)
        self._evidence, self._past = Evidence(), Past(releases)
        self._judged = Judged(self._evidence, self._past.blocks, config)

    def add(self, reward: Reward) -> None:
        self._evidence.add(reward)

    def look(self, at: float) -> Standing:
        self._past.read(at)
        tally = self._judged.trial(self._trial, self._baselines)
        return judge(tally, self._number, self._promotions, wall_s=at - self._begin.at)


class WatchGauge:
    """The evidence of the watch over a promoted version. `begin` is the release that promoted it."""

    def __init__(self, begin: Release, releases: Sequence[Release], config: RolloutConfig) -> None:
        assert begin.candidate is not None
        self._version, self._since = begin.candidate, begin.at
        self._baselines, self._config = thaw(begin.numbers), config.watch
        self._evidence, self._past = Evidence(), Past(releases)
        self._judged = Judged(self._evidence, self._past.blocks, config)

    def add(self, reward: Reward) -> None:
        self._evidence.add(reward)

    def look(self, at: float) -> Standing:
        self._past.read(at)
        tally, own = self._judged.watch(self._version, self._baselines, self._since), self._config
        return watch(tally, own.alpha, own.max_units, own.max_s, own.min_units)


class Past:
    """The log's releases up to a time, and the blocks that they tell of."""

    def __init__(self, releases: Iterable[Release]) -> None:
        self.blocks = Blocks()
        self._left, self._served = deque(releases), Served()

    def read(self, until: float) -> None:
        """On to a time, in Unix seconds: what was released before it."""
        while self._left and self._left[0].at < until:
            release = self._left.popleft()
            before, self._served = self._served, advance(self._served, release)
            if self._served is not before:
                self.blocks.take(self._served, release)


def harm_line(config: RolloutConfig) -> LineOf:
    """As the gate and the watch have it."""
    gate = gate_of(config)
    return lambda outcome, is_watch: lines.harm_line(
        gate, outcome, config.watch.alpha if is_watch else gate.alpha_rollback
    )
