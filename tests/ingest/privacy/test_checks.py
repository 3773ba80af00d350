"""Check digits and plausibility, against numbers that issuers and standards publish."""

import pytest

from ingest.privacy.checks import is_card, is_iban, is_luhn, is_personal_ip, is_ssn


@pytest.mark.parametrize(
    "digits",
    [
        "4111111111111111",
        "5555555555554444",
        "378282246310005",
        "6011111111111117",
        "3530111333300000",
        "30569309025904",
    ],
)
def test_published_test_cards_are_cards_and_with_another_last_digit_are_not(digits: str) -> None:
    assert is_card(digits)
    assert not is_card(digits[:-1] + str((int(digits[-1]) + 1) % 10))


def test_a_number_with_luhns_digit_is_no_card_when_nobody_issues_it() -> None:
    assert is_luhn("1000000000000008") and not is_card("1000000000000008")


@pytest.mark.parametrize(
    "iban", ["GB82WEST12345698765432", "DE89370400440532013000", "MT84MALT011000012345MTLCAST001S"]
)
def test_published_ibans_are_ibans_and_with_two_digits_changed_places_are_not(iban: str) -> None:
    assert is_iban(iban) and is_iban(iban.lower())
    assert not is_iban(iban[:2] + iban[3] + iban[2] + iban[4:])


def test_an_iban_of_another_countrys_length_is_none() -> None:
    assert not is_iban("DE8937040044053201300")


@pytest.mark.parametrize(
    ("digits", "issued"),
    [("123456789", True), ("000123456", False), ("666123456", False), ("123006789", False), ("123450000", False),
     ("912701234", True), ("912101234", False)],
)  # fmt: skip
def test_numbers_that_were_never_issued_are_no_social_security_numbers(digits: str, issued: bool) -> None:
    assert is_ssn(digits) is issued


@pytest.mark.parametrize(
    ("address", "personal"),
    [("62.4.5.6", True), ("192.168.1.7", True), ("127.0.0.1", False), ("0.0.0.0", False), ("255.255.255.0", False),
     ("2001:db8::1", True), ("::1", False), ("::", False), ("1:2", False)],
)  # fmt: skip
def test_addresses_of_nobody_are_not_personal(address: str, personal: bool) -> None:
    assert is_personal_ip(address) is personal
