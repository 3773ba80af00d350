"""The dictionaries that values are compressed with: what most records have in common, so that none has to say it.

A compressed value names its dictionary by number, so each that was ever shipped stays here and stays as it is. They
hold field names and usual values and nobody's words: `tests/tools/train_dictionary.py` makes them.
"""

from functools import cache
from pathlib import Path

import zstandard

NUMBERS = (1,)
"""All there ever were. Values are written with the last."""


@cache
def load() -> dict[int, zstandard.ZstdCompressionDict]:
    """Each by its number. Threads share them."""
    return {number: zstandard.ZstdCompressionDict(path(number).read_bytes()) for number in NUMBERS}


def path(number: int) -> Path:
    """The file of a dictionary."""
    return Path(__file__).with_name(f"dictionary.{number}.zstd")
