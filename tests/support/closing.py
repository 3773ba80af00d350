"""Trajectories for tests, without the stage that makes them."""

from ingest.records.events import CloseReason, Feedback, Trace, Trajectory
from ingest.sessions.chains import join
from ingest.sessions.turns import build


def trajectory(
    *traces: Trace, closed_at: float = 100.0, feedback: tuple[Feedback, ...] = (), revision: int = 1
) -> Trajectory:
    """One session's, closed at `closed_at`, without chains."""
    return Trajectory(
        trajectory_id="t",
        revision=revision,
        session_id=traces[0].session_id,
        tenant="default",
        assignment=None,
        held_out=False,
        closed=CloseReason.INACTIVE,
        opened_at=0.0,
        closed_at=closed_at,
        turns=build(join(traces).readings, {}),
        chains=(),
        feedback=feedback,
    )
