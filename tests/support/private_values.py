"""Values for the templates of `private_texts.yaml`: private ones that were never anybody's, and look-alikes.

Nothing here is shared with the redactor: formats are written from the issuers' public descriptions, check digits are
computed by their own few lines, and secrets are drawn, so that no file of this repository holds what looks like one.
The held-out forms are other forms than those of development.
"""

import base64
import random
import string
import uuid
from collections.abc import Callable

LOWER_DIGITS = string.ascii_lowercase + string.digits
ALNUM = string.ascii_letters + string.digits
HEX = "0123456789abcdef"

NAMES = ("ada", "tom", "mwangi", "lucia", "priya", "jonas", "eva", "sven", "chloe", "omar", "yuki", "bruno")
SURNAMES = ("lovelace", "okafor", "weber", "garcia", "nguyen", "petit", "lind", "rossi", "maly", "haddad", "kim")
DOMAINS = ("example.com", "mail.example.org", "acme-corp.de", "startup.io", "uni-kiel.de", "example.co.uk", "web.fr")
OTHER_DOMAINS = ("post.example.museum", "firma.com.br", "correo.es", "x1.dev", "dept.uni.ac.jp", "bücher.example.ch")

# '#' is a digit, 'N' a digit from 2 to 9
PHONES = (
    "(N##) N##-####", "N##-N##-####", "N##.N##.####", "+1 N## N## ####", "+1-N##-N##-####", "1-800-N##-####",
    "+44 20 7### ####", "+44 7### ######", "020 7### ####", "07### ######", "+49 30 ########", "+49 (0)171 #######",
    "0171 #######", "030/#######", "+33 6 ## ## ## ##", "06 ## ## ## ##", "+34 6## ## ## ##", "+39 3## ### ####",
    "+7 (9##) ###-##-##", "+81 3-####-####", "+86 13# #### ####", "+14155550N##",
)  # fmt: skip
OTHER_PHONES = (
    "+91 98### #####", "+91-98########", "+55 11 9####-####", "(11) 9####-####", "+47 4## ## ###", "+48 5## ### ###",
    "+61 4## ### ###", "04## ### ###", "+52 55 #### ####", "0033 6 ## ## ## ##", "0049-89-#######",
    "+353 (0)86 ### ####",
    "N##-N##-#### x##", "(N##)N##-####", "N## N## ####", "+1 (N##) N##-####", "+44(0)20 7### ####", "089 / ## ## ## ##",
    "+31 6 ########", "+41 79 ### ## ##", "+90 5## ### ## ##", "+254 7## ### ###", "+4915########", "06.##.##.##.##",
    "07700 9#####", "+82-10-####-####", "03-####-####", "+971 50 ### ####",
)  # fmt: skip
CARDS = (("4", 16, (4, 4, 4, 4)), ("53", 16, (4, 4, 4, 4)), ("37", 15, (4, 6, 5)), ("6011", 16, (4, 4, 4, 4)))
OTHER_CARDS = (("2221", 16, (4, 4, 4, 4)), ("3530", 16, (4, 4, 4, 4)), ("36", 14, (4, 6, 4)), ("4", 16, (4, 4, 4, 4)),
               ("34", 15, (4, 6, 5)), ("51", 16, (4, 4, 4, 4)), ("6221", 16, (4, 4, 4, 4)))  # fmt: skip
IBANS = {"DE": 18, "FR": 23, "GB": 18, "ES": 20, "NL": 14, "IT": 23, "CH": 17, "AT": 16}
OTHER_IBANS = {"PL": 24, "BE": 12, "NO": 11, "SE": 20, "PT": 21, "IE": 18, "MT": 27, "TR": 22, "SA": 20, "CZ": 20}
WORDS = ("Kangaroo", "sommer", "Tr0ub4dor", "bluefish", "Dragon", "qwerty", "Hamster", "letmein", "Zebra", "Monsoon")


