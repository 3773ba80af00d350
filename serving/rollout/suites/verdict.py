"""What the answers of candidate and stable to the same tasks allow. Pure.

A blocker that the candidate breaks and stable keeps rejects, whatever the scores are. One that stable breaks too blocks
nobody, and is named. A task that stable's engine does not take (a context too long for it, tools that it was not
started with) is left out, and named; one that only the candidate's does not take is broken by it.

Scores are compared in pairs, suite by suite: over the score tasks, d = candidate - stable. A suite rejects where

    mean(d) <= -margin                       it lost that much here, whether or not that is chance
    P(Binomial(wins + losses, 1/2) >= losses) <= alpha     losses are too many for chance: the exact sign test, which
                                             for right or wrong is McNemar's exact test (McNemar, Psychometrika 1947)

The second finds small losses in large suites. n tasks can show none of fewer than log2(1/alpha) tasks, rounded up, by
it, so each verdict says so: passing a small suite is no proof of quality, which is what the canary is for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from infra.config import SuitesConfig
from serving.rollout.evidence import Standing, Verdict
from serving.rollout.suites.tasks import Suite, Task

_TIE = 1e-9


@dataclass(frozen=True)
class Mark:
    """What a reply was worth, in [0, 1], and why not more. `is_taken`: the engine took the task."""

    value: float
    why: str = ""
    is_taken: bool = True

    def keeps(self, task: Task) -> bool:
        """Whether a blocker is kept: all rules, and a judge that finds it rather true than not."""
        return self.is_taken and self.value >= (0.5 if task.judge else 1.0)


@dataclass(frozen=True)
class Answered:
    """A task as both arms answered it."""

    suite: str
    task: Task
    candidate: Mark
    stable: Mark


def blocked(answered: Sequence[Answered]) -> str | None:
    """Why to reject at once: the blockers that the candidate alone breaks."""
    told = [
        f"{one.suite}/{one.task.name} ({one.candidate.why})"
        for one in answered
        if one.task.blocker and one.stable.keeps(one.task) and not one.candidate.keeps(one.task)
    ]
    return f"blocker {'; blocker '.join(told)}: stable keeps to it" if told else None


def judge(suites: Sequence[Suite], answered: Sequence[Answered], config: SuitesConfig) -> Standing:
    """PASS or REJECT, from the answers to all tasks."""
    numbers = _table(answered)
    if reason := blocked(answered):
        return Standing(Verdict.REJECT, reason, numbers)
    taken = [one for one in answered if one.stable.is_taken]
    if not taken:
        why = answered[0].stable.why if answered else "there is none"
        return Standing(Verdict.REJECT, f"suites could not run: stable takes none of their tasks ({why})", numbers)
    told: list[str] = []
    worse: list[str] = []
    for suite in suites:
        mine = [one for one in taken if one.suite == suite.suite and not one.task.blocker]
        if mine:
            compared = compare(mine, config)
            numbers |= {f"suite.{suite.suite}.{name}": value for name, value in compared.numbers.items()}
            (worse if compared.is_worse else told).append(f"{suite.suite}: {compared.told}")
    notes = _notes(answered)
    if worse:
        return Standing(Verdict.REJECT, "; ".join([*worse, *notes]), numbers)
    num = sum(one.task.blocker and one.stable.keeps(one.task) for one in taken)
    return Standing(
        Verdict.PASS, "; ".join([*([f"kept all of {num} blockers"] if num else []), *told, *notes]), numbers
    )


def alone(suites: Sequence[Suite], answered: Sequence[Answered]) -> Standing:
    """One arm by itself, as somebody tries it who writes a suite: PASS where it keeps all blockers that it takes."""
    numbers, taken = _table(answered), [one for one in answered if one.candidate.is_taken]
    broken = [f"{one.suite}/{one.task.name}" for one in taken if one.task.blocker and not one.candidate.keeps(one.task)]
    told = [f"breaks blocker {', '.join(broken)}"] if broken else []
    for suite in suites:
        scores = [one.candidate.value for one in taken if one.suite == suite.suite and not one.task.blocker]
        if scores:
            told.append(f"{suite.suite}: {math.fsum(scores) / len(scores):.2f} over {len(scores)} tasks")
    is_fine = bool(taken) and not broken
    return Standing(Verdict.PASS if is_fine else Verdict.REJECT, "; ".join(told) or "it takes no task", numbers)


@dataclass(frozen=True)
class Compared:
    """A suite's scores, paired."""

    is_worse: bool
    told: str
    numbers: dict[str, float]


