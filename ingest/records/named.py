"""Which ids a message is about, said in its header `ids`: known also when its value is sealed and its key erased.

The message's key is the session key, so a trace is named by the rest of its id, behind the key and `-`. A trajectory
names its turns, and feedback itself, whose id has no key in front. Commas stand between.

Ids of 32 hex digits, as nearly all are, are written as `:` and the base64 (of URLs, without padding) of their bytes,
those that follow one another as one. Any other id is written as it is, with what is not a letter, digit or `_.-~`
escaped, a colon too; so were those of 32 hex digits once, and they are read as before.
"""

import base64
import re
from collections.abc import Iterable, Mapping
from itertools import groupby
from urllib.parse import quote, unquote

IDS_HEADER = "ids"
_MARK = ":"
_HEX = re.compile(r"[0-9a-f]{32}")
_ID_BYTES = 16


def ids_header(trace_ids: Iterable[str]) -> str:
    """The header of a message about these traces of one session."""
    return _joined(trace_id.partition("-")[2] or trace_id for trace_id in trace_ids)


def feedback_header(feedback_id: str) -> str:
    """The header of a message of feedback."""
    return _joined([feedback_id])


def ids_in(headers: Mapping[str, str]) -> tuple[str, ...]:
    """The ids that a message names, traces' without the session's key; none without the header."""
    return tuple(name for part in headers.get(IDS_HEADER, "").split(",") if part for name in _read(part))


def trace_ids_in(key: str, headers: Mapping[str, str]) -> tuple[str, ...]:
    """The ids of the traces that a message with this key names."""
    return tuple(f"{key}-{name}" for name in ids_in(headers))


def _joined(names: Iterable[str]) -> str:
    grouped = [(is_hex, list(some)) for is_hex, some in groupby(names, _is_hex)]
    return ",".join(part for is_hex, some in grouped for part in ([_packed(some)] if is_hex else map(_escaped, some)))


def _is_hex(name: str) -> bool:
    return _HEX.fullmatch(name) is not None


def _escaped(name: str) -> str:
    return quote(name, safe="")


def _packed(names: Iterable[str]) -> str:
    return _MARK + base64.urlsafe_b64encode(bytes.fromhex("".join(names))).decode().rstrip("=")


def _read(part: str) -> Iterable[str]:
    """Raises nothing: what cannot have been written here is an id as it stands."""
    data = _unpacked(part)
    places = range(0, len(data), _ID_BYTES)
    return [data[place : place + _ID_BYTES].hex() for place in places] if data else [unquote(part)]


def _unpacked(part: str) -> bytes:
    packed = part.removeprefix(_MARK)
    try:
        data = base64.urlsafe_b64decode(packed + "=" * (-len(packed) % 4)) if packed != part else b""
    except ValueError:
        return b""
    return data if len(data) % _ID_BYTES == 0 else b""
