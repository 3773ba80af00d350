"""Asking batch scorers what is open of a trajectory: in the background, or in one call.

`Background` asks in a thread with an event loop, behind the stage's back; `score` in the caller's own loop, for whoever
wants one trajectory's whole reward. Both ask at `rewards.desks`.
"""

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from ingest.records.events import Reward, Trajectory
from rewards.desks import Desks
from rewards.evaluate import Key, Question, ask, reward
from rewards.scorers import Outcome, Services
from rewards.spec import Scoring

logger = logging.getLogger(__name__)

CLOSE_S = 5.0  # a clerk is cancelled at its next await; what blocks the loop for longer is left to die with the process

Answer = tuple[Question, Outcome]


class Asking(Protocol):
    """Questions go in, answers come out later. For use from one thread."""

    def ask(self, questions: Iterable[Question]) -> None:
        """Take questions; returns at once."""

    def answers(self) -> Iterator[Answer]:
        """What was answered since the last call. Waits for nothing."""

    def drop(self, questions: Iterable[Question]) -> None:
        """Nobody waits for these any more. An answer that is on its way may still come."""


class Background:
    """Asks in a thread of its own. `with` it: leaving ends the thread and drops what is open."""

    def __init__(self, services: Services) -> None:
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._desks = Desks(services, lambda question, outcome: self._answers.put((question, outcome)))
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run, name="asking", daemon=True)

    def __enter__(self) -> "Background":
        self._loop = asyncio.new_event_loop()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._desks.stop)
        self._thread.join(CLOSE_S)
        if self._thread.is_alive():
            logger.warning("a batch scorer blocks the loop it is asked in; leaving it behind")

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._desks.work())

    def ask(self, questions: Iterable[Question]) -> None:
        self._loop.call_soon_threadsafe(self._desks.put, tuple(questions))

    def answers(self) -> Iterator[Answer]:
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._answers.get_nowait()

    def drop(self, questions: Iterable[Question]) -> None:
        self._loop.call_soon_threadsafe(self._desks.drop, tuple(questions))


async def score(scoring: Scoring, trajectory: Trajectory, services: Services, at: float | None = None) -> Reward:
    """The whole reward of one trajectory, made at `at`, or else when it closed. Raises nothing of a scorer's."""
    (made,) = await score_all(scoring, [trajectory], services, at)
    return made


async def score_all(
    scoring: Scoring, trajectories: Sequence[Trajectory], services: Services, at: float | None = None
) -> list[Reward]:
    """The rewards of many, asked together: batches are shared, each scorer's concurrency is kept."""
    asked = [ask(scoring, trajectory) for trajectory in trajectories]
    answers = await _answers([question for one in asked for question in one.open], services)
    rewards = []
    for trajectory, one in zip(trajectories, asked, strict=True):
        told: dict[Key, Outcome] = {question.key: answers[question] for question in one.open}
        made_at = trajectory.closed_at if at is None else at
        rewards.append(reward(scoring, trajectory, one.outcomes | told, made_at))
    return rewards


async def _answers(questions: Sequence[Question], services: Services) -> dict[Question, Outcome]:
    found: dict[Question, Outcome] = {}

    def answer(question: Question, outcome: Outcome) -> None:
        found[question] = outcome
        if len(found) == len(questions):
            desks.stop()

    desks = Desks(services, answer)
    if questions:
        desks.put(questions)
        await desks.work()
    return found
