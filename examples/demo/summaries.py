"""What the log says of self-summaries: compactions that ingest recognised, and what each component gave them."""

import logging
import statistics
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

from infra.config import Config
from infra.errors import LogError
from ingest.log import topics
from ingest.log.connect import connect
from ingest.log.reader import Follower
from ingest.records.events import Record, Reward, Trajectory, TurnKind
from ingest.sessions import history

logger = logging.getLogger(__name__)

COMPONENTS = ("sufficiency", "recall", "faithfulness", "length", "symptoms")
RETRY_S = 2.0


@dataclass(frozen=True)
class Scores:
    """One summary's reward, and what each component that could score it gave. All in [0, 1]."""

    value: float
    components: dict[str, float]


@dataclass
class Tally:
    """Everything that records of `trajectories` and `rewards` say of summaries. The same record twice counts once."""

    compactions_by_trajectory: dict[str, int] = field(default_factory=dict)
    scores: dict[str, Scores] = field(default_factory=dict)

    @property
    def compactions(self) -> int:
        return sum(self.compactions_by_trajectory.values())

    def take(self, record: Record) -> None:
        if isinstance(record, Trajectory):
            self.compactions_by_trajectory[record.trajectory_id] = len(history.compactions(record))
        elif isinstance(record, Reward):
            self._take_reward(record)

    def _take_reward(self, reward: Reward) -> None:
        for turn in reward.turns:
            if turn.kind is not TurnKind.SUMMARY or turn.value is None:
                continue
            given = {
                part.name: part.value
                for part in reward.components
                if part.trace_id == turn.trace_id and part.name in COMPONENTS and part.value is not None
            }
            if given:
                self.scores[turn.trace_id] = Scores(turn.value, given)

    def quality(self, newest: int | None = None) -> float | None:
        """Mean reward of the newest summaries, or of all; nothing where none is scored."""
        return _mean(scores.value for scores in self._last(newest))

    def by_component(self, newest: int | None = None) -> dict[str, float]:
        """Mean of each component over those of the newest summaries, or of all, that it could score."""
        last = self._last(newest)
        means = {name: _mean(s.components[name] for s in last if name in s.components) for name in COMPONENTS}
        return {name: mean for name, mean in means.items() if mean is not None}

    def _last(self, newest: int | None) -> list[Scores]:
        return list(self.scores.values())[-newest if newest else None :]


def _mean(values: Iterable[float]) -> float | None:
    given = list(values)
    return statistics.fmean(given) if given else None


class Watch:
    """Fills a tally while the system runs, from a thread of its own; what it shows is never older than a second."""

    def __init__(self, config: Config) -> None:
        self.tally = Tally()
        self._config, self._over = config, threading.Event()
        self._thread = threading.Thread(target=self._run, name="summaries", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._follow()
            except LogError as exc:
                logger.info("%s; asking again", exc)
                self._over.wait(RETRY_S)

    def _follow(self) -> None:
        log = connect(self._config, client_id="demo")
        try:
            follower = Follower(log, (topics.TRAJECTORIES, topics.REWARDS))
            while not self._over.is_set():
                for record in follower.poll(0.5):
                    self.tally.take(record)
        finally:
            log.close()
