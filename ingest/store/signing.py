"""Signatures of versions: who vouches for what a manifest says, and with it for every file that it lists.

A signature is what OpenSSF Model Signing writes with a key: a Sigstore bundle around a DSSE envelope around an in-toto
statement, which gives the SHA-256 of each file of the version's folder, the manifest's among them. So
`model_signing verify key` accepts a folder that was signed here, and here counts what `model_signing sign key` wrote.
Nothing asks the network. To a reader here only the manifest's digest matters: all others stand in the manifest.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BaseModel, ConfigDict
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import FormatError, UnverifiedSignatureError
from securesystemslib.signer import CryptoSigner, Signature, SSlibKey

from infra.config import Config, SigningConfig
from infra.errors import ConfigError, SignatureError

SIGNATURE = "model.sig"

_BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"
_PREDICATE = "https://model_signing/signature/v1.0"
_IGNORED = frozenset({SIGNATURE, ".git", ".gitattributes", ".github", ".gitignore"})  # the standard's own tool leaves
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)  # these out, and signs with these only


class _Part(BaseModel):
    """Of a bundle: what is read of it. Whoever can write to the store can write anything there."""

    model_config = ConfigDict(frozen=True, strict=True)


class _Signature(_Part):
    sig: str
    keyid: str = ""


class _Envelope(_Part):
    payload: str
    payloadType: str
    signatures: list[_Signature]


class _PublicKey(_Part):
    hint: str = ""


class _Material(_Part):
    publicKey: _PublicKey


class _Bundle(_Part):
    verificationMaterial: _Material
    dsseEnvelope: _Envelope


class SignatureState(StrEnum):
    """What is known of a version's signature."""

    VALID = "valid"
    INVALID = "invalid"
    UNSIGNED = "unsigned"
    UNCHECKED = "unchecked"  # there is one, and no public key to check it with


@dataclass(frozen=True)
class Signed:
    """A version's signature: `key` is the id of the key that it names, `told` a sentence for people."""

    state: SignatureState
    key: str
    told: str


class Signer:
    """Signs with one private key. Its id is the SHA-256 of its public key's PEM file, in hex."""

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._signer = CryptoSigner(key, _known(key.public_key()))

    @classmethod
    def of(cls, config: SigningConfig, environ: Mapping[str, str] | None = None) -> "Signer | None":
        """The one that `config` names; `None` where it names none.

        Raises:
            ConfigError: the key cannot be read, or nothing is to be signed although a signature is required.
        """
        if config.key_env:
            source, text = f"store.signing.key_env: {config.key_env}", _variable(config.key_env, environ)
        elif config.key_file:
            source, text = f"store.signing.key_file: {config.key_file}", _bytes(config.key_file, "key_file")
        elif config.required:
            raise ConfigError("store.signing: required, and neither `key_file` nor `key_env` says what to sign with")
        else:
            return None
        try:
            key = serialization.load_pem_private_key(text, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):  # their messages may hold what was read
            raise ConfigError(f"{source}: must be a private key as PEM, without a passphrase") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, _CURVES):
            raise ConfigError(f"{source}: must be an elliptic key on P-256, P-384 or P-521")
        return cls(key)

    @property
    def key(self) -> str:
        """The id of the key."""
        return self.public_key.keyid

    @property
    def public_key(self) -> SSlibKey:
        """Its public half, as `Trust` takes it."""
        return self._signer.public_key

    def sign(self, name: str, digests: Mapping[str, str]) -> bytes:
        """The signature of a folder called `name`, of files with these SHA-256 digests."""
        payload = json.dumps(_statement(name, digests), indent=1).encode()
        envelope = Envelope(payload, _PAYLOAD, {})
        envelope.sign(self._signer)
        bundle = {
            "mediaType": _BUNDLE,
            "verificationMaterial": {"publicKey": {"hint": self.key}, "tlogEntries": []},
            "dsseEnvelope": envelope.to_dict(),
        }
        return json.dumps(bundle).encode()


