"""The content of a row: what users and models wrote, and the tokens of it, as one sealed value.

Packed, a content is `<length of the JSON> <JSON> <ids of context tokens> <ids of reply tokens> <logprobs>`, compressed
by zstd. Numbers lie byte plane after byte plane, as `ingest.records.packing` has them. Nothing is shared between
rows, no dictionary either: what is sealed under one subject's key must not be found out from another's.

A `Sealer` holds the keys. A row whose key is gone is *erased*: its metadata stands, its content is none.
"""

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import zstandard

from infra.errors import LakeError
from ingest.records.packing import Logprobs, TokenIds, planes_of, words_of

_LEVEL = 3
_HEAD = struct.Struct("<III")  # bytes of JSON, context tokens, reply tokens


class Sealer(Protocol):
    """Seals bytes under a subject's key. Subjects whose key was erased cannot be unsealed by anyone again."""

    def seal(self, subject: str, data: bytes) -> tuple[str, bytes]:
        """The generation of the key that was taken, and the sealed bytes."""

    def unseal(self, subject: str, generation: str, data: bytes) -> bytes | None:
        """What was sealed, or none where the key is gone."""


class NoSeal:
    """Leaves everything readable. An empty generation marks what was never sealed."""

    def seal(self, _subject: str, data: bytes) -> tuple[str, bytes]:
        return "", data

    def unseal(self, _subject: str, _generation: str, data: bytes) -> bytes | None:
        return data


class OnDemand:
    """The sealer that `make` makes, when it is asked first: what opens no content needs no keys."""

    def __init__(self, make: Callable[[], Sealer]) -> None:
        self._make = make

    @cached_property
    def _made(self) -> Sealer:
        return self._make()

    def seal(self, subject: str, data: bytes) -> tuple[str, bytes]:
        return self._made.seal(subject, data)

    def unseal(self, subject: str, generation: str, data: bytes) -> bytes | None:
        return self._made.unseal(subject, generation, data)


@dataclass(frozen=True)
class Content:
    """`text` is anything JSON has. `context_ids` are the tokens of a turn's own that stand before its reply;
    `logprobs[i]`, in nats and float32, is of `reply_ids[i]`."""

    text: Mapping[str, Any]
    context_ids: TokenIds = field(default_factory=TokenIds)
    reply_ids: TokenIds = field(default_factory=TokenIds)
    logprobs: Logprobs = field(default_factory=Logprobs)


class Vault:
    """Packs and seals contents, and the other way."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL)
        self._decompressor = zstandard.ZstdDecompressor()

    def put(self, subject: str, content: Content) -> dict[str, Any]:
        """The columns `subject`, `key_generation` and `content` of a row."""
        generation, data = self._sealer.seal(subject, self._compressor.compress(pack(content)))
        return {"subject": subject, "key_generation": generation, "content": data}

    def get(self, subject: str, generation: str, data: bytes) -> Content | None:
        """A row's content; none where it is erased. Raises `LakeError` where it is no content."""
        opened = self._sealer.unseal(subject, generation, data)
        if opened is None:
            return None
        try:
            return unpack(self._decompressor.decompress(opened))
        except (zstandard.ZstdError, struct.error, ValueError) as exc:
            raise LakeError(f"lake: content of subject {subject!r}: not readable: {exc}") from exc


def pack(content: Content) -> bytes:
    """A content as bytes, not compressed."""
    text = json.dumps(content.text, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    head = _HEAD.pack(len(text), len(content.context_ids), len(content.reply_ids))
    ids = TokenIds.of(content.context_ids) + content.reply_ids
    words = ids.words, Logprobs.of(content.logprobs).words
    return b"".join([head, text, *map(planes_of, words)])


def unpack(data: bytes) -> Content:
    """What `pack` was given. Raises `ValueError` or `struct.error` for other bytes."""
    num_text, num_context, num_reply = _HEAD.unpack_from(data)
    begin = _HEAD.size + num_text
    middle = begin + 4 * (num_context + num_reply)
    text = json.loads(data[_HEAD.size : begin].decode("utf-8", "surrogatepass"))
    ids, probs = TokenIds.of_words(words_of(data[begin:middle])), Logprobs.of_words(words_of(data[middle:]))
    return Content(text, ids[:num_context], ids[num_context:], probs)
