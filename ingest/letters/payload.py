"""What is in a letter, as far as it can be read: its form for everyone, its content only for who asks for it."""

import json
from collections.abc import Iterator
from typing import Any

from infra.errors import RecordError
from ingest.records import codec

_HEX_BYTES = 256
_ROW_BYTES = 16
_MAX_FIELDS = 40


def form(value: bytes) -> Iterator[str]:
    """What the payload is made of, without what users typed: fields with their types and sizes, and ids."""
    held = _parsed(value)
    if isinstance(held, str):
        yield f"{len(value):,} bytes, {held}"
        return
    yield f"{len(codec.plain(value)):,} bytes of JSON"
    if not isinstance(held[0], dict):
        yield f"  {_kind(held[0])}"
        return
    for name, item in list(held[0].items())[:_MAX_FIELDS]:
        is_id = name.endswith("_id") and isinstance(item, str) and len(item) <= 100
        yield f"  {name:.60}: {item if is_id else _kind(item)}"
    if len(held[0]) > _MAX_FIELDS:
        yield f"  and {len(held[0]) - _MAX_FIELDS} fields more"


def content(value: bytes) -> Iterator[str]:
    """The payload itself: JSON with an indent, else the first bytes in hexadecimal."""
    held = _parsed(value)
    if not isinstance(held, str):
        yield from json.dumps(held[0], indent=2, ensure_ascii=False).splitlines()
        return
    yield f"{len(value):,} bytes, {held}"
    for start in range(0, min(len(value), _HEX_BYTES), _ROW_BYTES):
        row = value[start : start + _ROW_BYTES]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        yield f"{start:06x}  {row.hex(' '):<{3 * _ROW_BYTES}} {text}"
    if len(value) > _HEX_BYTES:
        yield f"and {len(value) - _HEX_BYTES:,} bytes more"


def _parsed(value: bytes) -> tuple[Any] | str:
    """The JSON value, unfolded where it is compressed, or what it is instead."""
    try:
        return (json.loads(codec.plain(value).decode()),)
    except RecordError as exc:
        return str(exc)
    except UnicodeDecodeError as exc:
        return f"no text: byte {exc.start} is no UTF-8"
    except json.JSONDecodeError as exc:
        return f"text, and no JSON: {exc.msg} at character {exc.pos}"
    except (ValueError, RecursionError):
        return "text, and no JSON that is worth reading"


def _kind(item: Any) -> str:
    match item:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return f"text of {len(item):,} characters"
        case list():
            return f"a list of {len(item):,}"
        case _:
            return f"an object of {len(item):,} fields"