class Trust:
    """The public keys whose signatures count."""

    def __init__(self, keys: tuple[SSlibKey, ...] = ()) -> None:
        self._keys = keys

    @classmethod
    def of(cls, config: SigningConfig) -> "Trust":
        """Those of `public_key_files`. Raises `ConfigError`."""
        return cls(tuple(_public_key(file) for file in config.public_key_files))

    @property
    def keys(self) -> tuple[str, ...]:
        """Their ids."""
        return tuple(key.keyid for key in self._keys)

    def look(self, signature: bytes | None, name: str, data: bytes) -> Signed:
        """Whether `signature` is that of a folder whose file `name` holds `data`."""
        if signature is None:
            return Signed(SignatureState.UNSIGNED, "", f"it is not signed: there is no {SIGNATURE}")
        try:
            bundle = _Bundle.model_validate_json(signature)
            envelope = Envelope.from_dict(bundle.dsseEnvelope.model_dump())
        except (ValueError, FormatError):
            return Signed(SignatureState.INVALID, "", f"its {SIGNATURE} is no signature by a key")
        key = bundle.verificationMaterial.publicKey.hint
        if not self._keys:
            return Signed(SignatureState.UNCHECKED, key, f"it names key {key[:12]}; no public key is configured")
        by = self._who_signed(envelope)
        if by is None:
            return Signed(SignatureState.INVALID, key, self._why_not(key))
        if _digests(envelope).get(name) != hashlib.sha256(data).hexdigest():
            return Signed(SignatureState.INVALID, by, f"its {name} was altered: it is not what key {by[:12]} signed")
        return Signed(SignatureState.VALID, by, f"signed by key {by[:12]}")

    def _who_signed(self, envelope: Envelope) -> str | None:
        for key in self._keys:
            for signature in envelope.signatures.values():
                try:
                    key.verify_signature(Signature(key.keyid, signature.signature), envelope.pae())
                except UnverifiedSignatureError:
                    continue
                return key.keyid
        return None

    def _why_not(self, key: str) -> str:
        known = ", ".join(one[:12] for one in self.keys)
        if key in self.keys:
            return f"its {SIGNATURE} was altered: key {key[:12]} did not sign it"
        named = f"key {key[:12]}" if key else "a key that it does not name"
        return f"it is signed by {named}, which is none of `store.signing.public_key_files`: {known}"


def require(version: int, found: Signed) -> None:
    """Raise `SignatureError` unless the signature is valid."""
    if found.state is not SignatureState.VALID:
        raise SignatureError(f"version {version}: its signature is required, and {found.told}")


def check(config: Config) -> None:
    """A check of `onstream check`: keys can be read, and what is signed here will be accepted. Raises `ConfigError`."""
    signing = config.store.signing
    signer, trust = Signer.of(signing), Trust.of(signing)
    if signer and trust.keys and signer.key not in trust.keys:
        raise ConfigError(
            f"store.signing.public_key_files: must hold the public key of the one that signs, {signer.key[:12]}, "
            f"got {', '.join(key[:12] for key in trust.keys)}"
        )


def _statement(name: str, digests: Mapping[str, str]) -> dict[str, Any]:
    """What is signed. Its subject's digest is that of all digests, in the order of the resources."""
    named = {file: digest for file, digest in sorted(digests.items()) if file not in _IGNORED}
    whole = hashlib.sha256(b"".join(map(bytes.fromhex, named.values()))).hexdigest()
    return {
        "_type": _STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": whole}}],
        "predicateType": _PREDICATE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": sorted(_IGNORED),
            },
            "resources": [{"name": file, "algorithm": "sha256", "digest": digest} for file, digest in named.items()],
        },
    }


def _digests(envelope: Envelope) -> Mapping[str, str]:
    """File -> SHA-256, as a statement that was verified gives them; nothing where it is about something else."""
    try:
        statement = json.loads(envelope.payload)
        if envelope.payload_type != _PAYLOAD or statement["predicateType"] != _PREDICATE:
            return {}
        resources = statement["predicate"]["resources"]
        return {one["name"]: one["digest"] for one in resources if one["algorithm"] == "sha256"}
    except (ValueError, KeyError, TypeError):
        return {}


def _known(key: ec.EllipticCurvePublicKey) -> SSlibKey:
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return SSlibKey.from_crypto(key, hashlib.sha256(pem).hexdigest())


def _public_key(file: str) -> SSlibKey:
    text = _bytes(file, "public_key_files")
    try:
        key = serialization.load_pem_public_key(text)
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"store.signing.public_key_files: {file}: must be a public key as PEM") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVES):
        raise ConfigError(f"store.signing.public_key_files: {file}: must be an elliptic key on P-256, P-384 or P-521")
    return _known(key)


def _variable(name: str, environ: Mapping[str, str] | None) -> bytes:
    text = (os.environ if environ is None else environ).get(name)
    if text is None:
        raise ConfigError(f"store.signing.key_env: environment variable {name} is not set")
    return text.encode()


def _bytes(file: str, setting: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as exc:
        raise ConfigError(f"store.signing.{setting}: {file}: not readable: {exc.strerror}") from exc
