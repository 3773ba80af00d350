"""Labelled texts: each with the exact places of its private values, and texts that have none but look as if.

Made from the templates in `private_texts.yaml` and the values of `private_values.py` by a fixed seed: 652 texts with
private values and 198 without, the same on every machine. `Part.HELD_OUT` has other templates and other forms of
values than `Part.DEVELOPMENT`.
"""

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

import yaml
from private_values import Maker

NUM_DRAWS, NUM_NEGATIVE_DRAWS = 4, 3
_MARKER = re.compile("⟦([a-z:_0-9]+)⟧")


class Part(StrEnum):
    """Whether a text was looked at while the patterns were written."""

    DEVELOPMENT = "development"
    HELD_OUT = "held_out"


@dataclass(frozen=True)
class Label:
    """Characters `[start, end)` are a private value of `kind`."""

    start: int
    end: int
    kind: str


@dataclass(frozen=True)
class Labelled:
    """A text and all that is private in it; no labels: a hard negative."""

    text: str
    labels: tuple[Label, ...]
    part: Part


@dataclass(frozen=True)
class Template:
    """A text with `⟦kind⟧` where values go; of a negative they are look-alikes and get no label."""

    text: str
    is_negative: bool

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset(_MARKER.findall(self.text))

    def filled(self, maker: Maker, part: Part) -> Labelled:
        pieces, labels, at, length = [], [], 0, 0
        for marker in _MARKER.finditer(self.text):
            value = maker.make(marker[1])
            start = length + marker.start() - at
            pieces += [self.text[at : marker.start()], value]
            at, length = marker.end(), start + len(value)
            labels.append(Label(start, length, marker[1].partition(":")[0]))
        return Labelled("".join([*pieces, self.text[at:]]), () if self.is_negative else tuple(labels), part)


@cache
def templates_of(part: Part) -> tuple[Template, ...]:
    """Those of one part, negatives last."""
    given = yaml.safe_load((Path(__file__).parent / "private_texts.yaml").read_text(encoding="utf-8"))
    positive = (Template(text, is_negative=False) for text in given[part])
    return (*positive, *(Template(text, is_negative=True) for text in given["negatives"][part]))


@cache
def texts() -> tuple[Labelled, ...]:
    """All of them: positives and hard negatives of both parts."""
    return tuple(made for part in Part for template in templates_of(part) for made in _drawn(template, part))


def _drawn(template: Template, part: Part) -> Iterator[Labelled]:
    maker = Maker(random.Random(f"{part}:{template.text}"), part is Part.HELD_OUT)
    for _ in range(NUM_NEGATIVE_DRAWS if template.is_negative else NUM_DRAWS):
        yield template.filled(maker, part)
