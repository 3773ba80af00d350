"""Records to and from the bytes and headers of a log message."""

from pydantic import ValidationError

from infra.errors import NewerError, RecordError
from ingest.records.events import AnyRecord, Headers, Record

SCHEMA_HEADER = "schema"
UNUSABLE = "unusable"  # header of a message whose value cannot be had any more, although it lies on the log; says why
_MAX_DIGITS = 9  # of a version; Python refuses to read numbers of thousands of digits, with an error of its own


def encode(record: Record) -> tuple[bytes, Headers]:
    """A record's value, compact JSON, and the header that names its schema and version."""
    schema = {SCHEMA_HEADER: f"{record.SCHEMA}/{record.VERSION}"}
    return record.model_dump_json().encode(), schema


def decode(value: bytes, headers: Headers, kind: type[AnyRecord]) -> AnyRecord:
    """The record in a message.

    Raises:
        NewerError: a version newer than this reader.
        RecordError: another schema, no version there ever was, bytes that do not validate, or none to be had.
    """
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
        return kind.model_validate_json(value)
    except ValidationError as exc:
        first = exc.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "record"
        raise RecordError(f"{name}/{version}: {where}: {first['msg']}") from exc
