"""What a subject's folder of keys says, and the bytes of a key file. Values only; `KeyStore` does the reading.

A folder holds, by name:

    <number>-<id>.key            a data key, wrapped. `<number>-<id>` is its generation; the id is random
    <number>-<id>.key.<x>.part   one that is being written, or whose writer was killed
    <number>.erased              the tombstone: generations of this number and below are void, whatever lies there

The id is what makes this right on stores that can only put, list and delete, where no two writers can be sure to
agree: if two make a key at the same time there are two generations, a record names the one it was sealed under, and
both stay readable. The smallest is the one to seal under, so that all agree once they have seen each other's.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from infra.errors import RecordError
from ingest.privacy.secret import Secret

KEY_BYTES = 32
NONCE_BYTES = 12
_SUBJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_GENERATION = re.compile(r"([1-9][0-9]{0,8})-[0-9a-f]{16}")
_KEY_FILE = re.compile(r"((?P<number>[0-9]{1,9})-[0-9a-f]{16})\.key(?P<part>\.[0-9a-f]+\.part)?")
_TOMBSTONE = re.compile(r"([0-9]{1,9})\.erased")


@dataclass(frozen=True)
class DataKey:
    """One generation of a subject's key: 256 bits that never leave this process but wrapped."""

    subject: str
    generation: str
    secret: bytes = field(repr=False)

    @cached_property
    def cipher(self) -> AESGCM:
        """Made once: it costs several times a short record's sealing."""
        return AESGCM(self.secret)

    @property
    def name(self) -> str:
        """`<subject>/<generation>`, as headers have it."""
        return f"{self.subject}/{self.generation}"


@dataclass(frozen=True)
class Generations:
    """A subject's folder. `erased` is the highest tombstone's number, 0 for none; `live` are the generations above
    it, the one to seal under first; `parts` and `void` are names of files: unfinished above it, and all below it."""

    erased: int
    live: tuple[str, ...]
    parts: tuple[str, ...]
    void: tuple[str, ...]

    @property
    def newest(self) -> int:
        """The highest number of a key, live or unfinished; `erased` where there is none above it."""
        files = [*self.live, *self.parts]
        return max((number(name) for name in files), default=self.erased)

    def next(self, key_id: str) -> str:
        """The generation of a subject's first key, or of its first since it was erased."""
        return f"{self.erased + 1}-{key_id}"

    def covers(self, generation: str) -> bool:
        """It was erased, and is so for good."""
        return number(generation) <= self.erased


def look(names: Iterable[str]) -> Generations:
    """What the files of these names say; other names say nothing."""
    names = set(names)
    erased = max((int(match[1]) for name in names if (match := _TOMBSTONE.fullmatch(name))), default=0)
    live, parts, void = [], [], []
    for match in filter(None, map(_KEY_FILE.fullmatch, names)):
        if int(match["number"]) <= erased:
            void.append(match[0])
        elif match["part"]:
            parts.append(match[0])
        else:
            live.append(match[1])
    live.sort(key=lambda generation: (number(generation), generation))
    return Generations(erased, tuple(live), tuple(sorted(parts)), tuple(sorted(void)))


def number(generation: str) -> int:
    """The number that a generation, or the name of its file, begins with."""
    return int(generation.partition("-")[0])


def file_of(generation: str) -> str:
    return f"{generation}.key"


def tombstone(newest: int) -> str:
    return f"{newest}.erased"


def check_subject(subject: str) -> None:
    """Raises `RecordError` for what cannot be a subject: it becomes a folder's name and part of a header."""
    if not _SUBJECT.fullmatch(subject):
        rule = "a subject is 1 to 128 letters, digits and `._:-`, the first a letter or digit"
        raise RecordError(f"{rule}, got {subject[:200]!r}")


def split(name: str) -> tuple[str, str]:
    """Subject and generation of `<subject>/<generation>`; the generation is "" where there is no slash.

    Raises:
        RecordError: one of them cannot be such.
    """
    subject, slash, generation = name.partition("/")
    check_subject(subject)
    if slash and not _GENERATION.fullmatch(generation):
        raise RecordError(f"a key is named <subject>/<number>-<16 hex digits>, got {name[:200]!r}")
    return subject, generation


def wrap(data: bytes, name: str, secret: Secret) -> bytes:
    """`data` under the newest wrapping key, bound to `name`: a file moved to another name does not open."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(secret.wrapping[0]).encrypt(nonce, data, name.encode())


def unwrap(wrapped: bytes, name: str, secret: Secret) -> tuple[bytes, bool]:
    """What was wrapped, and whether under the newest wrapping key.

    Raises:
        RecordError: it opens under none of the secret's keys.
    """
    nonce, sealed = wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:]
    for place, key in enumerate(secret.wrapping):
        try:
            return AESGCM(key).decrypt(nonce, sealed, name.encode()), place == 0
        except (InvalidTag, ValueError):  # ValueError: too short to be anything
            continue
    raise RecordError(f"key {name}: does not open: damaged, or wrapped under another secret")
