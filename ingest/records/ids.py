"""The ids that people and clients hold: what a completion's `id` says of its trace."""

import re

_SESSION_KEY = re.compile(r"[0-9a-f]{16}")
_TRACE_ID = re.compile(r"[0-9a-f]{16}-.+")
_COMPLETION_ID = re.compile(r"^(?:chatcmpl|cmpl|resp)[-_](?P<trace>[0-9a-f]{16}-[0-9a-f]{32})(?:-\d+)?$")


def trace_of(completion_or_trace_id: str) -> str:
    """The trace id in a completion's `id`; anything else is taken as a trace id already."""
    match = _COMPLETION_ID.match(completion_or_trace_id)
    return match["trace"] if match else completion_or_trace_id


def is_trace_id(value: str) -> bool:
    """It begins with a session's key, as every trace id does: nothing else can ever be found by it."""
    return _TRACE_ID.fullmatch(value) is not None


def is_session_key(value: str) -> bool:
    """It may be a session's: feedback about something that is no trace has another key."""
    return _SESSION_KEY.fullmatch(value) is not None
