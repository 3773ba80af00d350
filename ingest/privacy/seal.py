"""Sealing a record's value: zstd, then AES-256-GCM under its subject's data key.

    value = 0x01, nonce (12 random bytes), ciphertext with its tag of 16 bytes

Bound to it, as associated data, is what the record is: its schema header, its subject and the key's generation, NUL
between. So a sealed value opens as the same schema of the same subject or not at all, and, since no topic is part of
it, it can be moved to another topic, such as dead letters, without its key.

Nonces are drawn at random, so a key should seal no more than 2**32 records (NIST SP 800-38D, 8.3: then two nonces are
equal with a chance below 2**-32). A user does not type as many; a tenant that names no users reaches it after 50 days
at 1,000 records a second.
"""

import os
import threading

import zstandard
from cryptography.exceptions import InvalidTag

from infra.errors import RecordError
from ingest.privacy.generations import NONCE_BYTES, DataKey

_FORM = b"\x01"
_START = len(_FORM) + NONCE_BYTES
_packers = threading.local()  # one of each a thread: they are costly to make and not safe to share


def associated(schema: str, key: DataKey) -> bytes:
    """What a record is, besides its content. A subject has no NUL, so no two are the same bytes."""
    return f"{schema}\0{key.subject}\0{key.generation}".encode()


def seal(data: bytes, key: DataKey, associated: bytes) -> bytes:
    """`data` so that only `key` and `associated` give it back; 20 bytes and more are added to what zstd makes of it."""
    nonce = os.urandom(NONCE_BYTES)
    return _FORM + nonce + key.cipher.encrypt(nonce, _compressor().compress(data), associated)


def unseal(sealed: bytes, key: DataKey, associated: bytes) -> bytes:
    """What was sealed.

    Raises:
        RecordError: says whether it is no sealed value at all, or was altered, or is another record's.
    """
    if not sealed.startswith(_FORM) or len(sealed) < _START:
        raise RecordError(f"sealed under {key.name}: must begin with the form 1 and a nonce, got {len(sealed)} bytes")
    try:
        packed = key.cipher.decrypt(sealed[len(_FORM) : _START], sealed[_START:], associated)
    except InvalidTag as exc:
        raise RecordError(
            f"sealed under {key.name}: authentication failed: value, schema or subject is not what was sealed"
        ) from exc
    try:
        return _decompressor().decompress(packed)
    except zstandard.ZstdError as exc:
        raise RecordError(f"sealed under {key.name}: must be zstd inside: {exc}") from exc


def _compressor() -> zstandard.ZstdCompressor:
    if not hasattr(_packers, "compressor"):
        _packers.compressor = zstandard.ZstdCompressor()
    found: zstandard.ZstdCompressor = _packers.compressor
    return found


def _decompressor() -> zstandard.ZstdDecompressor:
    if not hasattr(_packers, "decompressor"):
        _packers.decompressor = zstandard.ZstdDecompressor()
    found: zstandard.ZstdDecompressor = _packers.decompressor
    return found
