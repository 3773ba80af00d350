"""Intakes for tests: what they redact is asked for, and the secret is no secret."""

from collections.abc import Sequence

from ingest.privacy.intake import Intake
from ingest.privacy.kinds import Kind
from ingest.privacy.redact import Redactor
from ingest.privacy.sealed_log import Keyring
from ingest.privacy.secret import Secret

SECRET = Secret.parse("0f" * 32, "test")


def intake(*kinds: Kind, keyring: Keyring | None = None) -> Intake:
    """One that redacts `kinds`, and seals where there is a keyring."""
    return Intake(Redactor(kinds), SECRET, keyring)


def spelled(token_ids: Sequence[int]) -> list[str]:
    """Pieces of a vocabulary in which a token below 256 is a character, and another nothing."""
    return [chr(token) if token < 256 else "" for token in token_ids]
