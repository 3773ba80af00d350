"""Asking both arms all tasks: blockers first, a few at a time."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from serving.rollout.asking import CheckError, first_of
from serving.rollout.suites.asking import Arm
from serving.rollout.suites.judge import Judge
from serving.rollout.suites.replies import Declined, Reply
from serving.rollout.suites.tasks import Suite, Task
from serving.rollout.suites.verdict import Answered, Mark, blocked


@dataclass(frozen=True)
class Arms:
    """Whom to ask, and who grades. Without `stable` the candidate's marks stand for both."""

    candidate: Arm
    stable: Arm | None
    judge: Judge | None


async def mark(task: Task, reply: Reply | Declined, judge: Judge | None) -> Mark:
    """What a reply is worth: 0 where it breaks a rule, else the judge's grade, or 1 where none is asked.

    Raises:
        CheckError: the judge gave no grade, or there is none.
    """
    if isinstance(reply, Declined):
        return Mark(0.0, f"status {reply.status}: {reply.why:.80}", is_taken=False)
    for rule in task.must:
        if why := rule.broken_by(reply):
            return Mark(0.0, why)
    if not task.judge:
        return Mark(1.0)
    if judge is None:
        raise CheckError(f"task {task.name} is judged, and no judge is configured")
    grade = await judge.value(task, reply)
    return Mark(grade, "" if grade == 1.0 else f"the judge gives it {grade:g}")


async def both(suite: Suite, task: Task, arms: Arms) -> Answered:
    """A task's marks on both arms."""

    async def marked(arm: Arm) -> Mark:
        return await mark(task, await arm.answer(task), arms.judge)

    async with asyncio.TaskGroup() as group:
        candidate = group.create_task(marked(arms.candidate))
        stable = group.create_task(marked(arms.stable)) if arms.stable else candidate
    return Answered(suite.suite, task, candidate.result(), stable.result())


async def answers(
    suites: Sequence[Suite], arms: Arms, concurrency: int, tell: Callable[[int, int], None]
) -> list[Answered]:
    """All tasks' answers, in the suites' order; only the blockers' where one of these ends it.

    Raises:
        CheckError: an arm or the judge does not answer.
    """
    asked = [(suite, task) for suite in suites for task in suite.tasks]
    found: dict[int, Answered] = {}
    waiting = asyncio.Semaphore(concurrency)

    async def ask(number: int) -> None:
        async with waiting:
            found[number] = await both(*asked[number], arms)
            tell(len(found), len(asked))

    for wanted in (True, False):
        try:
            async with asyncio.TaskGroup() as group:
                for number, (_, task) in enumerate(asked):
                    if task.blocker is wanted:
                        group.create_task(ask(number))
        except* CheckError as errors:
            raise first_of(errors) from errors
        if blocked(list(found.values())):
            break
    return [found[number] for number in sorted(found)]
