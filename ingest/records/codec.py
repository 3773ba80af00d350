"""Records to and from the bytes and headers of a log message."""

from pydantic import ValidationError

from infra.errors import ErasedError, RecordError
from ingest.records.events import AnyRecord, Headers, Record

SCHEMA_HEADER = "schema"
SEALED_HEADER = "sealed"  # the key a value is sealed under, `<subject>/<generation>`: see `ingest.privacy.sealed_log`
ERASED_HEADER = "erased"  # the subject whose key was gone
_MAX_DIGITS = 9  # of a version; Python refuses to read numbers of thousands of digits, with an error of its own


def encode(record: Record) -> tuple[bytes, Headers]:
    """A record's value, compact JSON, and the header that names its schema and version."""
    schema = {SCHEMA_HEADER: f"{record.SCHEMA}/{record.VERSION}"}
    return record.model_dump_json().encode(), schema


def decode(value: bytes, headers: Headers, kind: type[AnyRecord]) -> AnyRecord:
    """The record in a message.

    Raises:
        ErasedError: it was sealed, and its subject has been erased since.
        RecordError: still sealed, another schema, a version newer than this reader, or bytes that do not validate.
    """
    if ERASED_HEADER in headers:
        raise ErasedError(f"{headers.get(SCHEMA_HEADER)}: {headers[ERASED_HEADER]} was erased")
    if SEALED_HEADER in headers:
        raise RecordError(f"{headers.get(SCHEMA_HEADER)}: sealed under {headers[SEALED_HEADER]}, and did not open")
    name, _, version = headers.get(SCHEMA_HEADER, "").partition("/")
    if name != kind.SCHEMA or not version.isdecimal() or len(version) > _MAX_DIGITS:
        raise RecordError(f"expected schema {kind.SCHEMA}/1..{kind.VERSION}, got {headers.get(SCHEMA_HEADER)!r}")
    if not 1 <= int(version) <= kind.VERSION:
        raise RecordError(f"{name}: this reader knows versions 1..{kind.VERSION}, got {version}; upgrade the reader")
    try:
        return kind.model_validate_json(value)
    except ValidationError as exc:
        first = exc.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "record"
        raise RecordError(f"{name}/{version}: {where}: {first['msg']}") from exc
