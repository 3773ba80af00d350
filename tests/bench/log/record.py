"""One side of the bytes: the records of some sessions, made by the code of the release that is on the path.

    python record.py sealed < sessions.jsonl > records.jsonl

A line in is a session of `drawn`; lines out are its records as they go to the log: topic, key, value, headers, and
the time at which they are written. It runs under this release and under the one before it, whose rooms lie
elsewhere, and takes the way that each has from what an engine served to what the trainer says of it at the end.
With `sealed`, records are sealed as they are where nothing else is configured; the release before knows no sealing.
"""

import base64
import json
import sys
from collections.abc import Iterator
from tempfile import TemporaryDirectory
from typing import Any

from infra.config import IngestConfig

try:
    from ingest.log import fates
    from ingest.log.memory import InMemoryLog
    from ingest.log.protocol import Message
    from ingest.log.reader import labels, send
    from ingest.log.topics import TRAJECTORIES
    from ingest.privacy.intake import Intake
    from ingest.privacy.keys import KeyStore
    from ingest.privacy.redact import Redactor
    from ingest.privacy.sealed_log import SealedLog, opened
    from ingest.privacy.secret import Secret
    from ingest.records import codec
    from ingest.records.events import Fate, FateKind, Feedback, Source, Trace, Trajectory, session_key
    from serving.engine.recent import Recent

    IS_NEW = True
    SECRET = Secret.parse("0f" * 32, "bench")
except ImportError:  # the release before
    from ingest.events import Fate, FateKind, Feedback, Trace, Trajectory, session_key

    from ingest import codec
    from ingest.log import Message

    IS_NEW = False

from ingest.sessions.table import SessionTable
from rewards import evaluate
from rewards.spec import load

VERSION = 4
Record = tuple[bytes, dict[str, str]]
"""Value and headers."""
Written = tuple[str, str, bytes, dict[str, str], float]
"""Topic, key, value, headers, time."""


class Before:
    """How the release before writes: each record as it is."""

    def traces(self, traces: list[Trace]) -> list[Record]:
        return [codec.encode(trace) for trace in traces]

    def feedback(self, feedback: Feedback) -> Record:
        return codec.encode(feedback)

    def trajectory(self, key: str, closed: Any) -> Record:
        return codec.encode(closed.trajectory)

    def read(self, message: Message) -> Message:
        return message


class Now:
    """How this release does: capture leaves out what it wrote before, and `keys`, where there are any, seal."""

    def __init__(self, keys: "KeyStore | None") -> None:
        self._keys, self._intake = keys, Intake(Redactor(()), SECRET, keys)

    def traces(self, traces: list[Trace]) -> list[Record]:
        recent, found = Recent(max_bytes=1 << 30, max_age_s=900.0), list[Record]()

        def write(trace: Trace) -> bytes:
            plain, value, headers = self._intake.close_trace(trace, self._intake.key_for(trace.user, trace.tenant))
            found.append((value, headers))
            return plain

        for trace in traces:
            recent.store(trace, write)
        return found

    def feedback(self, feedback: Feedback) -> Record:
        return self._intake.close_feedback(feedback)

    def trajectory(self, key: str, closed: Any) -> Record:
        log = InMemoryLog()
        about = labels(closed.subjects, [turn.trace_id for turn in closed.trajectory.turns])
        send(SealedLog(log, self._keys) if self._keys else log, TRAJECTORIES, key, closed.trajectory, about)
        (message,) = log.replay(TRAJECTORIES.name)
        return message.value, message.headers

    def read(self, message: Message) -> Message:
        return opened(message, self._keys) if self._keys else message


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


def told(trajectory: Trajectory, endings: list[dict[str, Any]]) -> list[Record]:
    """Fates as the trainer writes them: this release's tells those that are alike together."""
    pairs = list(zip((turn.trace_id for turn in trajectory.turns), endings, strict=True))
    if not IS_NEW:
        return [codec.encode(Fate(trace_id=name, **ending)) for name, ending in pairs]
    log = InMemoryLog()
    fates.tell(log, [Fate(trace_ids=(name,), **ending) for name, ending in pairs])
    return [(message.value, message.headers) for message in log.replay("fates")]


def records(drawn: dict[str, Any], scoring: Any, side: Before | Now) -> Iterator[Written]:
    """All records of a session, on all topics."""
    key, end = session_key(drawn["session_id"]), drawn["turns"][-1]["finished_at"]
    traces = [Trace.model_validate(turn) for turn in drawn["turns"]]
    table = SessionTable(IngestConfig()) if IS_NEW else SessionTable(IngestConfig(), remember_s=1e9)
    for offset, (trace, record) in enumerate(zip(traces, side.traces(traces), strict=True)):
        yield "traces", key, *record, trace.finished_at
        message = side.read(Message("traces", 0, offset, key, *record))
        table.add_trace(codec.decode(message.value, message.headers, Trace), message, now=trace.finished_at)
    for offset, one in enumerate(map(Feedback.model_validate, drawn["feedback"])):
        record = side.feedback(one)
        yield "feedback", key, *record, one.at
        table.add_feedback(one, side.read(Message("feedback", 0, offset, key, *record)), now=one.at)
    (closed,) = table.due(now=end + 1000.0)
    trajectory = closed.trajectory
    yield "trajectories", key, *side.trajectory(key, closed), end + 1000.0
    outcomes = evaluate.ask(scoring, trajectory).outcomes
    where = {"source": Source(partition=1, offset=123_456)} if IS_NEW else {}
    reward = evaluate.reward(scoring, trajectory, outcomes, end + 1001.0, **where)
    yield "rewards", key, *codec.encode(reward), end + 1001.0
    for value, headers in told(trajectory, list(ended(trajectory, reward, end + 2000.0))):
        yield "fates", key, value, headers, end + 2000.0


def print_all(side: Before | Now) -> None:
    scoring = load("")
    for line in sys.stdin:
        for topic, key, value, headers, at in records(json.loads(line), scoring, side):
            print(json.dumps([topic, key, base64.b64encode(value).decode(), headers, at]))


def main(is_sealed: bool) -> None:
    if not IS_NEW:
        print_all(Before())
    elif not is_sealed:
        print_all(Now(None))
    else:
        with TemporaryDirectory() as folder:
            keys = KeyStore(folder, SECRET)
            keys.verify()
            print_all(Now(keys))


if __name__ == "__main__":
    main(sys.argv[1:] == ["sealed"])
