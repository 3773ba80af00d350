"""The end of traces that no later stage will see."""

import logging
from collections.abc import Iterable

from infra import telemetry
from infra.telemetry import metrics, names
from ingest.log.protocol import EventLog
from ingest.log.reader import append
from ingest.log.topics import FATES
from ingest.records.events import Fate, FateKind, Trajectory, key_of

logger = logging.getLogger(__name__)


def tell(log: EventLog, fates: Iterable[Fate]) -> None:
    """Append fates, those of one session that are alike as one record."""
    together: dict[tuple[str, Fate], list[str]] = {}
    for fate in fates:
        for trace_id in fate.trace_ids:
            alike = fate.model_copy(update={"trace_ids": ()})
            together.setdefault((key_of(session_id=None, trace_id=trace_id), alike), []).append(trace_id)
    for (key, alike), trace_ids in together.items():
        append(log, FATES, key, alike.model_copy(update={"trace_ids": tuple(trace_ids)}))
        telemetry.count(metrics.FATES, len(trace_ids), {names.FATE: alike.kind.value})


ERASED = "erased"


def erased(log: EventLog, trace_ids: Iterable[str], at: float) -> None:
    """Append the fate of traces of a person who was erased before they came to an end."""
    names = tuple(trace_ids)
    logger.info("%d traces end here: whom they are of was erased", len(names))
    tell(log, [Fate(trace_ids=(name,), kind=FateKind.REFUSED, reason=ERASED, at=at) for name in names])


def dead_letter(log: EventLog, trajectory: Trajectory, reason: str, at: float) -> None:
    """Append the fate of every trace of a trajectory that the log does not take, such as one that is too large."""
    logger.error("trajectory %s: %d traces dead-lettered: %s", trajectory.trajectory_id, len(trajectory.turns), reason)
    traces = tuple(turn.trace_id for turn in trajectory.turns)
    tell(log, [Fate(trace_ids=traces, kind=FateKind.DEAD_LETTERED, reason=reason, at=at)])
