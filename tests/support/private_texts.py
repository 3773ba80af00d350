"""Labelled texts: each with the exact places of its private values, and texts that have none but look as if.

Made from the templates in `private_texts.yaml` and the values of `private_values.py` by a fixed seed: 640 texts with
private values and 198 without, the same on every machine. `Part.HELD_OUT` has other templates and other forms of
values than `Part.DEVELOPMENT`.
"""

import random
import re
from collections.abc import Iterator, Sequence
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


@cache
def texts() -> tuple[Labelled, ...]:
    """All of them: positives and hard negatives of both parts."""
    templates = yaml.safe_load((Path(__file__).parent / "private_texts.yaml").read_text(encoding="utf-8"))
    return tuple(
        made
        for part in Part
        for made in (
            *_drawn(templates[part], part, NUM_DRAWS, positive=True),
            *_drawn(templates["negatives"][part], part, NUM_NEGATIVE_DRAWS, positive=False),
        )
    )


def _drawn(templates: Sequence[str], part: Part, num: int, positive: bool) -> Iterator[Labelled]:
    for template in templates:
        maker = Maker(random.Random(f"{part}:{template}"), part is Part.HELD_OUT)
        for _ in range(num):
            made = _fill(template, maker, part, positive)
            assert bool(made.labels) == positive, f"template {template!r}: labels must be there: {positive}"
            yield made


def _fill(template: str, maker: Maker, part: Part, positive: bool) -> Labelled:
    pieces, labels, at, length = [], [], 0, 0
    for marker in _MARKER.finditer(template):
        value = maker.make(marker[1])
        start = length + marker.start() - at
        pieces += [template[at : marker.start()], value]
        at, length = marker.end(), start + len(value)
        if positive:
            labels.append(Label(start, length, marker[1].partition(":")[0]))
    return Labelled("".join([*pieces, template[at:]]), tuple(labels), part)
