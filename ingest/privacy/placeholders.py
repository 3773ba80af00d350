"""What stands in the place of a private value: `<EMAIL_3f9a1c>`.

The same value has the same placeholder in all of a session, so that a conversation about it can still be followed, and
another one in every other session, so that sessions cannot be joined by it. The turns of one session are captured by
different engines and its feedback by the router, which share nothing: a running number (`<EMAIL_1>`) would have to be
agreed on, and would differ with the order in which they saw the values. So the tag is the beginning of a keyed hash of
session, kind and value: everybody who has the secret comes to the same one, and nobody without it can test a guessed
address against the tag. Six hex digits: of 50 values in a session two share a tag in 1 of 14,000 sessions.
"""

import hashlib
import hmac
import ipaddress
import re

from ingest.privacy.checks import digits_of
from ingest.privacy.kinds import Kind

PLACEHOLDER = re.compile(r"<[A-Z][A-Z0-9_]{0,31}_[0-9a-f]{6}>")
_PHONE_DIGITS = 9  # the end of a number, the same with country code and without


class Placeholders:
    """Those of one session. `secret` is the caller's, at least 16 bytes; whoever has it can test guesses."""

    def __init__(self, secret: bytes, session: str) -> None:
        if len(secret) < 16:
            raise ValueError(f"placeholders: the secret must have at least 16 bytes, got {len(secret)}")
        self._key = hmac.digest(
            secret, b"onstream/placeholders/" + session.encode("utf-8", "surrogatepass"), hashlib.sha256
        )

    def of(self, kind: str, value: str) -> str:
        """The placeholder of `value`; spellings of one address or number have the same."""
        tag = hmac.digest(self._key, f"{kind}\0{_normal(kind, value)}".encode("utf-8", "surrogatepass"), hashlib.sha256)
        return f"<{kind.upper()}_{tag[:3].hex()}>"


def _normal(kind: str, value: str) -> str:
    match kind:
        case Kind.EMAIL:
            return value.casefold()
        case Kind.PHONE:
            return digits_of(value)[-_PHONE_DIGITS:]
        case Kind.CARD | Kind.SSN:
            return digits_of(value)
        case Kind.IBAN:
            return "".join(filter(str.isalnum, value)).upper()
        case Kind.IP:
            return _same_address(value)
    return value


def _same_address(value: str) -> str:
    try:
        return ipaddress.ip_address(value).compressed
    except ValueError:
        return value
