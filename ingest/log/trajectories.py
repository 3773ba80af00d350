"""From a reward to the trajectory it is about: in the reward itself where that is old, else on its topic."""

import logging

from infra.errors import ErasedError, RecordError
from ingest.log.protocol import EventLog
from ingest.log.reader import place
from ingest.log.topics import TRAJECTORIES
from ingest.records import codec
from ingest.records.events import Headers, Reward, Source, Trajectory

logger = logging.getLogger(__name__)


def trajectory_of(log: EventLog, reward: Reward) -> Trajectory | None:
    """The trajectory of a reward; `None` where the log has it no longer. Raises `LogError`, `ErasedError`."""
    return reward.trajectory if reward.source is None else trajectory_at(log, reward.source)


def trajectory_at(log: EventLog, source: Source) -> Trajectory | None:
    """The trajectory at a place; `None` where the log has it no longer. Raises `LogError`, `ErasedError`."""
    found = read_at(log, source)
    return None if found is None else found[0]


def read_at(log: EventLog, source: Source) -> tuple[Trajectory, Headers] | None:
    """The trajectory at a place and its message's headers, likewise."""
    message = log.fetch(TRAJECTORIES.name, source.partition, source.offset)
    if message is None:
        return None
    try:
        return codec.decode(message.value, message.headers, Trajectory), message.headers
    except ErasedError:
        raise
    except RecordError as exc:
        logger.warning("%s: is no trajectory: %s", place(message), exc)
        return None