class Maker:
    """Draws values from `rng`; `held_out` picks the other forms."""

    def __init__(self, rng: random.Random, held_out: bool) -> None:
        self._rng, self._held_out = rng, held_out
        self._makers: dict[str, Callable[[], str]] = {
            "email": self._email, "phone": self._phone, "card": self._card, "iban": self._iban, "ssn": self._ssn,
            "ssn:undashed": lambda: self._ssn().translate({45: None, 32: None}),
            "ip": self._ip, "uuid": lambda: str(uuid.UUID(int=rng.getrandbits(128), version=4)),
            "sha1": lambda: self._draw(HEX, 40), "sha256": lambda: self._draw(HEX, 64),
            "md5": lambda: self._draw(HEX, 32), "hex16": lambda: self._draw(HEX, 16),
            "hex7": lambda: self._draw(HEX, 7),
            "epoch": lambda: str(rng.randrange(1_500_000_000, 1_800_000_000)),
            "epoch_ms": lambda: str(rng.randrange(1_500_000_000_000, 1_800_000_000_000)),
            "iso": self._iso, "date": self._date, "version": lambda: self._fill("#.1#.#"),
            "version4": lambda: f"1{self._fill('##')}.0.{self._fill('N###')}.{self._fill('N#')}",
            "order": lambda: self._pick(("#########-##", "2024-######", "A#######", "N####-#####-#")),
            "tracking": lambda: self._pick(("1Z###W##########", "JD0146000##########", "RR#########DE")),
            "int10": lambda: self._fill("N#########"), "isbn": lambda: self._fill("978-3-16-######-#"),
            "upc": lambda: self._fill("0 ##### ##### #"), "mac3": lambda: ":".join(self._draw(HEX, 2) for _ in "abc"),
        }  # fmt: skip

    def make(self, name: str) -> str:
        """One value of a kind, `kind` or `kind:form`."""
        kind, _, form = name.partition(":")
        return self._secret(form) if kind == "secret" else self._makers[name]()

    def _draw(self, alphabet: str, num: int) -> str:
        return "".join(self._rng.choices(alphabet, k=num))

    def _fill(self, form: str) -> str:
        return "".join({"#": self._draw("0123456789", 1), "N": self._draw("23456789", 1)}.get(c, c) for c in form)

    def _pick(self, forms: tuple[str, ...]) -> str:
        return self._fill(self._rng.choice(forms))

    def _email(self) -> str:
        first, last, num = self._rng.choice(NAMES), self._rng.choice(SURNAMES), self._rng.randrange(100)
        if not self._held_out:
            forms = (f"{first}.{last}", f"{first}{num}", f"{first[0]}{last}", f"{first}_{last}", f"{last}-{first}")
            return f"{self._rng.choice(forms)}@{self._rng.choice(DOMAINS)}"
        forms = (f"{first}+news{num}", f"{first.upper()}.{last.upper()}", f"{first[0]}.o'{last}", f"{num}{last}",
                 f"{first}.{last}.{num}", f"{first}%{last}", f"info-{last}", f"josé.{last}")  # fmt: skip
        return f"{self._rng.choice(forms)}@{self._rng.choice(OTHER_DOMAINS)}"

    def _phone(self) -> str:
        return self._pick(OTHER_PHONES if self._held_out else PHONES)

    def _card(self) -> str:
        prefix, num, groups = self._rng.choice(OTHER_CARDS if self._held_out else CARDS)
        body = prefix + self._draw("0123456789", num - len(prefix) - 1)
        doubled = [int(d) * (2 if n % 2 == 0 else 1) for n, d in enumerate(reversed(body))]
        digits = body + str(-sum(d // 10 + d % 10 for d in doubled) % 10)
        separator = self._rng.choice(("", " ", "-", "\u00a0", ".") if self._held_out else ("", " ", "-"))
        return separator.join(_grouped(digits, groups))

    def _iban(self) -> str:
        country, num = self._rng.choice(sorted((OTHER_IBANS if self._held_out else IBANS).items()))
        letters = {"GB": 4, "NL": 4, "IE": 4, "MT": 4}.get(country, 0)
        body = self._draw(string.ascii_uppercase, letters) + self._draw("0123456789", num - letters)
        number = int("".join(str(int(c, 36)) for c in body + country + "00"))
        whole = f"{country}{98 - number % 97:02d}{body}"
        fours = [whole[n : n + 4] for n in range(0, len(whole), 4)]
        forms = ("", " ", "-") if self._held_out else ("", " ")
        return self._rng.choice(forms).join(fours)

    def _ssn(self) -> str:
        area, group, serial = self._rng.randrange(1, 665), self._rng.randrange(1, 100), self._rng.randrange(1, 10_000)
        separator = self._rng.choice(("-", "-", " ", "\u2011") if self._held_out else ("-", "-", "-", " "))
        return f"{area:03d}{separator}{group:02d}{separator}{serial:04d}"

    def _ip(self) -> str:
        parts = [self._rng.randrange(256) for _ in range(3)]
        v4 = ".".join(map(str, (self._rng.choice((31, 62, 85, 104, 172, 192, 203)), *parts)))
        groups = [f"{self._rng.randrange(65536):x}" for _ in range(8)]
        v6 = (
            ":".join(["2001", "db8", *groups[2:]]),
            f"2a02:{groups[0]}:{groups[1]}::{groups[2]}",
            f"fe80::{groups[3]}:1",
        )
        others = (v4, v4, *v6) if self._held_out else (v4, v4, v4, v6[0])
        return self._rng.choice(others)

    def _iso(self) -> str:
        return self._pick(("2024-0N-1#T1#:2#:4#Z", "2025-0N-2#T0#:5#:0#.####00+00:00", "2023-0N-0N 1#:0#:3#,###"))

    def _date(self) -> str:
        return self._pick(("2024-0N-1#", "1#.0N.2024", "1#/0N/2023", "2#-0N-2025", "20240N1#"))

    def _secret(self, form: str) -> str:
        rng, draw = self._rng, self._draw
        makers: dict[str, Callable[[], str]] = {
            "aws_id": lambda: rng.choice(("AKIA", "ASIA")) + draw(string.ascii_uppercase + "234567", 16),
            "aws_secret": lambda: draw(ALNUM + "/+", 40),
            "github": lambda: rng.choice(("ghp_", "gho_", "ghs_")) + draw(ALNUM, 36) if rng.random() < 0.7
            else f"github_pat_{draw(ALNUM, 22)}_{draw(ALNUM, 59)}",
            "gitlab": lambda: "glpat-" + draw(ALNUM + "_-", 20),
            "slack": lambda: f"xox{rng.choice('bp')}-{draw('123456789', 12)}-{draw('123456789', 12)}-{draw(ALNUM, 24)}",
            "stripe": lambda: rng.choice(("sk_live_", "rk_live_", "sk_test_")) + draw(ALNUM, 24),
            "openai": lambda: rng.choice(("sk-", "sk-proj-")) + draw(ALNUM, 48),
            "anthropic": lambda: "sk-ant-api03-" + draw(ALNUM + "_-", 93) + "AA",
            "google": lambda: "AIza" + draw(ALNUM + "_-", 34) + draw(ALNUM, 1),
            "npm": lambda: "npm_" + draw(ALNUM, 36),
            "pypi": lambda: "pypi-AgEIcHlwaS5vcmc" + draw(ALNUM + "_-", 140) + draw(ALNUM, 1),
            "huggingface": lambda: "hf_" + draw(string.ascii_letters, 34),
            "jwt": lambda: _jwt(rng),
            "opaque": lambda: draw(ALNUM + "-._~", rng.randrange(24, 64)) + draw(ALNUM, 1),
            "pem": lambda: _pem(rng),
            "hex": lambda: draw(HEX, rng.choice((32, 40, 64))),
            "base64": lambda: base64.b64encode(rng.randbytes(rng.choice((24, 30, 33)))).decode(),
            "password": self._password,
        }  # fmt: skip
        return makers[form]()

    def _password(self) -> str:
        word, num = self._rng.choice(WORDS), self._rng.randrange(10, 9999)
        if self._held_out:
            forms = (
                f"{word}.{num}!",
                f"{num}{word}",
                f"{word}-{word}-{num}",
                self._draw(ALNUM, 12),
                f"P4ss{word}$",
                f"{word}_{num}",
            )
        else:
            forms = (f"{word}{num}", f"{word}{num}!", self._draw(ALNUM + "!$%*-_", 14) + "7", f"{word}#{num}")
        return self._rng.choice(forms)


def _grouped(digits: str, groups: tuple[int, ...]) -> list[str]:
    ends = [sum(groups[: n + 1]) for n in range(len(groups))]
    return [digits[end - size : end] for end, size in zip(ends, groups, strict=True)]


def _jwt(rng: random.Random) -> str:
    parts = (b'{"alg":"HS256","typ":"JWT"}', b'{"sub":"%d","iat":1700000000}' % rng.randrange(10**9), rng.randbytes(32))
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def _pem(rng: random.Random) -> str:
    kind = rng.choice(("RSA PRIVATE KEY", "PRIVATE KEY", "OPENSSH PRIVATE KEY", "EC PRIVATE KEY"))
    body = base64.b64encode(rng.randbytes(240)).decode()
    lines = [body[n : n + 64] for n in range(0, len(body), 64)]
    return "\n".join((f"-----BEGIN {kind}-----", *lines, f"-----END {kind}-----"))
