"""Which turn of a session can be asked again, with the session set back to before it. Pure.

A session can be set back where all that its turns depend on stands in their requests: then a request is the state, and
to send it again is to stand before that turn once more. Tools leave something behind that no request holds, so a
session that offers or used any, in whichever turn, cannot be. Nor can a turn whose request was redacted: what lies on
the log is not what was asked.
"""

from ingest.records.events import Trajectory, Turn, TurnKind, content_id

SALT = "onstream resettable turn"
HTTP_OK = 200


def resettable(trajectory: Trajectory) -> Turn | None:
    """The turn that may be asked again, if there is one; of several, the one that a hash of its trace says.

    One of each session, so that a long one is asked again no more often than a short one. Held-out sessions and
    replays have none.
    """
    is_replay = trajectory.assignment is not None and trajectory.assignment.replay_of is not None
    if trajectory.held_out or is_replay or any(_has_tools(turn) for turn in trajectory.turns):
        return None
    plain = [
        turn
        for turn in trajectory.turns
        if turn.kind is TurnKind.MAIN and turn.status == HTTP_OK and not turn.is_altered
    ]
    return min(plain, key=lambda turn: content_id(SALT, turn.trace_id), default=None)


def _has_tools(turn: Turn) -> bool:
    said = any(message.tool_calls or message.call_id for message in turn.messages)
    return bool(turn.tools or turn.tool_calls or said)
