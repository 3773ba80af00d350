"""Desks where batch scorers are asked: in batches, so many calls at a time, each within its time.

Each component's scorer has a desk of its own: a queue, and `cost.concurrency` clerks that take `cost.batch` questions
at a time. So a slow scorer delays no other. What becomes of a batch:

    answered in time         its outcomes
    UnavailableError         nobody could be asked: the batch queues again after a wait that grows from 0.5 to 15 s
    longer than `timeout_s`  the same
    anything else            `Unscored("crashed: ...")`, logged

A question is given up, as `Unscored` with the last reason, `window_s` after it was first asked: every question has an
answer within `window_s` and one call or wait. An outage is one line in the log when it begins and one when it is over.

Nothing here bounds the queues: whoever asks does, by not asking more, or by dropping what it no longer waits for. All
of it runs in one event loop, on that loop's clock.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import TypeGuard

from infra.lifecycle import backoff_s
from infra.telemetry import Local
from rewards.evaluate import Question, crashed
from rewards.scorers import Outcome, Scored, Services, Unscored
from rewards.summary.likelihood import UnavailableError

logger = logging.getLogger(__name__)

FIRST_WAIT_S, MOST_WAIT_S = 0.5, 15.0
BUSY = "its turn did not come"


class Desks:
    """All desks of one event loop, opened as they are asked for."""

    def __init__(self, services: Services, answer: Callable[[Question, Outcome], None]) -> None:
        self._services, self._answer = services, answer
        self._desks: dict[str, _Desk] = {}
        self._clerks: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()

    async def work(self) -> None:
        """Until `stop`; what is open then is dropped."""
        await self._stopped.wait()
        for clerk in self._clerks:
            clerk.cancel()
        await asyncio.gather(*self._clerks, return_exceptions=True)

    def stop(self) -> None:
        self._stopped.set()

    def put(self, questions: Iterable[Question]) -> None:
        """Queue questions at their desks. Called in the loop."""
        for question in questions:
            desk = self._desks.get(question.component)
            if desk is None:
                desk = self._desks[question.component] = _Desk(question, self._services, self._answer)
                self._clerks |= {asyncio.ensure_future(desk.serve()) for _ in range(question.scorer.cost.concurrency)}
            desk.put(question)

    def drop(self, questions: Iterable[Question]) -> None:
        for question in questions:
            if desk := self._desks.get(question.component):
                desk.drop(question)


class _Desk:
    """One component's questions, oldest first, each with the loop's time at which it is given up."""

    def __init__(self, first: Question, services: Services, answer: Callable[[Question, Outcome], None]) -> None:
        self._name, self._scorer, self._cost = first.component, first.scorer, first.scorer.cost
        self._services, self._answer = services, answer
        self._queue: dict[Question, float] = {}
        self._open: set[Question] = set()  # queued or being asked, and not dropped
        self._more = asyncio.Event()
        self._waits = backoff_s(FIRST_WAIT_S, MOST_WAIT_S)
        self._away_since: float | None = None
        self._reason = BUSY

    def put(self, question: Question) -> None:
        self._open.add(question)
        self._queue[question] = _now() + self._cost.window_s
        self._more.set()

    def drop(self, question: Question) -> None:
        self._open.discard(question)
        self._queue.pop(question, None)

    async def serve(self) -> None:
        """A clerk: take a batch, ask, answer; for ever."""
        while True:
            batch = await self._take()
            try:
                outcomes = await self._ask(list(batch))
            except UnavailableError as exc:
                await self._wait(batch, str(exc) or type(exc).__name__)
            else:
                self._is_back()
                for question, outcome in zip(batch, outcomes, strict=True):
                    self._tell(question, outcome)

    async def _take(self) -> dict[Question, float]:
        while True:
            for question in [one for one, until in self._queue.items() if until <= _now()]:
                del self._queue[question]
                self._tell(question, Unscored(f"no answer within {self._cost.window_s:g} s: {self._reason}"))
            if batch := dict(islice(self._queue.items(), self._cost.batch)):
                for question in batch:
                    del self._queue[question]
                return batch
            self._more.clear()
            await self._more.wait()

    async def _ask(self, batch: Sequence[Question]) -> Sequence[Outcome]:
        """An outcome for each. Raises `UnavailableError`, for want of time too."""
        asked = [(question.trajectory, question.turn) for question in batch]
        try:
            async with asyncio.timeout(self._cost.timeout_s) as limit:
                outcomes: object = await self._scorer.score_batch(asked, self._services)
        except UnavailableError:
            raise
        except asyncio.CancelledError:
            if (clerk := asyncio.current_task()) is None or clerk.cancelling():
                raise  # the desk closes
            return self._crashed(batch, "CancelledError")
        except Exception as exc:  # a user's scorer may raise anything; a crash is no number
            if limit.expired():
                raise UnavailableError(f"no answer within {self._cost.timeout_s:g} s") from exc
            return self._crashed(batch, type(exc).__name__, str(exc))
        if _are_outcomes(outcomes, len(batch)):
            return outcomes
        return self._crashed(batch, f"must return {len(batch)} of Scored or Unscored, got {type(outcomes).__name__}")

    def _crashed(self, batch: Sequence[Question], what: str, message: str = "") -> list[Outcome]:
        return [crashed(self._scorer, question.turn, what, message) for question in batch]

    async def _wait(self, batch: dict[Question, float], reason: str) -> None:
        self._reason = reason
        if self._away_since is None:
            self._away_since = _now()
            logger.warning("component %s: its scorer is unavailable, trying again: %s", self._name, Local(reason))
        await asyncio.sleep(min(next(self._waits), max(0.0, min(batch.values()) - _now())))
        self._queue = {question: until for question, until in batch.items() if question in self._open} | self._queue

    def _is_back(self) -> None:
        if self._away_since is not None:
            logger.info("component %s: its scorer is back after %.1f s", self._name, _now() - self._away_since)
            self._away_since, self._reason, self._waits = None, BUSY, backoff_s(FIRST_WAIT_S, MOST_WAIT_S)

    def _tell(self, question: Question, outcome: Outcome) -> None:
        if question in self._open:
            self._open.discard(question)
            self._answer(question, outcome)


def _are_outcomes(given: object, num: int) -> TypeGuard[Sequence[Outcome]]:
    if not isinstance(given, Sequence) or len(given) != num:
        return False
    return all(isinstance(one, Scored | Unscored) for one in given)


def _now() -> float:
    return asyncio.get_running_loop().time()
