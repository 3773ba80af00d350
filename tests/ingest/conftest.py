"""Records for the tests of this folder. Times are small numbers of seconds."""

from collections.abc import Callable
from typing import Any

import pytest

from ingest.log.protocol import Message
from ingest.records import codec
from ingest.records.events import Assignment, Feedback, Record, Trace, TurnKind, VersionSpan, session_key


def trace(session: str = "s", n: int = 0, at: float = 0.0, **fields: Any) -> Trace:
    """Trace `<key of session>-<n>`, begun at `at` and finished one second later.

    `prompt` and `reply` are token ids; `messages` or `request` what the client sent; the rest are `Trace`'s fields.
    """
    prompt, reply = tuple(fields.pop("prompt", (1, 2))), tuple(fields.pop("reply", (3, 4)))
    request = {"messages": fields.pop("messages", [{"role": "user", "content": f"question {n}"}])}
    values: dict[str, Any] = {
        "trace_id": f"{session_key(session)}-{n}",
        "session_id": session,
        "tenant": "default",
        "assignment": Assignment(),
        "engine_id": "stable-0",
        "kind": TurnKind.MAIN,
        "endpoint": "/v1/chat/completions",
        "model": "policy",
        "request": request,
        "reply_text": f"answer {n}",
        "streamed": False,
        "status": 200,
        "prompt_token_ids": prompt,
        "token_ids": reply,
        "logprobs": (-0.5,) * len(reply),
        "spans": (VersionSpan(version=1, start=0, end=len(reply)),) if reply else (),
        "sampling": {},
        "finish_reason": "stop",
        "started_at": at,
        "finished_at": at + 1.0,
    }
    return Trace.model_validate(values | fields)


def feedback(n: int = 0, at: float = 0.0, **fields: Any) -> Feedback:
    """Feedback `f<n>`, a thumb up; `trace_id` or `session_id` say about what."""
    return Feedback.model_validate({"feedback_id": f"f{n}", "tenant": "default", "value": 1.0, "at": at} | fields)


def message(record: Record, offset: int = 0, topic: str = "traces", partition: int = 0) -> Message:
    """`record` as it lies on the log."""
    value, headers = codec.encode(record)
    return Message(topic, partition, offset, "key", value, headers)


@pytest.fixture
def make_trace() -> Callable[..., Trace]:
    return trace


@pytest.fixture
def make_feedback() -> Callable[..., Feedback]:
    return feedback


@pytest.fixture
def make_message() -> Callable[..., Message]:
    return message
