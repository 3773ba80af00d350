"""Which ids a message is about, said in its header `ids`: known also when its value is sealed and its key erased.

The message's key is the session key, so a trace is named by the rest of its id, behind the key and `-`. A trajectory
names its turns, and feedback itself, whose id has no key in front. Commas stand between; those within an id are
escaped.
"""

from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote

IDS_HEADER = "ids"


def ids_header(trace_ids: Iterable[str]) -> str:
    """The header of a message about these traces of one session."""
    return ",".join(_escaped(trace_id.partition("-")[2] or trace_id) for trace_id in trace_ids)


def feedback_header(feedback_id: str) -> str:
    """The header of a message of feedback."""
    return _escaped(feedback_id)


def ids_in(headers: Mapping[str, str]) -> tuple[str, ...]:
    """The ids that a message names, traces' without the session's key; none without the header."""
    return tuple(unquote(name) for name in headers.get(IDS_HEADER, "").split(",") if name)


def trace_ids_in(key: str, headers: Mapping[str, str]) -> tuple[str, ...]:
    """The ids of the traces that a message with this key names."""
    return tuple(f"{key}-{name}" for name in ids_in(headers))


def _escaped(name: str) -> str:
    return quote(name, safe="")
