"""Where cards, IBANs, social security numbers and IP addresses are.

One cheap pattern finds runs of seven digits and more; only there, finer patterns and checks look. All quantifiers are
bounded, so that time is linear in the text. Offsets are characters of the text that was given.
"""

import re
from collections.abc import Iterator

from ingest.privacy.checks import IBAN_LENGTHS, digits_of, is_card, is_iban, is_luhn, is_personal_ip, is_ssn
from ingest.privacy.view import GAP, LEFT, RIGHT, Place, View

_CARD = re.compile(rf"{LEFT}(?:\d{{12,19}}|(?:\d{{4}}[{GAP}]{{1,2}}){{3}}\d{{4}}(?:[{GAP}]\d{{3}})?"
                   rf"|\d{{4}}[{GAP}]{{1,2}}\d{{6}}[{GAP}]{{1,2}}\d{{4,5}})(?!\w)(?![.,\-]\d)", re.ASCII)  # fmt: skip
_CARD_SAID = re.compile(r"(?:card|pan|visa|maestro|karte|carte|carta|tarjeta|cartão)(?![a-z])[^\n]{0,20}$")
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?:[ \-\u00a0]?[A-Z0-9]){11,29}", re.IGNORECASE)
_SSN = re.compile(rf"{LEFT}\d{{3}}([{GAP}])\d{{2}}\1\d{{4}}{RIGHT}", re.ASCII)
_NINE = re.compile(r"(?<![\w.,\-])\d{9}(?!\w)", re.ASCII)
_SSN_SAID = re.compile(r"(?:ssn|social security|itin|tax(?:payer)?[ _-]?id)\W{0,4}(?:\w+\W{1,4}){0,2}$")

_OCTET = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
_IPV4 = re.compile(rf"(?<![\w.\-])(?<![A-Za-z]/){_OCTET}(?:\.{_OCTET}){{3}}(?!\w)(?!\.\d)", re.ASCII)
_VERSION_SAID = re.compile(r"(?:versions?|ver|release|build|firmware|section|chapter|driver|[=><~^]=|[~^])\W{0,3}$")
_COLONS = re.compile(r":[0-9a-fA-F]{0,4}:")
_HEX4 = r"[0-9a-fA-F]{1,4}"
_IPV6 = re.compile(
    rf"(?<![\w:.])(?:{_HEX4}(?::{_HEX4}){{7}}(?=:\d{{1,5}}(?![\w:]))"  # whole, with a port behind it
    rf"|(?:{_HEX4})?(?::(?:{_HEX4})?){{2,7}}(?:(?:\.\d{{1,3}}){{3}})?(?![\w:])(?!\.\d))",
    re.ASCII,
)
_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")


def cards(view: View) -> Iterator[Place]:
    """Payment card numbers with Luhn's check digit."""
    for start, end in view.runs:
        for found in _CARD.finditer(view.text, start, min(end + 2, len(view.text))):
            digits = digits_of(found[0])
            if is_card(digits) or (is_luhn(digits) and _CARD_SAID.search(view.before(found.start(), 32))):
                yield found.span()


def ibans(view: View) -> Iterator[Place]:
    """Bank account numbers with a known country's length and mod-97 check digits."""
    for start, end in view.runs:
        for found in _IBAN.finditer(view.text, max(0, start - 12), min(len(view.text), end + 24)):
            taken = _iban_in(found[0])
            if taken:
                yield found.start(), found.start() + taken


def _iban_in(candidate: str) -> int:
    """How many characters of it are the IBAN; 0: none."""
    length = IBAN_LENGTHS.get(candidate[:2].upper(), 0)
    alnum = [at for at, char in enumerate(candidate) if char.isalnum()][:length]
    if len(alnum) < length or not length:
        return 0
    return alnum[-1] + 1 if is_iban("".join(candidate[at] for at in alnum)) else 0


def ssns(view: View) -> Iterator[Place]:
    """US social security numbers: in groups, or nine digits where one was announced."""
    for start, end in view.runs:
        for found in _SSN.finditer(view.text, start, min(end + 2, len(view.text))):
            if is_ssn(digits_of(found[0])) and (found[1] in "-\u2010\u2011\u2013" or found.span() == (start, end)):
                yield found.span()
        for found in _NINE.finditer(view.text, start, min(end + 1, len(view.text))):
            if is_ssn(found[0]) and _SSN_SAID.search(view.before(found.start(), 40)):
                yield found.span()


def ips(view: View) -> Iterator[Place]:
    """IP addresses of version 4 and 6 that can stand for somebody, and are no version numbers."""
    text = view.text
    for start, end in view.runs:
        for found in _IPV4.finditer(text, start, min(end + 2, len(text))):
            if is_personal_ip(found[0]) and not _VERSION_SAID.search(view.before(found.start(), 16)):
                yield found.span()
    yield from _ipv6s(text)


def _ipv6s(text: str) -> Iterator[Place]:
    last = 0
    for colons in _COLONS.finditer(text):
        start = colons.start()
        while start > max(last, colons.start() - 4) and text[start - 1] in _HEX_DIGITS:
            start -= 1
        found = _IPV6.match(text, start) if start >= last else None
        if found and len(found[0]) > 5 and any(map(str.isdigit, found[0])) and is_personal_ip(found[0]):
            last = found.end()
            yield found.span()
