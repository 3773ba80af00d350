"""An event log whose records of people are sealed: ciphertext wherever it is kept or copied, plain in the process.

What a record's headers say of it, each with `<subject>` or `<subject>/<generation>`, or several of them and spaces
between where it is of several people: it is sealed under each key in turn, and opens only with all of them:

    subject   to be sealed under the subject's key: the present one, or the generation that what it was made from
              was read under. On a message that was read: plain now, and was sealed under that generation
    sealed    its value is sealed under that generation. On a message that was read: it did not open
    erased    on a message that was read: its key was erased, and its value is empty

A record that is made from another's content carries on the `subject` of the message it was read from. So an erasure
reaches what was derived, also when its user has come back since and has a new generation.

A record without `subject` passes as it is.
"""

import logging
from typing import Protocol

from infra.errors import ErasedError, LogError, RecordError, StoreError
from ingest.log.protocol import EventLog, Message
from ingest.log.wrapped import WrappedLog
from ingest.privacy import generations
from ingest.privacy.generations import DataKey
from ingest.privacy.seal import associated, seal, unseal
from ingest.records.codec import ERASED_HEADER, SCHEMA_HEADER, SEALED_HEADER, SUBJECT_HEADER
from ingest.records.events import Headers

logger = logging.getLogger(__name__)


class Keyring(Protocol):
    """Where keys come from: `ingest.privacy.keys.KeyStore`."""

    def key_for(self, subject: str) -> DataKey:
        """The key to seal under now, made where there is none. Raises `RecordError`, `StoreError`."""

    def find(self, subject: str, generation: str) -> DataKey | None:
        """The key of that name; `None` when it was erased. Raises `RecordError`, `StoreError`."""


def sealed(value: bytes, headers: Headers, keyring: Keyring) -> tuple[bytes, Headers]:
    """A record as it may be written: sealed where its headers name a subject, and as it is where it was sealed before.

    Raises:
        ErasedError: it was made from what was read under a generation that is erased.
        RecordError: the headers' subject cannot be one.
        StoreError: the keys do not answer.
    """
    if SUBJECT_HEADER not in headers or SEALED_HEADER in headers:
        return value, headers
    schema, names = headers.get(SCHEMA_HEADER, ""), []
    for name in headers[SUBJECT_HEADER].split() or [""]:
        subject, generation = generations.split(name)
        key = keyring.find(subject, generation) if generation else keyring.key_for(subject)
        if key is None:
            raise ErasedError(f"{schema}: {subject} was erased; nothing more is written of it")
        value = seal(value, key, associated(schema, key))
        names.append(key.name)
    rest = {name: text for name, text in headers.items() if name != SUBJECT_HEADER}
    return value, rest | {SEALED_HEADER: " ".join(names)}


def unsealed(value: bytes, headers: Headers, keyring: Keyring) -> tuple[bytes, Headers]:
    """A record as it was before `sealed`; where its key was erased, an empty value and the header `erased`.

    Raises:
        RecordError: it does not open: altered, or its key is lost.
        StoreError: the keys do not answer.
    """
    if SEALED_HEADER not in headers:
        return value, headers
    rest = {name: text for name, text in headers.items() if name != SEALED_HEADER}
    keys = []
    for name in headers[SEALED_HEADER].split() or [""]:
        subject, generation = generations.split(name)
        key = keyring.find(subject, generation)
        if key is None:
            return b"", rest | {ERASED_HEADER: subject}
        keys.append(key)
    for key in reversed(keys):
        value = unseal(value, key, associated(headers.get(SCHEMA_HEADER, ""), key))
    return value, rest | {SUBJECT_HEADER: " ".join(key.name for key in keys)}


class SealedLog(WrappedLog):
    """`inner`, where records with a subject are sealed.

    Where the keys do not answer it raises `LogError`, as for a broker that does not: a stage waits and begins anew.
    """

    def __init__(self, inner: EventLog, keyring: Keyring) -> None:
        super().__init__(inner)
        self._keyring = keyring

    def _out(self, topic: str, key: str, value: bytes, headers: Headers) -> tuple[bytes, Headers]:
        try:
            return sealed(value, headers, self._keyring)
        except StoreError as exc:
            raise LogError(f"append to {topic}: {exc}") from exc

    def _back(self, message: Message) -> Message:
        return opened(message, self._keyring)


def opened(message: Message, keyring: Keyring) -> Message:
    """A message unsealed. One that does not open stays as it lies, so that its reader can put it aside with its bytes:
    `codec.decode` refuses it. Raises `LogError` when the keys do not answer."""
    try:
        value, headers = unsealed(message.value, message.headers, keyring)
    except StoreError as exc:
        raise LogError(f"{message.topic}/{message.partition}@{message.offset}: {exc}") from exc
    except RecordError as exc:
        logger.warning("%s/%d@%d: %s", message.topic, message.partition, message.offset, exc)
        return message
    return message._replace(value=value, headers=headers)
