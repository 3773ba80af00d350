"""What a user is called on the log: a name that says nothing to whoever lacks the secret, and is always the same."""

import hmac

from ingest.privacy.secret import Secret

_HEX_DIGITS = 32  # 128 bits: among a billion users, two of one name have a chance of 2e-21


def user_pseudonym(secret: Secret, tenant: str, user: str) -> str:
    """HMAC-SHA256 of tenant, NUL and user, 32 hex digits; "" for "", which names nobody.

    Without the secret, a pseudonym can neither be traced back nor be checked against a guess; with it, both are
    quick. A tenant's name has no NUL (`infra.config.Tenant`), so no two pairs are one text.
    """
    if not user:
        return ""
    named = f"{tenant}\0{user}".encode("utf-8", "surrogatepass")
    return hmac.digest(secret.pseudonyms, named, "sha256").hex()[:_HEX_DIGITS]


def is_pseudonym(name: str) -> bool:
    """Whether it may be what `user_pseudonym` makes of somebody."""
    return len(name) == _HEX_DIGITS and set(name) <= set("0123456789abcdef")


def subject_of(user: str, tenant: str, session: str | None = None) -> str:
    """Under whose key a record is sealed: the user's (a pseudonym); where none is named the session's, if its key is
    given (for a comment), else the tenant's. The prefix keeps the three kinds apart."""
    if user:
        return f"user-{user}"
    return f"tenant-{tenant}" if session is None else f"session-{session}"
