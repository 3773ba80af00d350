"""What answers allow."""

from typing import Any

import pytest

from infra.config import SuitesConfig
from serving.rollout.evidence import Verdict
from serving.rollout.suites.tasks import Suite, Task
from serving.rollout.suites.verdict import Answered, Mark, alone, can_show, judge, least_losses, sign_test

CONFIG = SuitesConfig(margin=0.2, alpha=0.05)
UNTAKEN = Mark(0.0, "status 400: too long", is_taken=False)


def task(name: str, **fields: Any) -> Task:
    return Task.model_validate({"name": name, "ask": "x", "must": [{"contains": "y"}]} | fields)


def blocker(candidate: Mark, stable: Mark, name: str = "b", **fields: Any) -> Answered:
    return Answered("s", task(name, blocker=True, **fields), candidate, stable)


def scores(*pairs: tuple[float, float]) -> list[Answered]:
    return [Answered("s", task(f"t{n}"), Mark(c), Mark(s)) for n, (c, s) in enumerate(pairs)]


def suite(answered: list[Answered]) -> tuple[Suite, ...]:
    return (Suite(suite="s", tasks=tuple(one.task for one in answered)),)


def verdict(answered: list[Answered], config: SuitesConfig = CONFIG) -> tuple[Verdict, str]:
    standing = judge(suite(answered), answered, config)
    return standing.verdict, standing.reason


def test_a_blocker_that_only_the_candidate_breaks_rejects_whatever_the_scores() -> None:
    found = [blocker(Mark(0.0, "must finish with stop, got length"), Mark(1.0)), *scores(*[(1.0, 0.0)] * 20)]
    told, reason = verdict(found)
    assert told is Verdict.REJECT
    assert reason == "blocker s/b (must finish with stop, got length): stable keeps to it"


def test_a_blocker_that_stable_breaks_too_blocks_nobody_and_is_named() -> None:
    told, reason = verdict([blocker(Mark(0.0), Mark(0.0)), *scores((1.0, 1.0))])
    assert told is Verdict.PASS and "stable itself breaks blocker s/b: it blocks nobody" in reason


def test_blockers_are_no_part_of_scores() -> None:
    standing = judge(suite(found := [blocker(Mark(1.0), Mark(1.0)), *scores((0.0, 0.0))]), found, CONFIG)
    assert (standing.numbers["suite.s.candidate"], standing.numbers["suite.s.tasks"]) == (0.0, 1.0)


def test_a_task_that_stable_does_not_take_is_left_out_and_named() -> None:
    told, reason = verdict([blocker(UNTAKEN, UNTAKEN, "long"), *scores((1.0, 1.0))])
    assert told is Verdict.PASS
    assert "left out, since stable's engine does not take it: s/long (status 400: too long)" in reason


def test_a_blocker_that_only_the_candidates_engine_does_not_take_is_broken() -> None:
    assert verdict([blocker(UNTAKEN, Mark(1.0))])[0] is Verdict.REJECT


def test_suites_of_which_stable_takes_no_task_could_not_run() -> None:
    told, reason = verdict([blocker(UNTAKEN, UNTAKEN)])
    assert told is Verdict.REJECT and "could not run" in reason
    assert judge((), [], CONFIG).verdict is Verdict.REJECT


@pytest.mark.parametrize(("losses", "told"), [(1, Verdict.PASS), (2, Verdict.REJECT)])
def test_a_loss_of_the_margin_rejects_and_less_does_not(losses: int, told: Verdict) -> None:
    found = scores(*[(0.0, 1.0)] * losses, *[(1.0, 1.0)] * (10 - losses))
    assert verdict(found)[0] is told


def test_in_a_large_suite_losses_beyond_chance_reject_below_the_margin() -> None:
    found = scores(*[(0.0, 1.0)] * 9, *[(1.0, 0.0)], *[(1.0, 1.0)] * 190)
    told, reason = verdict(found)
    assert told is Verdict.REJECT and "which chance explains with 0.011, 0.05 or less" in reason
    assert verdict(scores(*[(0.0, 1.0)] * 9, *[(1.0, 0.0)] * 5, *[(1.0, 1.0)] * 190))[0] is Verdict.PASS


def test_grades_are_compared_in_pairs_too() -> None:
    assert verdict(scores(*[(0.4, 0.6)] * 5))[0] is Verdict.REJECT
    assert verdict(scores(*[(0.6, 0.4)] * 5))[0] is Verdict.PASS


def test_a_judged_blocker_is_kept_where_the_judge_finds_it_rather_true() -> None:
    assert verdict([blocker(Mark(0.6), Mark(1.0), judge="kind")])[0] is Verdict.PASS
    assert verdict([blocker(Mark(0.4), Mark(0.6), judge="kind")])[0] is Verdict.REJECT


def test_the_sign_test_is_exact() -> None:
    assert sign_test(0, 0) == 1.0
    assert sign_test(1, 9) == pytest.approx(11 / 1024)
    assert sign_test(0, 5) == pytest.approx(1 / 32)


def test_a_small_suite_says_what_it_cannot_show() -> None:
    assert (least_losses(0.05), least_losses(0.4), least_losses(0.0625)) == (5, 2, 4)
    assert sign_test(0, least_losses(0.05)) <= 0.05 < sign_test(0, least_losses(0.05) - 1)
    assert can_show(3, 0.05) == "3 tasks are too few to tell any loss from chance; 5 lost ones are the fewest that are"
    assert "12 tasks tell no loss of fewer than 5" in verdict(scores(*[(1.0, 1.0)] * 12))[1]


def test_numbers_hold_every_task_of_both_arms() -> None:
    found = [blocker(Mark(1.0), Mark(0.0)), blocker(UNTAKEN, UNTAKEN, "long"), *scores((0.25, 0.5))]
    numbers = judge(suite(found), found, SuitesConfig(margin=1.0)).numbers
    assert {name: value for name, value in numbers.items() if name.startswith("task.")} == {
        "task.s/b.candidate": 1.0, "task.s/b.stable": 0.0, "task.s/t0.candidate": 0.25, "task.s/t0.stable": 0.5,
    }  # fmt: skip


def test_one_arm_alone_passes_by_its_blockers() -> None:
    found = [blocker(Mark(1.0), Mark(1.0)), *scores((0.5, 0.5))]
    assert alone(suite(found), found).verdict is Verdict.PASS
    found = [blocker(Mark(0.0), Mark(0.0)), *scores((0.5, 0.5))]
    standing = alone(suite(found), found)
    assert (standing.verdict, standing.reason) == (Verdict.REJECT, "breaks blocker s/b; s: 0.50 over 1 tasks")
