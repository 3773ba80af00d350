"""What an anchor's prompt was, read from the log each time it is asked: of who was erased meanwhile nothing is."""

from dataclasses import dataclass
from typing import Any

from infra.errors import ErasedError
from ingest.log.protocol import EventLog
from ingest.log.trajectories import trajectory_at
from ingest.records.events import Arm, Assignment, Group, Trajectory, TurnKind
from ingest.sessions.resettable import resettable
from serving import headers
from serving.headers import Identity
from serving.rollout.lane.picking import Anchor
from serving.rollout.replay.prompts import Prompt, request_of

_TOOLS = ("tools", "functions")
_SAME_AGAIN = "seed"


@dataclass(frozen=True)
class Asked:
    """A request, and whose it was: `parent` is the session that it belongs to, or that whose agent began it."""

    path: str
    body: dict[str, Any]
    prompt: Prompt
    parent: str


def read(log: EventLog, anchor: Anchor, model: str) -> Asked | None:
    """The request as its user made it, without a seed: the same length, temperature and all.

    `None` where it can be read no longer, as of somebody who was erased, or must not be asked again: its session cannot
    be set back to it (`ingest.sessions.resettable`), or it was to be answered without any chance.

    Raises:
        LogError: the log does not answer.
    """
    try:
        trajectory = trajectory_at(log, anchor.source)
    except ErasedError:
        return None
    prompt = trajectory and _prompt(trajectory, anchor)
    request = prompt and request_of(log, prompt, model, None)
    if not trajectory or not prompt or not request or any(request.body.get(name) for name in _TOOLS):
        return None
    if request.body.get("temperature") == 0:
        return None
    body = {name: value for name, value in request.body.items() if name != _SAME_AGAIN}
    return Asked(request.path, body, prompt, trajectory.parent_session_id or trajectory.session_id)


def _prompt(trajectory: Trajectory, anchor: Anchor) -> Prompt | None:
    turn = resettable(trajectory)
    if turn is None or turn.trace_id != anchor.trace_id or turn.offset is None or trajectory.partition is None:
        return None
    offsets = {each.trace_id: each.offset for each in trajectory.turns if each.offset is not None}
    return Prompt(turn.trace_id, trajectory.tenant, trajectory.user, trajectory.consent, trajectory.partition, offsets)


def identity(asked: Asked, anchor: Anchor, session_id: str, size: int) -> Identity:
    """Of one answer of a group, whose session is `session_id`: it belongs to the anchor's user, with their consent, and
    is held out if the anchor's session ever is."""
    group = Group(size=size, propensity=anchor.propensity, anchor=dict(anchor.parts), spec=anchor.spec)
    return Identity(
        trace_id=headers.new_trace(session_id),
        session_id=session_id,
        tenant=asked.prompt.tenant,
        kind=TurnKind.MAIN,
        assignment=Assignment(arm=Arm.STABLE, replay_of=anchor.trace_id, group=group),
        consent=asked.prompt.consent,
        user=asked.prompt.user,
        parent_session_id=asked.parent,
    )
