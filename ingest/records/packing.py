"""Token ids and log-probabilities as JSON strings, exact and small.

A packed sequence is `~` and the base64 of its little-endian 32-bit words, byte plane after byte plane: all first
bytes, then all second bytes, and so on. The high bytes of token ids, and of log-probabilities, are much alike, so a
compressor finds runs there that it does not find between words. Without the `~`, as in schema versions 1 and 2, the
words lie one after the other.
"""

import base64
import struct
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer

_WORD = 4
_PLANES = "~"


def _packer(code: str) -> tuple[Any, Any]:
    def pack(values: tuple[Any, ...]) -> str:
        words = struct.pack(f"<{len(values)}{code}", *values)
        return _PLANES + base64.b64encode(planes_of(words)).decode()

    def unpack(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        data = base64.b64decode(value.removeprefix(_PLANES), validate=True)
        num, rest = divmod(len(data), _WORD)
        if rest:
            raise ValueError(f"packed numbers take {_WORD} bytes each, got {len(data)} bytes")
        return struct.unpack(f"<{num}{code}", words_of(data) if value.startswith(_PLANES) else data)

    return pack, unpack


def planes_of(words: bytes) -> bytes:
    """32-bit words byte plane after byte plane."""
    return b"".join(words[plane::_WORD] for plane in range(_WORD))


def words_of(planes: bytes) -> bytearray:
    """The words that `planes_of` was given."""
    num, words = len(planes) // _WORD, bytearray(len(planes))
    for plane in range(_WORD):
        words[plane::_WORD] = planes[plane * num : (plane + 1) * num]
    return words


_pack_ints, _unpack_ints = _packer("I")
_pack_floats, _unpack_floats = _packer("f")

TokenIds = Annotated[
    tuple[int, ...], BeforeValidator(_unpack_ints), PlainSerializer(_pack_ints, return_type=str, when_used="json")
]
Logprobs = Annotated[
    tuple[float, ...], BeforeValidator(_unpack_floats), PlainSerializer(_pack_floats, return_type=str, when_used="json")
]
