"""Walking through a chat request: which of its strings are text, and which are JSON or data inside a string."""

import json
import re
from collections.abc import Callable
from typing import Any

Redact = Callable[[str, str], str]
"""A text and the name of the field that it is the value of -> the text, redacted."""
_DATA_URL = re.compile(r"data:[\w.+\-]+/[\w.+\-]+(?:;[\w\-]+=[^;,\s]{1,100})*;base64,(?=[A-Za-z0-9+/=_\-\s%])")
_BLOB = re.compile(r"[A-Za-z0-9+/_\-]{512,}={0,2}\s*")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*+)"(\s*:)?', re.DOTALL)
_OPENING = frozenset("{[")


def texts(value: Any, redact: Redact, name: str = "") -> Any:
    """`value` with every text redacted: a new value where one changed. Keys, numbers, truth values and null stay.

    A string that is a JSON object or list (a tool call's arguments, a tool's result) is redacted string by string and
    is otherwise the same to the character, so that it stays JSON.
    """
    match value:
        case str():
            return _string(value, redact, name)
        case dict():
            return {key: texts(part, redact, str(key)) for key, part in value.items()}
        case list() | tuple():
            return [texts(part, redact, name) for part in value]
    return value


def data_payload(text: str) -> tuple[int, str] | None:
    """Where the bytes in a `data:` URL or a long base64 string begin, and these; none: the text is neither."""
    if text.startswith("data:") and (head := _DATA_URL.match(text)):
        return head.end(), text[head.end() :]
    return (0, text) if len(text) >= 512 and _BLOB.fullmatch(text) else None


def _string(text: str, redact: Redact, name: str) -> str:
    if _is_json(text):
        return _inside(text, redact)
    redacted = redact(text, name)
    return _inside(redacted, redact) if redacted != text and _is_json(redacted) else redacted


def _is_json(text: str) -> bool:
    if text.lstrip()[:1] not in _OPENING:
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _inside(text: str, redact: Redact) -> str:
    """Valid JSON text with its strings redacted; names stay, and tell of the values after them."""
    name = ""

    def replace(found: re.Match[str]) -> str:
        nonlocal name
        if found[2]:
            name = str(json.loads(f'"{found[1]}"', strict=False))
            return found[0]
        before = str(json.loads(f'"{found[1]}"', strict=False))
        after = _string(before, redact, name)
        return found[0] if after == before else json.dumps(after, ensure_ascii=False)

    return _STRING.sub(replace, text)
