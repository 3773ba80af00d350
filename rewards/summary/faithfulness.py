"""Whether what a summary claims is what the history says."""

from collections.abc import Iterator
from typing import ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from ingest.records.events import Trajectory, Turn, TurnKind
from ingest.sessions import history
from rewards.scorers import STRICT, Outcome, Scored
from rewards.summary import material
from rewards.summary.facts import Statement
from rewards.summary.told import Standing, Told, told_by

_PLAIN_WORDS = 3  # a statement without values that has fewer content words claims nothing


@dataclass(frozen=True, config=STRICT)
class Faithfulness:
    """Share of a summary's claims that its history supports, those it contradicts counting several times.

        held / (held + cost)

    A claim is a value in the words around it, or a statement without values. It costs nothing when held; else `wrong`
    where what the history says in these words has another value; `invented` where it has neither the value nor the
    words; `unsupported` where a value stands without words, or no statement of the history has most of a plain claim's
    words; half of that where the value is the history's and the words are not. That nothing is left to do, said or, by
    a summary with other claims, implied by naming none of the open tasks, is a wrong claim where there are some.

    Range: [0, 1]; 1 where nothing is claimed. Cost: microseconds a claim, no model.
    Gamed by: claiming nothing (`recall` and `sufficiency` have nothing to reward then); claiming little that is sure
    (the same); repeating a true claim in other words to thin out a false one (`length`). Relations that share no word
    with the history are not seen, so a lie in words of its own costs as much as an honest rewording: an unbound value.
    """

    wrong: float = Field(8.0, ge=0.0)
    invented: float = Field(3.0, ge=0.0)
    unsupported: float = Field(1.0, ge=0.0)
    name: ClassVar[str] = "faithfulness"
    version: ClassVar[str] = "1"
    kinds: ClassVar[frozenset[TurnKind]] = frozenset({TurnKind.SUMMARY})

    def score(self, trajectory: Trajectory, turn: Turn) -> Outcome:
        asked = history.messages_of(trajectory, turn.trace_id)[:-1]
        told = told_by(*map(material.said, asked))
        costs = list(self._costs(told, told.read(material.claims_of(turn))))
        held = sum(cost == 0.0 for cost in costs)
        return Scored(held / (held + sum(costs)) if costs else 1.0)

    def _costs(self, told: Told, summary: tuple[Statement, ...]) -> Iterator[float]:
        """The cost of each claim, 0 for one that is held."""
        cost = {
            Standing.HELD: 0.0,
            Standing.WRONG: self.wrong,
            Standing.UNBOUND: self.unsupported / 2.0,
            Standing.UNKNOWN: self.invented,
            Standing.BARE: self.unsupported,
        }
        has_claims = False
        for statement in summary:
            for mention in statement.mentions:
                has_claims = True
                yield cost[told.standing(mention)]
            if not statement.mentions and len(statement.words) >= _PLAIN_WORDS and not statement.says_all_is_done:
                has_claims = True
                yield 0.0 if told.supports(statement.words) and not statement.is_list else self.unsupported
        tasks = told.open_tasks
        names_a_task = any(told.is_in(task.words, summary) for task in tasks)
        if any(statement.says_all_is_done for statement in summary):
            yield from (self.wrong for _ in tasks)
        elif has_claims and tasks and not names_a_task:
            yield self.wrong
