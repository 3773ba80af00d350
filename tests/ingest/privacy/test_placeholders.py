"""One value, one placeholder: in all of a session and in no other."""

import re

import pytest

from ingest.privacy.kinds import Kind
from ingest.privacy.placeholders import PLACEHOLDER, Placeholders

SECRET = b"0123456789abcdef"


def test_a_value_has_the_same_placeholder_wherever_its_session_is_seen() -> None:
    one, other = Placeholders(SECRET, "s"), Placeholders(SECRET, "s")
    assert one.of(Kind.EMAIL, "bob@example.com") == other.of(Kind.EMAIL, "bob@example.com")
    assert re.fullmatch("<EMAIL_[0-9a-f]{6}>", one.of(Kind.EMAIL, "bob@example.com"))


@pytest.mark.parametrize(
    "other",
    [Placeholders(SECRET, "t"), Placeholders(b"fedcba9876543210", "s")],
    ids=["another session", "another secret"],
)
def test_elsewhere_it_has_another(other: Placeholders) -> None:
    assert Placeholders(SECRET, "s").of(Kind.EMAIL, "a@x.org") != other.of(Kind.EMAIL, "a@x.org")


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        (Kind.EMAIL, "Bob@Example.com", "bob@example.com"),
        (Kind.PHONE, "+44 20 7946 0958", "(020) 7946-0958"),
        (Kind.CARD, "4111 1111 1111 1111", "4111-1111-1111-1111"),
        (Kind.IBAN, "DE89 3704 0044 0532 0130 00", "de89370400440532013000"),
        (Kind.SSN, "123-45-6789", "123 45 6789"),
        (Kind.IP, "2001:DB8::1", "2001:db8:0::1"),
    ],
)
def test_spellings_of_one_value_have_one_placeholder(kind: Kind, one: str, other: str) -> None:
    placeholders = Placeholders(SECRET, "s")
    assert placeholders.of(kind, one) == placeholders.of(kind, other)


def test_secrets_that_differ_in_a_letters_size_differ() -> None:
    placeholders = Placeholders(SECRET, "s")
    assert placeholders.of(Kind.SECRET, "Hunter22") != placeholders.of(Kind.SECRET, "hunter22")


def test_every_name_that_a_pattern_may_have_makes_a_placeholder_that_is_known_again() -> None:
    for name in ("a", "employee_id", "a" + "b" * 30):
        assert PLACEHOLDER.fullmatch(Placeholders(SECRET, "s").of(name, "x"))


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 16 bytes, got 3"):
        Placeholders(b"abc", "s")