def compare(pairs: Sequence[Answered], config: SuitesConfig) -> Compared:
    """Of at least one score task that stable takes."""
    differences = [one.candidate.value - one.stable.value for one in pairs]
    candidate, stable = (math.fsum(values) / len(pairs) for values in zip(*_values(pairs), strict=True))
    wins, losses = sum(d > _TIE for d in differences), sum(d < -_TIE for d in differences)
    chance = sign_test(wins, losses)
    is_beyond = stable - candidate >= config.margin - _TIE
    scores = f"{candidate:.2f} against {stable:.2f} over {len(pairs)} tasks, {wins} better and {losses} worse"
    why = ""
    if is_beyond:
        why = f", which is {config.margin:g} or more below"
    elif chance <= config.alpha:
        why = f", which chance explains with {chance:.3f}, {config.alpha:g} or less"
    else:
        why = f" ({can_show(len(pairs), config.alpha)})"
    numbers = {"tasks": len(pairs), "candidate": candidate, "stable": stable, "wins": wins, "losses": losses}
    numbers |= {"chance": chance, "least_losses": least_losses(config.alpha)}
    return Compared(is_beyond or chance <= config.alpha, scores + why, {k: float(v) for k, v in numbers.items()})


def sign_test(wins: int, losses: int) -> float:
    """P(as many losses or more | each of them as likely a win): exact, 1 where there are neither."""
    num = wins + losses
    return float(sum(math.comb(num, k) for k in range(losses, num + 1)) / 2**num)


def least_losses(alpha: float) -> int:
    """The fewest losses, without a win, that are too many for chance."""
    return math.ceil(-math.log2(alpha) - _TIE)


def can_show(num_tasks: int, alpha: float) -> str:
    """What a suite of that many tasks can find by the sign test, as a part of a sentence."""
    least = least_losses(alpha)
    if num_tasks < least:
        return f"{num_tasks} tasks are too few to tell any loss from chance; {least} lost ones are the fewest that are"
    return f"{num_tasks} tasks tell no loss of fewer than {least} of them from chance"


def _values(pairs: Sequence[Answered]) -> list[tuple[float, float]]:
    return [(one.candidate.value, one.stable.value) for one in pairs]


def _table(answered: Sequence[Answered]) -> dict[str, float]:
    """Each task's value on each arm; none for one that an arm's engine does not take."""
    return {
        f"task.{one.suite}/{one.task.name}.{arm}": mark.value
        for one in answered
        for arm, mark in (("candidate", one.candidate), ("stable", one.stable))
        if mark.is_taken
    }


def _notes(answered: Sequence[Answered]) -> list[str]:
    """Blockers that block nobody, and tasks that were left out."""
    idle = [
        f"{one.suite}/{one.task.name}"
        for one in answered
        if one.task.blocker and one.stable.is_taken and not one.stable.keeps(one.task)
    ]
    left_out = [f"{one.suite}/{one.task.name} ({one.stable.why})" for one in answered if not one.stable.is_taken]
    told = [f"stable itself breaks blocker {', '.join(idle)}: it blocks nobody"] if idle else []
    return told + ([f"left out, since stable's engine does not take it: {', '.join(left_out)}"] if left_out else [])
