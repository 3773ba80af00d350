"""What is private, and where it was found."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """The kinds that Onstream knows by itself; own patterns have names of their own."""

    EMAIL = "email"
    PHONE = "phone"
    CARD = "card"
    IBAN = "iban"
    SSN = "ssn"
    IP = "ip"
    SECRET = "secret"  # noqa: S105 - a kind's name
    DATA = "data"


@dataclass(frozen=True, order=True)
class Span:
    """Characters `[start, end)` are private; `kind` is a `Kind` or the name of an own pattern."""

    start: int
    end: int
    kind: str
