"""Records to and from the bytes and headers of a log message.

A value is compact JSON; from `_WORTH_BYTES` on it is compressed, and begins with zstd's magic number, which no JSON
does. That is done here and not left to the producer: a record is as small in a spool, under a key, and on the wire.
The frame names the dictionary it was compressed with. One without, as large values have, and all that was written
before there were any, is read as well.
"""

import threading
from collections.abc import Callable
from typing import TypeVar

import zstandard
from pydantic import BaseModel, ValidationError

from infra.errors import ErasedError, NewerError, RecordError
from ingest.records import dictionaries
from ingest.records.events import AnyRecord, Headers, Record

SCHEMA_HEADER = "schema"
SUBJECT_HEADER = "subject"  # whom a value is about: it is sealed under their key before it is written
SEALED_HEADER = "sealed"  # the key a value is sealed under, `<subject>/<generation>`: see `ingest.privacy.sealed_log`
ERASED_HEADER = "erased"  # the subject whose key was gone
LEVEL = 1  # of zstd: level 3 takes half as long again for a fiftieth of the bytes
_WORTH_BYTES = 64  # no record is smaller; the frame itself takes 12
_LARGE_BYTES = 16 << 10  # from here on a dictionary saves a twentieth, and takes as long again
_MAX_PLAIN_BYTES = 256 << 20  # a record that unfolds to more is no record: it must not fill the memory
_MAGIC = b"\x28\xb5\x2f\xfd"
UNUSABLE = "unusable"  # header of a message whose value cannot be had any more, although it lies on the log; says why
Part = TypeVar("Part", bound=BaseModel)
Read = TypeVar("Read")
_MAX_DIGITS = 9  # of a version; Python refuses to read numbers of thousands of digits, with an error of its own


class _Zstd(threading.local):
    """zstd's contexts, which serve one thread at a time."""

    def __init__(self) -> None:
        known = dictionaries.load()
        newest = known[dictionaries.NUMBERS[-1]]
        self.compressor = zstandard.ZstdCompressor(level=LEVEL, dict_data=newest)
        self.compressor_of_large = zstandard.ZstdCompressor(level=LEVEL)
        self.decompressors = {0: zstandard.ZstdDecompressor()}
        self.decompressors |= {number: zstandard.ZstdDecompressor(dict_data=one) for number, one in known.items()}


_zstd = _Zstd()


def encode(record: Record) -> tuple[bytes, Headers]:
    """A record's value, and the header that names its schema and version."""
    schema = {SCHEMA_HEADER: f"{record.SCHEMA}/{record.VERSION}"}
    return packed(record.__pydantic_serializer__.to_json(record)), schema


def packed(value: bytes) -> bytes:
    """JSON as a value holds it: compressed where that is worth it."""
    if len(value) < _WORTH_BYTES:
        return value
    return (_zstd.compressor if len(value) < _LARGE_BYTES else _zstd.compressor_of_large).compress(value)


def plain(value: bytes) -> bytes:
    """A value's JSON.

    Raises:
        NewerError: it is compressed with a dictionary that this reader does not have.
        RecordError: it is compressed, and damaged or larger than any record.
    """
    if not value.startswith(_MAGIC):
        return value
    try:
        frame = zstandard.get_frame_parameters(value)
        if frame.content_size > _MAX_PLAIN_BYTES:
            raise RecordError(f"a compressed record may unfold to {_MAX_PLAIN_BYTES} bytes, got {frame.content_size}")
        decompressor = _zstd.decompressors.get(frame.dict_id)
        if decompressor is None:
            known = ", ".join(map(str, dictionaries.NUMBERS))
            told = f"compressed with dictionary {frame.dict_id}, this reader knows {known}; upgrade the reader"
            raise NewerError(told)
        return decompressor.decompress(value)
    except zstandard.ZstdError as exc:
        raise RecordError(f"a compressed record cannot be unfolded: {exc}") from exc


def decode(value: bytes, headers: Headers, kind: type[AnyRecord]) -> AnyRecord:
    """The record in a message.

    Raises:
        ErasedError: it was sealed, and its subject has been erased since.
        NewerError: a version, or a dictionary, newer than this reader.
        RecordError: still sealed, another schema, no version there ever was, bytes that do not validate, or none to be
            had.
    """
    return decode_part(value, headers, kind, kind)


def decode_part(value: bytes, headers: Headers, kind: type[Record], part: type[Part]) -> Part:
    """Of the record in a message, what `part` has fields for. Raises as `decode` does; what `part` leaves out is not
    validated."""
    return decode_by(value, headers, kind, part.model_validate_json)


def decode_by(value: bytes, headers: Headers, kind: type[Record], read: Callable[[bytes], Read]) -> Read:
    """What `read` makes of the JSON of the record in a message. Raises as `decode` does."""
    if ERASED_HEADER in headers:
        raise ErasedError(f"{headers.get(SCHEMA_HEADER)}: {headers[ERASED_HEADER]} was erased")
    if SEALED_HEADER in headers:
        raise RecordError(f"{headers.get(SCHEMA_HEADER)}: sealed under {headers[SEALED_HEADER]}, and did not open")
    if UNUSABLE in headers:
        raise RecordError(headers[UNUSABLE])
    name, _, version = headers.get(SCHEMA_HEADER, "").partition("/")
    if name != kind.SCHEMA or not version.isdecimal() or len(version) > _MAX_DIGITS:
        raise RecordError(f"expected schema {kind.SCHEMA}/1..{kind.VERSION}, got {headers.get(SCHEMA_HEADER)!r}")
    if int(version) > kind.VERSION:
        raise NewerError(f"{name}: this reader knows versions 1..{kind.VERSION}, got {version}; upgrade the reader")
    if int(version) < 1:
        raise RecordError(f"{name}: versions begin at 1, got {version}")
    try:
        return read(plain(value))
    except ValidationError as exc:
        first = exc.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "record"
        raise RecordError(f"{name}/{version}: {where}: {first['msg']}") from exc
