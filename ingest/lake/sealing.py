"""The lake's contents under the keys of whom they are about: the same keys that their records were sealed under.

A row's `subject` is what its message said, `<subject>/<generation>` and spaces between where it is several; its
`key_generation` says that it is sealed. Erasing any of them makes the row's content none, also in files written before.
"""

from infra.errors import ErasedError
from ingest.privacy.sealed_log import Keyring, sealed, unsealed
from ingest.records.codec import ERASED_HEADER, SCHEMA_HEADER, SEALED_HEADER, SUBJECT_HEADER

_SCHEMA = {SCHEMA_HEADER: "lake/1"}  # bound to each content, so that it is no record of a topic


class Keys:
    """A `Sealer` by a keyring. A content that is about nobody named is left readable, as its record is."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def seal(self, subject: str, data: bytes) -> tuple[str, bytes]:
        """The keys it is sealed under, and the bytes; none of them, where one was erased meanwhile."""
        if not subject:
            return "", data
        try:
            value, headers = sealed(data, _SCHEMA | {SUBJECT_HEADER: subject}, self._keyring)
        except ErasedError:
            return subject, b""
        return headers[SEALED_HEADER], value

    def unseal(self, _subject: str, generation: str, data: bytes) -> bytes | None:
        """What was sealed, or none where a key is gone. Raises `RecordError`, `StoreError`."""
        if not generation:
            return data
        value, headers = unsealed(data, _SCHEMA | {SEALED_HEADER: generation}, self._keyring) if data else (b"", {})
        return None if not data or ERASED_HEADER in headers else value
