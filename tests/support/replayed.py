"""Held-out sessions on a log, and rewards of their replays, for tests of the stage that asks them again."""

from collections.abc import Mapping
from typing import Any

from ingest.log import reader, topics
from ingest.log.memory import InMemoryLog
from ingest.records import prefixes
from ingest.records.codec import encode
from ingest.records.events import (
    Arm,
    Assignment,
    CloseReason,
    Component,
    Reward,
    Source,
    Trace,
    Trajectory,
    Turn,
    TurnKind,
    VersionSpan,
    session_key,
)


def trace(session: str, number: int = 0, **fields: Any) -> Trace:
    """Turn `number` of a session: its messages are a question and what was said before it."""
    said = [{"role": "user", "content": f"{session} asks {n}"} for n in range(number + 1)]
    values: dict[str, Any] = {
        "trace_id": f"{session_key(session)}-{number}", "session_id": session, "tenant": "acme", "user": "u",
        "assignment": Assignment(), "engine_id": "e", "kind": TurnKind.MAIN, "endpoint": "/v1/chat/completions",
        "model": "m", "request": {"messages": said, "max_tokens": 100, "stream": True, "n": 2, "top_p": 0.5},
        "reply_text": "r", "streamed": True, "status": 200, "prompt_token_ids": (1, 2), "token_ids": (3,),
        "logprobs": (-1.0,), "spans": (VersionSpan(version=0, start=0, end=1),), "sampling": {},
        "finish_reason": "stop", "started_at": 0.0, "finished_at": 1.0,
    }  # fmt: skip
    return Trace.model_validate(values | fields)


def turn(of: Trace, offset: int | None = 0, **fields: Any) -> Turn:
    values: dict[str, Any] = {
        "trace_id": of.trace_id, "offset": offset, "kind": of.kind, "context": "", "reply": "r", "followup": None,
        "finish_reason": "stop", "status": of.status, "num_tokens": 1, "versions": (0,), "at": 1.0,
    }  # fmt: skip
    return Turn.model_validate(values | fields)


def trajectory(session: str, *turns: Turn, **fields: Any) -> Trajectory:
    """A held-out session of a user `u-<session>`; of one turn where none is given."""
    values: dict[str, Any] = {
        "trajectory_id": f"j-{session}", "partition": 0, "session_id": session, "tenant": "acme",
        "user": f"u-{session}", "assignment": Assignment(), "held_out": True, "closed": CloseReason.INACTIVE,
        "opened_at": 0.0, "closed_at": 2.0, "turns": turns or (turn(trace(session)),), "chains": (), "feedback": (),
    }  # fmt: skip
    return Trajectory.model_validate(values | fields)


def hold_out(log: InMemoryLog, session: str, num_turns: int = 1, **fields: Any) -> list[Trace]:
    """A held-out session with its traces on the log, each but the first cut by the one before; whole as returned."""
    whole, turns, partition = [trace(session, n) for n in range(num_turns)], [], 0
    before: tuple[prefixes.Outline, str] | None = None
    for one in whole:
        outline, stored = prefixes.Outline.of(one), one
        if before is not None:
            stored = prefixes.cut(one, outline, before[0], before[1], before[0].num_tokens_in(outline.prompt))
        receipt = reader.send(log, topics.TRACES, session_key(session), stored)
        partition = receipt.partition
        turns.append(turn(one, receipt.offset))
        before = outline, prefixes.digest(encode(stored)[0])
    made = trajectory(session, *turns, partition=partition, **fields)
    reader.send(log, topics.TRAJECTORIES, session_key(session), made)
    return whole


def reward(
    replay_of: str, arm: Arm, trace_id: str, value: float | None = None, version: int | None = None,
    guardrails: Mapping[str, float] | None = None, revision: int = 1, trial: int = 1,
) -> Reward:  # fmt: skip
    """What a replay was worth; `value` none: nothing scored it."""
    version = (1 if arm is Arm.CANDIDATE else 0) if version is None else version
    part = Component(
        name="thumb", scorer="feedback@1", trace_id=trace_id, value=value,
        unscored=None if value is not None else "no feedback",
    )  # fmt: skip
    return Reward(
        reward_id=f"r-{trace_id}-{revision}", trajectory_id=f"j-{trace_id}", revision=revision, session_id="replay-1",
        tenant="acme", assignment=Assignment(arm=arm, trial=trial, propensity=0.5, replay_of=replay_of),
        held_out=True, opened_at=0.0, trace_ids=(trace_id,), versions=(version,), spec="x@1", components=(part,),
        turns=(), value=0.5 if value is None else value, has_signal=value is not None,
        guardrails=dict(guardrails or {}), source=Source(partition=0, offset=0), at=0.0,
    )  # fmt: skip
