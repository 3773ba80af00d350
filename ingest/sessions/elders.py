"""Traces of sessions that were handed out, which a later turn's prefix leans on: read again from where they lie."""

from infra.errors import RecordError
from ingest.log.index import Index
from ingest.log.protocol import EventLog
from ingest.log.topics import TRACES
from ingest.log.trajectories import trajectory_at
from ingest.records import codec, prefixes
from ingest.records.events import Prefix, Trace, Trajectory
from ingest.sessions.held import Held


class Elders:
    """Finds the whole of a trace by the index of trajectories, their turns' offsets, and the traces topic."""

    def __init__(self, log: EventLog, index: Index[Trajectory]) -> None:
        self._log, self._index = log, index

    def whole(self, trace: Trace) -> Trace | None:
        """`trace` with all that its prefixes left out; `None` where some of it is not on the log. Raises `LogError`."""
        line = [trace]
        while (prefix := line[-1].prefix) is not None:
            elder = self._find(prefix)
            if elder is None:
                return None
            line.append(elder)
        made = line.pop()
        while line:
            made = prefixes.whole(line.pop(), made)
        return made

    def _find(self, prefix: Prefix) -> Trace | None:
        """The trace that a prefix leans on, as it was stored, if that is what it says."""
        entry = self._index.get(prefix.parent)
        trajectory = entry and trajectory_at(self._log, entry.source)
        turn = trajectory and next((turn for turn in trajectory.turns if turn.trace_id == prefix.parent), None)
        if not trajectory or not turn or turn.offset is None or trajectory.partition is None:
            return None
        message = self._log.fetch(TRACES.name, trajectory.partition, turn.offset)
        if message is None:
            return None
        try:
            trace = codec.decode(message.value, message.headers, Trace)
        except RecordError:
            return None
        return trace if Held.of(trace, message).carries(prefix) else None
