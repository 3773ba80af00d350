"""Scoring again. Scorers that need an engine are asked only where somebody gives one; else it is open."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

from ingest.records.events import Reward, Trajectory, TurnKind
from rewards.asking import score_all
from rewards.evaluate import Question, ask, reward
from rewards.scorers import Services, Unscored
from rewards.spec import Scoring

NOT_ASKED = Unscored("not asked: --engines")
_TOGETHER = 32  # sessions whose questions share batches; between them the bar moves


@dataclass(frozen=True)
class Again:
    """A reward, and the turns whose value lacks what nobody was asked for."""

    reward: Reward
    lacking: frozenset[str] = frozenset()

    @property
    def is_whole(self) -> bool:
        """Whether the session's value, the mean over its main turns, lacks nothing."""
        return not any(turn.trace_id in self.lacking and turn.kind is TurnKind.MAIN for turn in self.reward.turns)


class Rescoring:
    """Scores by one spec. `services` are for scorers that wait for an engine; none: they are not asked."""

    def __init__(self, scoring: Scoring, services: Services | None = None) -> None:
        self.scoring, self._services = scoring, services
        self._runner = asyncio.Runner()

    def __enter__(self) -> "Rescoring":
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _exc: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._runner.close()

    def score(self, trajectories: Sequence[Trajectory]) -> Iterator[Again]:
        """A reward of each, in their order."""
        if self._services is None:
            yield from map(self._at_once, trajectories)
            return
        for begin in range(0, len(trajectories), _TOGETHER):
            some = trajectories[begin : begin + _TOGETHER]
            yield from map(Again, self._runner.run(score_all(self.scoring, some, self._services)))

    def _at_once(self, trajectory: Trajectory) -> Again:
        asked = ask(self.scoring, trajectory)
        outcomes = asked.outcomes | {question.key: NOT_ASKED for question in asked.open}
        made = reward(self.scoring, trajectory, outcomes, trajectory.closed_at)
        return Again(made, _lacking(self.scoring, trajectory, asked.open))


def _lacking(scoring: Scoring, trajectory: Trajectory, still_open: Sequence[Question]) -> frozenset[str]:
    """Turns with an open question, and all of them where an answer would be credited along the chain."""
    reaching = {part.name for part in scoring.spec.components if part.credit}
    if any(question.component in reaching for question in still_open):
        return frozenset(turn.trace_id for turn in trajectory.turns)
    return frozenset(question.turn.trace_id for question in still_open)


class OncePerScorer(logging.Filter):
    """Lets through the first crash of each scorer: the rest are counted among the reasons."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[object] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        scorer = record.args[0] if isinstance(record.args, tuple) and record.args else record.msg
        is_new = scorer not in self._seen
        self._seen.add(scorer)
        return is_new
