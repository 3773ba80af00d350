"""Scoring again. Scorers that need an engine are asked only where somebody gives one; else it is open."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ingest.records.events import ChatMessage, Reward, Trajectory, TurnKind
from ingest.records.questions import Prompt
from rewards.asking import score_all
from rewards.evaluate import Question, ask, reward
from rewards.scorers import Services, Unscored
from rewards.spec import Scoring
from rewards.summary.likelihood import Likelihoods

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


class Engines:
    """Where scorers are answered that wait for an engine, in a loop of its own. `with` it."""

    def __init__(self, likelihoods: Likelihoods) -> None:
        self._likelihoods, self._services, self._runner = likelihoods, Services(likelihoods), asyncio.Runner()

    def __enter__(self) -> "Engines":
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.close()

    def require(self) -> None:
        """Raise `UnavailableError` where nobody answers: a scorer would wait minutes to learn it, for each turn."""
        self._runner.run(self._likelihoods.render([Prompt(messages=(ChatMessage(role="user", text="?"),))]))

    def score(self, scoring: Scoring, trajectories: Sequence[Trajectory]) -> list[Reward]:
        """The whole reward of each."""
        return self._runner.run(score_all(scoring, trajectories, self._services))


class Rescoring:
    """Scores by one spec. Without `engines`, scorers that wait for one are not asked."""

    def __init__(self, scoring: Scoring, engines: Engines | None = None) -> None:
        self.scoring, self._engines = scoring, engines

    def score(self, trajectories: Sequence[Trajectory]) -> Iterator[Again]:
        """A reward of each, in their order."""
        if self._engines is None:
            yield from map(self._at_once, trajectories)
            return
        for begin in range(0, len(trajectories), _TOGETHER):
            yield from map(Again, self._engines.score(self.scoring, trajectories[begin : begin + _TOGETHER]))

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
