"""Records to and from the bytes and headers of a log message.

A value is compact JSON; from `_WORTH_BYTES` on it is compressed, and begins with zstd's magic number, which no JSON
does. That is done here and not left to the producer: a record is as small in a spool, under a key, and on the wire.
"""

import threading

import zstandard
from pydantic import ValidationError

from infra.errors import ErasedError, NewerError, RecordError
from ingest.records.events import AnyRecord, Headers, Record

SCHEMA_HEADER = "schema"
SEALED_HEADER = "sealed"  # the key a value is sealed under, `<subject>/<generation>`: see `ingest.privacy.sealed_log`
ERASED_HEADER = "erased"  # the subject whose key was gone
_WORTH_BYTES = 256
_LEVEL = 1  # of zstd: level 3 takes twice the time for a fiftieth of the bytes
_MAX_PLAIN_BYTES = 256 << 20  # a record that unfolds to more is no record: it must not fill the memory
_MAGIC = b"\x28\xb5\x2f\xfd"
UNUSABLE = "unusable"  # header of a message whose value cannot be had any more, although it lies on the log; says why
_MAX_DIGITS = 9  # of a version; Python refuses to read numbers of thousands of digits, with an error of its own


class _Zstd(threading.local):
    """zstd's contexts, which serve one thread at a time."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=_LEVEL)
        self.decompressor = zstandard.ZstdDecompressor()


_zstd = _Zstd()


def encode(record: Record) -> tuple[bytes, Headers]:
    """A record's value, and the header that names its schema and version."""
    schema = {SCHEMA_HEADER: f"{record.SCHEMA}/{record.VERSION}"}
    value = record.model_dump_json().encode()
    return (_zstd.compressor.compress(value) if len(value) >= _WORTH_BYTES else value), schema


def plain(value: bytes) -> bytes:
    """A value's JSON.

    Raises:
        RecordError: it is compressed, and damaged or larger than any record.
    """
    if not value.startswith(_MAGIC):
        return value
    try:
        num_bytes = zstandard.frame_content_size(value)
        if not 0 <= num_bytes <= _MAX_PLAIN_BYTES:
            raise RecordError(f"a compressed record may unfold to {_MAX_PLAIN_BYTES} bytes, got {num_bytes}")
        return _zstd.decompressor.decompress(value)
    except zstandard.ZstdError as exc:
        raise RecordError(f"a compressed record cannot be unfolded: {exc}") from exc


def decode(value: bytes, headers: Headers, kind: type[AnyRecord]) -> AnyRecord:
    """The record in a message.

    Raises:
        ErasedError: it was sealed, and its subject has been erased since.
        NewerError: a version newer than this reader.
        RecordError: still sealed, another schema, no version there ever was, bytes that do not validate, or none to be
            had.
    """
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
        return kind.model_validate_json(plain(value))
    except ValidationError as exc:
        first = exc.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "record"
        raise RecordError(f"{name}/{version}: {where}: {first['msg']}") from exc
