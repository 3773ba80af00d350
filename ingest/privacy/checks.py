"""Arithmetic and plausibility of candidates. Pure; run on what a pattern found, never on whole texts."""

import ipaddress
import math
from collections import Counter

# Characters of an IBAN and the countries that have so many, from the SWIFT registry.
_COUNTRIES = {
    15: "NO", 16: "BE", 18: "DK FI FK FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK",
    21: "CH CR HR LI LV", 22: "BG BH DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HU LB NI PL SV", 29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
}  # fmt: skip
IBAN_LENGTHS = {country: length for length, countries in _COUNTRIES.items() for country in countries.split()}


def digits_of(text: str) -> str:
    """Its decimal digits."""
    return "".join(filter(str.isdecimal, text))


def is_luhn(digits: str) -> bool:
    """ISO/IEC 7812-1 annex B: every second digit from the right doubled, the digits' sum a multiple of ten."""
    doubled = sum(int(d) * 2 - 9 * (d > "4") for d in digits[-2::-2])
    return (doubled + sum(map(int, digits[::-2]))) % 10 == 0


def is_card(digits: str) -> bool:
    """A length and first digits that an issuer uses, and Luhn's check digit."""
    head2, head4, length = int(digits[:2]), int(digits[:4]), len(digits)
    if digits[0] == "4":
        issued = length in (13, 16, 19)
    elif head2 in (34, 37) or head4 in (1800, 2131):
        issued = length == 15
    elif head2 in (36, 38, 39, 30):
        issued = length in (14, 16)
    else:
        issued = 16 <= length <= 19 and (
            51 <= head2 <= 55
            or 2200 <= head4 <= 2204
            or 2221 <= head4 <= 2720
            or 3528 <= head4 <= 3589
            or head2 in (50, 56, 57, 58, 60, 62, 63, 64, 65, 67)
        )
    return issued and is_luhn(digits)


def is_iban(compact: str) -> bool:
    """ISO 13616: the country's length, and the number with its head moved to the end is 1 modulo 97 (ISO 7064)."""
    compact = compact.upper()
    if IBAN_LENGTHS.get(compact[:2]) != len(compact):
        return False
    return int("".join(str(int(c, 36)) for c in compact[4:] + compact[:4])) % 97 == 1


def is_ssn(digits: str) -> bool:
    """A number that the Social Security Administration could have issued, or an ITIN (area 9xx, group 50 to 99)."""
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    if area[0] == "9":
        return group >= "50" and serial != "0000"
    return area not in ("000", "666") and group != "00" and serial != "0000"


def is_personal_ip(text: str) -> bool:
    """An address that can stand for somebody: not loopback, unspecified, multicast or a netmask."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if address.version == 4 and text.startswith(("255.", "0.")):
        return False
    return not (address.is_loopback or address.is_unspecified or address.is_multicast)


def entropy_bits(text: str) -> float:
    """Shannon's entropy of its characters, in bits a character."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())
