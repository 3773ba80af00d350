"""The master secret: where it comes from, and the sub-keys it is only ever used through.

Its text is one line or more, each 64 hex digits. The first line names users and writes redaction's placeholders, and
must stay for as long as anything it named. The other lines wrap data keys: the newest first, and after it those whose
keys `KeyStore.rewrap` has yet to take over. With one line, it wraps too, and can never be replaced.

A secret that is made here is written in this order:

    1. part   secret.<random>.part, mode 0600, whole and synced    a crash leaves a stray that nobody reads
    2. link   secret: only where there is none                     of several makers one wins, and all read it
"""

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from infra.config import Config, PrivacyConfig
from infra.errors import ConfigError
from ingest.privacy.durable import sync

FILE_NAME = "secret"
_BYTES = 32
_RULE = "must hold a line, or lines, of 64 hex digits (`openssl rand -hex 32` writes one)"


@dataclass(frozen=True)
class Secret:
    """Sub-keys of 32 bytes. None of them tells another, or the master secret.

    `wrapping` are the keys that data keys may be wrapped under; new ones go under the first. `fingerprint` tells one
    master secret from another and nothing more: it may be shown.
    """

    pseudonyms: bytes = field(repr=False)
    placeholders: bytes = field(repr=False)
    wrapping: tuple[bytes, ...] = field(repr=False)
    fingerprint: str

    @classmethod
    def parse(cls, text: str, source: str) -> "Secret":
        """The secret that `text` spells; `source` says in errors where it was read.

        Raises:
            ConfigError: it is not lines of 64 hex digits. The message does not repeat it.
        """
        lines = text.split()
        for number, line in enumerate(lines, 1):
            if len(line) != 2 * _BYTES or not set(line) <= set("0123456789abcdefABCDEF"):
                raise ConfigError(f"{source}: {_RULE}, got line {number} of {len(line)} characters")
        if not lines:
            raise ConfigError(f"{source}: {_RULE}, got nothing")
        naming, *wrapping = (bytes.fromhex(line) for line in lines)
        return cls(
            pseudonyms=_derived(naming, b"pseudonyms"),
            placeholders=_derived(naming, b"placeholders"),
            wrapping=tuple(_derived(word, b"wrapping") for word in wrapping or (naming,)),
            fingerprint=_derived(naming, b"fingerprint").hex()[:16],
        )


def _derived(master: bytes, use: bytes) -> bytes:
    """HKDF-SHA256 (RFC 5869) without salt: the master secret is uniformly random."""
    return HKDF(SHA256(), _BYTES, salt=None, info=b"onstream/" + use).derive(master)


def check(config: Config) -> None:
    """A check of `onstream check`: the secret can be read, and is one where the keys are. Raises `ConfigError`."""
    privacy = config.privacy
    if privacy.secret_file or privacy.secret_env:
        load(privacy, config.run_dir)
    elif "://" in privacy.keys_url and not privacy.keys_url.startswith("file://"):
        raise ConfigError(
            f"privacy.secret_file or secret_env: must be given where keys are shared, at {privacy.keys_url}; "
            "each machine would make a secret of its own, and could not read the others' keys"
        )


def load(config: PrivacyConfig, run_dir: str, environ: Mapping[str, str] | None = None) -> Secret:
    """The secret that `config` names; where it names none, that of this machine, `<run_dir>/secret`, made once.

    Raises:
        ConfigError: the file or variable that is named is missing or does not hold a secret.
    """
    if config.secret_env:
        text = (os.environ if environ is None else environ).get(config.secret_env)
        if text is None:
            raise ConfigError(f"privacy.secret_env: environment variable {config.secret_env} is not set")
        return Secret.parse(text, f"privacy.secret_env: {config.secret_env}")
    if config.secret_file:
        return _read(Path(config.secret_file))
    file = Path(run_dir) / FILE_NAME
    if not file.exists():
        _make(file)
    return _read(file)


def _read(file: Path) -> Secret:
    try:
        text = file.read_text()
    except UnicodeDecodeError:  # its message holds the bytes
        raise ConfigError(f"privacy.secret_file: {file}: {_RULE}, got bytes that are not text") from None
    except OSError as exc:
        raise ConfigError(f"privacy.secret_file: {file}: not readable: {exc.strerror}") from exc
    return Secret.parse(text, f"privacy.secret_file: {file}")


def _make(file: Path) -> None:
    """Two lines, so that the wrapping secret can be replaced."""
    part = file.with_name(f"{file.name}.{secrets.token_hex(8)}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as handle:
            handle.write(f"{secrets.token_hex(_BYTES)}\n{secrets.token_hex(_BYTES)}\n")
            handle.flush()
            os.fsync(handle.fileno())
        try:
            os.link(part, file)
            sync(file.parent)
        except FileExistsError:
            return
        finally:
            part.unlink()
    except OSError as exc:
        raise ConfigError(f"secret {file}: could not be made: {exc.strerror}") from exc
