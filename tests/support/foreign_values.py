"""Private values as Faker makes them, for 28 countries: formats that nobody thought of while writing the patterns."""

import random
from typing import Any

from private_texts import Labelled, Part, templates_of
from private_values import Maker

LOCALES = (
    "en_US", "en_GB", "en_IN", "en_AU", "de_DE", "de_CH", "fr_FR", "es_ES", "es_MX", "it_IT", "nl_NL", "pl_PL", "pt_BR",
    "pt_PT", "sv_SE", "no_NO", "da_DK", "fi_FI", "cs_CZ", "tr_TR", "ru_RU", "uk_UA", "ja_JP", "ko_KR", "zh_CN", "el_GR",
    "hu_HU", "ro_RO",
)  # fmt: skip
_SHORT_IBANS = ("en_GB", "en_IN", "es_MX", "zh_CN")  # Faker's GB numbers are not as long as the registry says
_KEPT = frozenset({"email", "phone", "card", "iban", "ssn", "ip", "secret:password"})


class ForeignMaker(Maker):
    """Faker's values for the kinds that it knows; its texts are the held-out templates that use nothing else."""

    def __init__(self, locale: str, seed: int) -> None:
        from faker import Faker

        super().__init__(random.Random(seed), held_out=True)
        faker: Any = Faker(locale)
        faker.seed_instance(seed)
        american: Any = Faker("en_US")
        american.seed_instance(seed)
        self._faked = {
            "email": faker.email, "phone": faker.phone_number, "card": faker.credit_card_number, "ssn": american.ssn,
            "iban": american.iban if locale in _SHORT_IBANS else faker.iban, "secret:password": faker.password,
            "ip": lambda: faker.ipv4_public() if faker.pybool() else faker.ipv6(),
        }  # fmt: skip

    def make(self, name: str) -> str:
        return str(self._faked[name]())


def foreign_texts() -> tuple[Labelled, ...]:
    """Every held-out template of these kinds, once for each country. Raises `ImportError` where Faker is missing."""
    templates = [
        template for template in templates_of(Part.HELD_OUT) if template.kinds <= _KEPT and not template.is_negative
    ]
    makers = [ForeignMaker(locale, n) for n, locale in enumerate(LOCALES)]
    return tuple(template.filled(maker, Part.HELD_OUT) for maker in makers for template in templates)
