"""Token ids and log-probabilities as JSON strings, exact and small, and as sequences that stay packed.

A packed sequence is `~` and the base64 of its little-endian 32-bit words, byte plane after byte plane: all first
bytes, then all second bytes, and so on. The high bytes of token ids, and of log-probabilities, are much alike, so a
compressor finds runs there that it does not find between words. Without the `~`, as in schema versions 1 and 2, the
words lie one after the other.

Most who read a record never look at its numbers, or only compare, cut and join them: that is done on bytes.
"""

import binascii
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Self, TypeVar, overload

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

WORD_BYTES = 4
_PLANES = "~"
N = TypeVar("N", int, float)


def planes_of(words: bytes) -> bytes:
    """32-bit words byte plane after byte plane."""
    return b"".join(words[plane::WORD_BYTES] for plane in range(WORD_BYTES))


def words_of(planes: bytes) -> bytes:
    """The words that `planes_of` was given."""
    num, words = len(planes) // WORD_BYTES, bytearray(len(planes))
    words[0::4], words[1::4] = planes[:num], planes[num : 2 * num]
    words[2::4], words[3::4] = planes[2 * num : 3 * num], planes[3 * num :]
    return bytes(words)


class Packed(Sequence[N]):
    """Numbers of 32 bits each, never changed. Equal to any sequence that packs to the same.

    Raises:
        ValueError: a number does not fit.
    """

    __slots__ = ("_planes", "_words")
    __hash__ = None  # type: ignore[assignment]  # equal to tuples, whose hashes it cannot have
    _CODE: ClassVar[str]

    def __init__(self, numbers: Iterable[N] = ()) -> None:
        given = tuple(numbers)
        try:
            self._words: bytes | None = struct.pack(f"<{len(given)}{self._CODE}", *given)
        except (struct.error, OverflowError) as exc:
            raise ValueError(f"numbers of {WORD_BYTES} bytes each: {exc}") from exc
        self._planes: bytes | None = None

    @classmethod
    def of_words(cls, words: bytes) -> Self:
        """From little-endian 32-bit words."""
        made = cls.__new__(cls)
        made._words, made._planes = words, None
        return made

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """One after the other; byte planes are joined as they are, where no part was looked at yet."""
        packed = [(part._planes, len(part._planes) // WORD_BYTES) for part in parts if part._planes is not None]
        if len(packed) < len(parts):
            return cls.of_words(b"".join([part.words for part in parts]))
        made = cls.__new__(cls)
        made._words = None
        made._planes = b"".join([planes[n * num : (n + 1) * num] for n in range(WORD_BYTES) for planes, num in packed])
        return made

    @classmethod
    def parse(cls, text: str) -> Self:
        """From a string as records have it. Raises `ValueError`."""
        has_planes = text.startswith(_PLANES)
        data = binascii.a2b_base64(text[1:] if has_planes else text, strict_mode=True)
        if len(data) % WORD_BYTES:
            raise ValueError(f"packed numbers take {WORD_BYTES} bytes each, got {len(data)} bytes")
        made = cls.__new__(cls)
        made._words, made._planes = (None, data) if has_planes else (data, None)
        return made

    def text(self) -> str:
        """A string as records have it."""
        planes = planes_of(self.words) if self._planes is None else self._planes
        return _PLANES + binascii.b2a_base64(planes, newline=False).decode()

    @property
    def words(self) -> bytes:
        """Little-endian 32-bit words."""
        words = self._words
        if words is None:
            assert self._planes is not None
            words = self._words = words_of(self._planes)
            self._planes = None
        return words

    def num_common(self, other: "Packed[N]") -> int:
        """How many numbers both have in common at their head. Halves the doubt, so slices compare in C."""
        one, two = self.words, other.words
        low, high = 0, min(len(one), len(two)) // WORD_BYTES
        if one[: high * WORD_BYTES] == two[: high * WORD_BYTES]:
            return high
        while low < high:
            middle = (low + high + 1) // 2
            if one[low * WORD_BYTES : middle * WORD_BYTES] == two[low * WORD_BYTES : middle * WORD_BYTES]:
                low = middle
            else:
                high = middle - 1
        return low

    def __len__(self) -> int:
        return len(self._words or self._planes or b"") // WORD_BYTES

    @overload
    def __getitem__(self, index: int) -> N: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: int | slice) -> "N | Self":
        if isinstance(index, int):
            return tuple(self)[index]
        start, stop, step = index.indices(len(self))
        return (
            self.of_words(self.words[start * WORD_BYTES : stop * WORD_BYTES])
            if step == 1
            else type(self)(tuple(self)[index])
        )

    def __iter__(self) -> Iterator[N]:
        return iter(struct.unpack(f"<{len(self)}{self._CODE}", self.words))

    def __add__(self, other: Sequence[N]) -> Self:
        return self.of_words(self.words + self.of(other).words)

    def __radd__(self, other: Sequence[N]) -> Self:
        return self.of(other) + self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Packed | tuple | list):
            return NotImplemented
        try:
            return self.words == self.of(other).words
        except ValueError:
            return False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)})"

    @classmethod
    def of(cls, numbers: Iterable[N]) -> Self:
        """`numbers`, packed where they are not."""
        return numbers if isinstance(numbers, cls) else cls(numbers)

    @classmethod
    def _validate(cls, given: Any) -> Self:
        if isinstance(given, str):
            return cls.parse(given)
        if not isinstance(given, Packed | tuple | list):
            raise ValueError(f"numbers, or a string that packs them, got {type(given).__name__}")
        return cls.of(given)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        told = core_schema.plain_serializer_function_ser_schema(
            lambda numbers: cls.of(numbers).text(), return_schema=core_schema.str_schema(), when_used="json"
        )
        return core_schema.no_info_plain_validator_function(cls._validate, serialization=told)


class TokenIds(Packed[int]):
    """uint32 each."""

    __slots__ = ()
    _CODE = "I"


class Logprobs(Packed[float]):
    """float32 each, in nats: a number is rounded to that when it is packed."""

    __slots__ = ()
    _CODE = "f"
