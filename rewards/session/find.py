"""What the log has of one session. Every topic is replayed once; messages are compared by key before they are decoded,
so memory is what the one session takes.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

from infra.config import IngestConfig
from infra.errors import RecordError
from ingest.log.protocol import EventLog, Message
from ingest.log.topics import FEEDBACK, REWARDS, TRACES, TRAJECTORIES
from ingest.records import codec
from ingest.records.events import AnyRecord, Feedback, Reward, Trace, Trajectory, key_of, session_key
from ingest.records.ids import is_trace_id, trace_of
from ingest.sessions.table import MAX_SETTLE_S, SessionTable, Taken

_KEY = re.compile(r"[0-9a-f]{16}")


@dataclass
class Found:
    """`closed` are on their topic; `still_open` are made of traces that are in none of them."""

    closed: list[Trajectory] = field(default_factory=list)
    still_open: list[Trajectory] = field(default_factory=list)
    rewards: list[Reward] = field(default_factory=list)
    late: list[Feedback] = field(default_factory=list)
    sub_sessions: dict[str, set[str]] = field(default_factory=dict)


def names_of(asked: str, tenants: Iterable[str]) -> tuple[str, ...]:
    """The session ids that a client's name for its session may stand for: as it is, or within a tenant."""
    return (asked, *(f"{tenant}/{asked}" for tenant in tenants))


def keys_of(asked: str, tenants: Iterable[str]) -> frozenset[str]:
    """The keys of all sessions that `asked` may mean: a name, a key, a trace's id or a completion's."""
    keys = {session_key(name) for name in names_of(asked, tenants)}
    if is_trace_id(trace := trace_of(asked)):
        keys.add(key_of(session_id=None, trace_id=trace))
    if _KEY.fullmatch(asked):
        keys.add(asked)
    return frozenset(keys)


def find(log: EventLog, asked: str, tenants: Iterable[str], config: IngestConfig, now: float) -> Found:
    """All that the log has of the sessions that `asked` may mean. Raises `LogError`."""
    tenants = tuple(tenants)
    keys, found, closed = keys_of(asked, tenants), Found(), dict[str, Trajectory]()
    table = SessionTable(config)
    for message in _of(log, TRAJECTORIES.name, keys):
        if trajectory := _read(message, Trajectory):
            closed[trajectory.trajectory_id] = trajectory
            table.remember(trajectory)
    found.closed = sorted(closed.values(), key=lambda trajectory: trajectory.opened_at)
    parents = {*names_of(asked, tenants), *(one.session_id for one in found.closed)}
    _read_traces(log, keys, parents, table, found, now)
    for message in _of(log, FEEDBACK.name, keys):
        feedback = _read(message, Feedback)
        if feedback and table.add_feedback(feedback, message, now) is Taken.LATE:
            found.late.append(feedback)
    ended = now + config.horizon_s + MAX_SETTLE_S
    found.still_open = [closed.trajectory for closed in table.due(ended)]
    rewards = [reward for message in _of(log, REWARDS.name, keys) if (reward := _read(message, Reward))]
    found.rewards = list({reward.reward_id: reward for reward in rewards}.values())
    return found


def _read_traces(
    log: EventLog, keys: frozenset[str], parents: set[str], table: SessionTable, found: Found, now: float
) -> None:
    """Lay the session's own traces into the table, and note whose sub-agents' sessions there are."""
    needles = {parent: _naming(parent) for parent in parents}
    for message in log.replay(TRACES.name):
        is_own, is_sub = message.key in keys, _is_naming(message, needles.values())
        trace = _read(message, Trace) if is_own or is_sub else None
        if trace is None:
            continue
        if is_own:
            table.add_trace(trace, message, now)
            needles.setdefault(trace.session_id, _naming(trace.session_id))
        if trace.parent_session_id in needles and trace.assignment.replay_of is None:
            found.sub_sessions.setdefault(trace.parent_session_id, set()).add(trace.session_id)


def _naming(parent: str) -> bytes:
    """What stands in a trace's bytes, outside of any text of its request, where a sub-agent names its parent."""
    return f'"parent_session_id":{json.dumps(parent)}'.encode()


def _is_naming(message: Message, needles: Collection[bytes]) -> bool:
    try:
        value = codec.plain(message.value)
    except RecordError:
        return False
    return any(needle in value for needle in needles)


def _of(log: EventLog, topic: str, keys: frozenset[str]) -> Iterator[Message]:
    return (message for message in log.replay(topic) if message.key in keys)


def _read(message: Message, kind: type[AnyRecord]) -> AnyRecord | None:
    """The record, or none: what cannot be read is its stage's to dead-letter, and `onstream audit`'s to tell."""
    try:
        return codec.decode(message.value, message.headers, kind)
    except RecordError:
        return None
