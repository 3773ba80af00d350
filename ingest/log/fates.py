"""The end of traces that no later stage will see."""

import logging

from infra import telemetry
from ingest.log.protocol import EventLog
from ingest.log.reader import send
from ingest.log.topics import FATES
from ingest.records.events import Fate, FateKind, Trajectory, session_key

logger = logging.getLogger(__name__)


def dead_letter(log: EventLog, trajectory: Trajectory, reason: str, at: float) -> None:
    """Append the fate of every trace of a trajectory that the log does not take, such as one that is too large."""
    logger.error("trajectory %s: %d traces dead-lettered: %s", trajectory.trajectory_id, len(trajectory.turns), reason)
    for turn in trajectory.turns:
        fate = Fate(trace_id=turn.trace_id, kind=FateKind.DEAD_LETTERED, reason=reason, at=at)
        send(log, FATES, session_key(trajectory.session_id), fate)
    telemetry.count(telemetry.DEAD_LETTERS, len(trajectory.turns), topic=FATES.name)
