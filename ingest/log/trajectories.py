"""From a reward to the trajectory it is about: in the reward itself where that is old, else on its topic."""

import logging

from infra.errors import RecordError
from ingest.log.protocol import EventLog
from ingest.log.reader import place
from ingest.log.topics import TRAJECTORIES
from ingest.records import codec
from ingest.records.events import Reward, Source, Trajectory

logger = logging.getLogger(__name__)


def trajectory_of(log: EventLog, reward: Reward) -> Trajectory | None:
    """The trajectory of a reward; `None` where the log has it no longer. Raises `LogError`."""
    return reward.trajectory if reward.source is None else trajectory_at(log, reward.source)


def trajectory_at(log: EventLog, source: Source) -> Trajectory | None:
    """The trajectory at a place; `None` where the log has it no longer. Raises `LogError`."""
    message = log.fetch(TRAJECTORIES.name, source.partition, source.offset)
    if message is None:
        return None
    try:
        return codec.decode(message.value, message.headers, Trajectory)
    except RecordError as exc:
        logger.warning("%s: is no trajectory: %s", place(message), exc)
        return None
