"""One side of the bytes: the records of some sessions, made by the code of the release that is on the path.

    python record.py < sessions.jsonl > records.jsonl

A line in is a session of `drawn`; lines out are its records as they go to the log: topic, key, value, headers, and
the time at which they are written. It runs under this release and under the one before it, whose rooms lie
elsewhere, and takes the way that each has from what an engine served to what the trainer says of it at the end.
"""

import base64
import json
import sys
from collections.abc import Iterator
from typing import Any

from infra.config import IngestConfig

try:
    from ingest.log import fates
    from ingest.log.memory import InMemoryLog
    from ingest.log.protocol import Message
    from ingest.records import codec
    from ingest.records.events import Fate, FateKind, Feedback, Source, Trace, Trajectory, session_key
    from serving.recent import Recent

    IS_NEW = True
except ImportError:  # the release before
    from ingest.events import Fate, FateKind, Feedback, Trace, Trajectory, session_key

    from ingest import codec
    from ingest.log import Message

    IS_NEW = False

from ingest.sessions.table import SessionTable
from rewards import evaluate
from rewards.spec import load

VERSION = 4
Written = tuple[str, str, bytes, dict[str, str], float]
"""Topic, key, value, headers, time."""


def stored(traces: list[Trace]) -> list[tuple[bytes, dict[str, str]]]:
    """Traces as capture writes them: this release's capture leaves out what it wrote before."""
    if not IS_NEW:
        return [codec.encode(trace) for trace in traces]
    recent, found = Recent(max_bytes=1 << 30, max_age_s=900.0), []

    def write(trace: Trace) -> bytes:
        found.append(codec.encode(trace))
        return found[-1][0]

    for trace in traces:
        recent.store(trace, write)
    return found


def ended(trajectory: Trajectory, reward: Any, at: float) -> Iterator[dict[str, Any]]:
    """What the trainer says of each turn, without whose it is."""
    scored = {turn.trace_id: turn.value is not None for turn in reward.turns}
    for turn in trajectory.turns:
        if trajectory.held_out:
            yield {"kind": FateKind.HELD_OUT, "version": None, "reason": "held out", "at": at}
        elif scored[turn.trace_id]:
            yield {"kind": FateKind.TRAINED, "version": VERSION, "reason": f"trained in version {VERSION}", "at": at}
        else:
            yield {"kind": FateKind.REFUSED, "version": None, "reason": "unscored", "at": at}


def told(trajectory: Trajectory, endings: list[dict[str, Any]]) -> list[tuple[bytes, dict[str, str]]]:
    """Fates as the trainer writes them: this release's tells those that are alike together."""
    pairs = list(zip((turn.trace_id for turn in trajectory.turns), endings, strict=True))
    if not IS_NEW:
        return [codec.encode(Fate(trace_id=name, **ending)) for name, ending in pairs]
    log = InMemoryLog()
    fates.tell(log, [Fate(trace_ids=(name,), **ending) for name, ending in pairs])
    return [(message.value, message.headers) for message in log.replay("fates")]


def records(drawn: dict[str, Any], scoring: Any) -> Iterator[Written]:
    """All records of a session, on all topics."""
    key, end = session_key(drawn["session_id"]), drawn["turns"][-1]["finished_at"]
    traces = [Trace.model_validate(turn) for turn in drawn["turns"]]
    feedback = [Feedback.model_validate(one) for one in drawn["feedback"]]
    table = SessionTable(IngestConfig()) if IS_NEW else SessionTable(IngestConfig(), remember_s=1e9)
    for offset, (trace, (value, headers)) in enumerate(zip(traces, stored(traces), strict=True)):
        yield "traces", key, value, headers, trace.finished_at
        kept = codec.decode(value, headers, Trace)
        table.add_trace(kept, Message("traces", 0, offset, key, value, headers), now=trace.finished_at)
    for offset, one in enumerate(feedback):
        value, headers = codec.encode(one)
        yield "feedback", key, value, headers, one.at
        table.add_feedback(one, Message("feedback", 0, offset, key, value, headers), now=one.at)
    (closed,) = table.due(now=end + 1000.0)
    trajectory = closed.trajectory
    yield "trajectories", key, *codec.encode(trajectory), end + 1000.0
    outcomes = evaluate.ask(scoring, trajectory).outcomes
    where = {"source": Source(partition=1, offset=123_456)} if IS_NEW else {}
    reward = evaluate.reward(scoring, trajectory, outcomes, end + 1001.0, **where)
    yield "rewards", key, *codec.encode(reward), end + 1001.0
    for value, headers in told(trajectory, list(ended(trajectory, reward, end + 2000.0))):
        yield "fates", key, value, headers, end + 2000.0


def main() -> None:
    scoring = load("")
    for line in sys.stdin:
        for topic, key, value, headers, at in records(json.loads(line), scoring):
            print(json.dumps([topic, key, base64.b64encode(value).decode(), headers, at]))


if __name__ == "__main__":
    main()
