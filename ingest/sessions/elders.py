"""Traces that a later turn's prefix leans on, read again from where they lie: a trace made whole."""

from collections.abc import Callable

from infra.errors import ErasedError, RecordError
from ingest.log.index import Index
from ingest.log.protocol import EventLog, Message
from ingest.log.topics import TRACES
from ingest.log.trajectories import trajectory_at
from ingest.records import codec, prefixes
from ingest.records.events import Trace, Trajectory
from ingest.records.prefixes import AnyPrefix, T
from ingest.sessions.held import Held


def stored_at(log: EventLog, partition: int, offset: int) -> tuple[Trace, Message] | None:
    """The trace at a place, as it was stored; `None` where it can be read no longer. Raises `LogError`."""
    message = log.fetch(TRACES.name, partition, offset)
    if message is None:
        return None
    try:
        return codec.decode(message.value, message.headers, Trace), message
    except RecordError:
        return None


def held_at(log: EventLog, partition: int, offset: int) -> Held | None:
    """The same, as an open session would have it."""
    found = stored_at(log, partition, offset)
    return found and Held.of(*found)


def whole(trace: T, find: Callable[[AnyPrefix], Held | None]) -> T | None:
    """`trace` with all that its prefixes left out; `None` where `find` does not find some of it."""
    line: list[Held] = []
    while (prefix := (line[-1] if line else trace).prefix) is not None:
        elder = find(prefix)
        if elder is None or not elder.carries(prefix):
            return None
        line.append(elder)
    if not line:
        return trace
    elder = line.pop()
    while line:
        elder = prefixes.whole(line.pop(), elder)
    return prefixes.whole(trace, elder)


class Elders:
    """Finds the whole of a trace by the index of trajectories, their turns' offsets, and the traces topic."""

    def __init__(self, log: EventLog, index: Index[Trajectory]) -> None:
        self._log, self._index = log, index

    def whole(self, trace: Held) -> Held | None:
        """`trace` with all that its prefixes left out; `None` where some of it is not on the log. Raises `LogError`."""
        return whole(trace, self._find)

    def _find(self, prefix: AnyPrefix) -> Held | None:
        entry = self._index.get(prefix.parent)
        try:
            trajectory = entry and trajectory_at(self._log, entry.source)
        except ErasedError:
            return None
        return elder_in(self._log, trajectory, prefix.parent) if trajectory else None


def elder_in(log: EventLog, trajectory: Trajectory, trace_id: str) -> Held | None:
    """A turn's trace, as it was stored. Raises `LogError`."""
    turn = next((turn for turn in trajectory.turns if turn.trace_id == trace_id), None)
    if turn is None or turn.offset is None or trajectory.partition is None:
        return None
    return held_at(log, trajectory.partition, turn.offset)
