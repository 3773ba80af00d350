"""Feedback that comes after its session was handed out: the trajectory is issued again, with it and a higher revision.

Late feedback waits as long as other records do for those held up with it: what belongs together makes one revision,
and feedback that was only read before its turn finds the turn.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ingest.log.protocol import Message
from ingest.records.events import Feedback, Reward, Trajectory, key_of
from ingest.sessions.table import Where, in_order, trajectory_id

LateFeedback = tuple[Feedback, Message]


@dataclass
class _Waiting:
    since: float
    feedback: dict[str, LateFeedback] = field(default_factory=dict)


class Late:
    """Late feedback by session key, each session's for `settle_s` after the first of it came."""

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._waiting: dict[str, _Waiting] = {}

    def add(self, feedback: Feedback, message: Message, now: float) -> None:
        """Let it wait; delivered again, it waits once."""
        key = key_of(session_id=feedback.session_id, trace_id=feedback.trace_id)
        waiting = self._waiting.setdefault(key, _Waiting(now))
        waiting.feedback.setdefault(feedback.feedback_id, (feedback, message))

    def due(self, now: float) -> list[list[LateFeedback]]:
        """Take out and return, session by session, what has waited long enough."""
        ready = [key for key, waiting in self._waiting.items() if waiting.since + self._settle_s <= now]
        return [list(self._waiting.pop(key).feedback.values()) for key in ready]

    def held(self) -> dict[Where, int]:
        """The smallest offset, per partition, of any that waits."""
        low: dict[Where, int] = {}
        for waiting in self._waiting.values():
            for _, message in waiting.feedback.values():
                where = (message.topic, message.partition)
                low[where] = min(message.offset, low.get(where, message.offset))
        return low

    def drop(self, assigned: Iterable[Where]) -> None:
        """Forget what lies in partitions that are not `assigned`: who reads those now has it."""
        mine = frozenset(assigned)
        for key, waiting in list(self._waiting.items()):
            if any((message.topic, message.partition) not in mine for _, message in waiting.feedback.values()):
                del self._waiting[key]


def first_id(of: Trajectory | Reward, trace_ids: Sequence[str]) -> str:
    """The id of a trajectory's first revision, which all revisions and their rewards have in common. `trace_ids` are
    its turns, in order."""
    return of.trajectory_id if of.revision == 1 else trajectory_id(of.session_id, trace_ids, 1)


def amended(trajectory: Trajectory, feedback: Iterable[Feedback], now: float) -> Trajectory:
    """The next revision of a trajectory, issued at `now`: the same turns, and more feedback."""
    revision = trajectory.revision + 1
    return trajectory.model_copy(
        update={
            "trajectory_id": trajectory_id(
                trajectory.session_id, [turn.trace_id for turn in trajectory.turns], revision
            ),
            "revision": revision,
            "closed_at": max(now, trajectory.closed_at),
            "feedback": in_order((*trajectory.feedback, *feedback)),
        }
    )
