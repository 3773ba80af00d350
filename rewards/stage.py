"""The rewards stage: trajectories in, rewards out.

The commit order is that of `ingest.reader`:

    1. poll    trajectories; undecodable ones go to the dead-letter topic
    2. score   a reward per trajectory is appended to `rewards`, keyed by session key; the traces of one that is too
               large for the log get their fate here
    3. flush   rewards and dead letters are durable
    4. commit  the group's positions move

A crash before 4 repeats 1-3: the same trajectories under the same spec give rewards with the same ids.
"""

import logging
import time
from collections.abc import Callable
from statistics import fmean

from infra import telemetry
from infra.config import Config
from infra.errors import RecordError
from infra.lifecycle import Stop
from ingest import fates
from ingest.events import Component, Headers, Reward, Trajectory, session_key
from ingest.log import EventLog
from ingest.reader import Reader, send
from ingest.topics import REWARDS, TRAJECTORIES
from rewards.spec import Scoring, evaluate

logger = logging.getLogger(__name__)

GROUP = "rewards"
POLL_S = 0.5


class Stage:
    """Scores what it reads. Build a new one after any `LogError`: that is a restart."""

    def __init__(
        self, log: EventLog, scoring: Scoring, flush_timeout_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._log, self._scoring, self._clock = log, scoring, clock
        self._flush_timeout_s = flush_timeout_s
        self._reader = Reader(log, (TRAJECTORIES,), GROUP)
        self._next: dict[tuple[str, int], int] = {}

    def step(self, timeout_s: float = POLL_S) -> int:
        """Poll, score, flush and commit. Returns how many messages there were."""
        num = self.score(timeout_s)
        if num:
            self._log.flush(self._flush_timeout_s)
            self.commit()
        return num

    def score(self, timeout_s: float = POLL_S) -> int:
        """1 and 2: read trajectories and append their rewards."""
        batch = self._reader.poll(timeout_s)
        for message, record in batch:
            if isinstance(record, Trajectory):
                self._write(record, message.headers)
            self._next[message.topic, message.partition] = message.offset + 1
        return len(batch)

    def _write(self, trajectory: Trajectory, headers: Headers) -> None:
        with telemetry.span(telemetry.SCORE, parent=headers) as span:
            span.set_attribute("onstream.trajectory.id", trajectory.trajectory_id)
            span.set_attribute("onstream.turns", len(trajectory.turns))
            reward = evaluate(self._scoring, trajectory, self._clock())
            try:
                send(self._log, REWARDS, session_key(trajectory.session_id), reward)
            except RecordError as exc:
                fates.dead_letter(self._log, trajectory, str(exc), reward.at)
                return
        telemetry.count(telemetry.REWARDS_MADE, 1, signal="yes" if reward.has_signal else "no")
        for component in reward.components:
            if component.unscored is not None:
                telemetry.count(telemetry.UNSCORED, 1, component=component.name)
        logger.info("session %s: %s", trajectory.session_id, told(reward))

    def commit(self) -> None:
        """4: the group goes on after what was scored."""
        self._reader.subscription.commit(self._next)
        self._next = {}

    def close(self) -> None:
        """Leave the group. Nothing is committed that was not flushed."""
        self._reader.close()


def told(reward: Reward) -> str:
    """A reward in a line: the session's value, and what each component said of its turns."""
    by_name: dict[str, list[Component]] = {}
    for component in reward.components:
        by_name.setdefault(component.name, []).append(component)
    parts = []
    for name, said in by_name.items():
        values = [component.value for component in said if component.value is not None]
        reasons = sorted({component.unscored for component in said if component.unscored})
        mean = f"{fmean(values):.3f} over {len(values)} of {len(said)} turns" if values else "unscored"
        parts.append(f"{name} {mean}" + (f" ({'; '.join(reasons)})" if reasons else ""))
    value = f"value {reward.value:.3f}" + ("" if reward.has_signal else " for silence")
    return ", ".join([value, *parts])


def run(log: EventLog, config: Config, scoring: Scoring, stop: Stop) -> None:
    """Score until `stop` is set. Raises `LogError` when the log fails; call again to go on from what it has."""
    stage = Stage(log, scoring, config.log.timeout_s)
    try:
        while not stop.is_set():
            stage.step()
    finally:
        stage.close()
