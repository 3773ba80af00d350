"""Whether a summary is one: short beside what it replaces, and in its own words."""

import re
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from ingest.records.events import Trajectory, Turn, TurnKind
from rewards.scorers import STRICT, Outcome, Scored, Unscored
from rewards.summary import material

_TOKEN = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, config=STRICT)
class Length:
    """1 up to a share of what a summary replaces, 0 from another on, in between linear.

        charged = tokens + tokens in runs of `run` or more that stand in the source or earlier in the summary
        share = max(0, charged - allowance) / tokens of the source

    Tokens are words and punctuation marks, so that the number does not depend on a tokenizer; the source is the context
    before the cut without preamble and request. Copied and repeated tokens count twice. `allowance` tokens are free:
    a short conversation has no summary of a tenth of it.

    Range: [0, 1]; unscored where there is no source. Cost: milliseconds for 10,000 tokens, no model.
    Gamed by: saying nothing (1 here; the others have nothing to reward then); copying with every tenth word changed,
    which escapes the double count and not the share.
    """

    full: float = Field(0.4, gt=0.0)
    none: float = Field(0.9, gt=0.0)
    allowance: int = Field(60, ge=0)
    run: int = Field(10, ge=2)
    name: ClassVar[str] = "length"
    version: ClassVar[str] = "1"
    kinds: ClassVar[frozenset[TurnKind]] = frozenset({TurnKind.SUMMARY})

    def __post_init__(self) -> None:
        if self.none <= self.full:
            raise ValueError(f"`none` must be above `full`, got {self.none} and {self.full}")

    def score(self, trajectory: Trajectory, turn: Turn) -> Outcome:
        source = _tokens("\n".join(map(material.said, material.replaced(trajectory, turn))))
        if not source:
            return Unscored("there is nothing that the summary replaces")
        summary = _tokens(material.text_of(turn))
        charged = len(summary) + num_copied(summary, source, self.run)
        share = max(0, charged - self.allowance) / len(source)
        return Scored(min(1.0, max(0.0, (self.none - share) / (self.none - self.full))))


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(text.lower())


def num_copied(summary: Sequence[str], source: Sequence[str], run: int) -> int:
    """How many tokens of the summary are in runs of at least `run` tokens of the source or of the summary before."""
    known = {tuple(source[at : at + run]) for at in range(len(source) - run + 1)}
    copied: set[int] = set()
    for at in range(len(summary) - run + 1):
        piece = tuple(summary[at : at + run])
        if piece in known:
            copied.update(range(at, at + run))
        known.add(piece)
    return len(copied)
