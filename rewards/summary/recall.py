"""Whether a summary kept what was used later, what was decided, and what is left to do."""

from typing import ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from ingest.records.events import Trajectory, Turn, TurnKind
from rewards.scorers import STRICT, Outcome, Scored, Unscored
from rewards.summary import material
from rewards.summary.kept import holds, used_after
from rewards.summary.told import told_by


@dataclass(frozen=True, config=STRICT)
class Recall:
    """Share of what a summary had to keep that it holds, by weight.

        sum of weights held / sum of weights

    A value of the history that a later reply or tool call has weighs `used`; one that only a later user or tool says,
    `restated`: a reply can only use what the summary kept, so what had to be said again was wanted, too. Each decision
    weighs `decision`, each open task `task`, used or not. A value is held where the summary binds it to words that the
    history binds it to (`told.Told`); a decision or task where one statement of it has most of its words.

    Range: [0, 1]; unscored where the history has nothing of it. Cost: milliseconds, no model.
    Gamed by: copying or listing everything (`length`; a list binds nothing); using later only what was kept (`restated`
    and `symptoms` see what had to be asked for, the session's outcome the rest).
    """

    used: float = Field(1.0, ge=0.0)
    restated: float = Field(0.5, ge=0.0)
    decision: float = Field(0.5, ge=0.0)
    task: float = Field(1.0, ge=0.0)
    name: ClassVar[str] = "recall"
    version: ClassVar[str] = "1"
    kinds: ClassVar[frozenset[TurnKind]] = frozenset({TurnKind.SUMMARY})

    def score(self, trajectory: Trajectory, turn: Turn) -> Outcome:
        told = told_by(*map(material.said, material.replaced(trajectory, turn)))
        summary = told.read(material.claims_of(turn))
        used = used_after(told, material.cuts(trajectory, turn))
        wanted = [
            (self.used if is_by_reply else self.restated, holds(told, summary, atom))
            for atom, is_by_reply in used.items()
        ]
        wanted += [(self.decision, told.is_in(one.words, summary)) for one in told.decisions]
        wanted += [(self.task, told.is_in(one.words, summary)) for one in told.open_tasks]
        total = sum(weight for weight, _ in wanted)
        if total <= 0.0:
            return Unscored("the history holds nothing that was used later, decided or left to do")
        return Scored(sum(weight for weight, is_held in wanted if is_held) / total)
