import math
from typing import Any

import pytest

from infra.config import AlarmsConfig
from trainer.alarms import AlarmKind, Health, Measured, Running, alarm
from trainer.learner.update import StepMetrics, UpdateMetrics

BOUNDS = AlarmsConfig()
STEP = StepMetrics(False, 0.1, 1.0, 0.01, 1.0, 0.9, 0.1, 10, k3=0.01, entropy=1.0)
SKIPPED = StepMetrics(True, math.nan, math.nan, math.nan, 1.0, 1.0, 0.0, 10)


def step(**changes: float) -> StepMetrics:
    return StepMetrics(**{**vars(STEP), **changes})


def measured(*steps: StepMetrics, reward: float = 0.5, spec: str = "default-1") -> Measured:
    return Measured(spec, reward, 0.01, UpdateMetrics.of(steps or [STEP]))


def usual(num: int = 8, **changes: Any) -> Health:
    """After so many updates that were alike."""
    health = Health()
    for _ in range(num):
        health = health.after(measured(**changes))
    return health


@pytest.mark.parametrize(
    ("steps", "kind", "setting"),
    [
        ([SKIPPED], AlarmKind.NOT_FINITE, "max_skipped"),
        ([SKIPPED, STEP], AlarmKind.NOT_FINITE, "max_skipped"),
        ([step(ess=0.2)], AlarmKind.ESS, "min_ess"),
        ([step(ess=math.nan)], AlarmKind.ESS, "min_ess"),
        ([STEP, step(kl=0.5)], AlarmKind.KL, "max_kl"),
        ([STEP, step(kl=-0.5)], AlarmKind.KL, "max_kl"),
        ([step(kl=0.25, ess=0.1)], AlarmKind.MISMATCH, "max_mismatch"),
        ([step(entropy=0.4)], AlarmKind.ENTROPY, "max_entropy_change"),
        ([step(entropy=1.6)], AlarmKind.ENTROPY, "max_entropy_change"),
        ([step(grad_norm=11.0)], AlarmKind.GRADIENT, "max_gradient_rise"),
    ],
)
def test_an_unhealthy_update_raises_an_alarm_that_names_its_bound(
    steps: list[StepMetrics], kind: AlarmKind, setting: str
) -> None:
    raised = alarm(measured(*steps), usual(), BOUNDS)
    assert raised is not None and raised.kind is kind
    assert f"trainer.alarms.{setting}" in raised.told


@pytest.mark.parametrize("reward", [0.57, 0.43])
def test_rewards_seven_deviations_from_the_last_batches_raise_one(reward: float) -> None:
    raised = alarm(measured(reward=reward), usual(), BOUNDS)
    assert raised is not None and raised.kind is AlarmKind.REWARD and "7.0 deviations" in raised.told


def test_a_healthy_update_raises_none_even_with_one_step_of_three_skipped() -> None:
    assert alarm(measured(STEP, STEP, SKIPPED), usual(), BOUNDS) is None


def test_alarms_that_look_back_are_silent_until_they_have_seen_enough() -> None:
    wild = measured(step(entropy=9.0, grad_norm=99.0), reward=1.0)
    assert alarm(wild, usual(7), BOUNDS) is None
    assert alarm(wild, usual(8), BOUNDS) is not None


def test_rewards_under_another_spec_are_not_compared() -> None:
    wild, health = measured(reward=1.0, spec="default-2"), usual()
    assert alarm(wild, health, BOUNDS) is None
    assert health.after(wild).reward == Running(num=1, mean=1.0)


def test_a_level_that_is_new_to_stay_is_taken_for_granted_within_two_batches() -> None:
    health, raised = usual(20), []
    for _ in range(4):
        raised.append(alarm(measured(reward=0.9), health, BOUNDS) is not None)
        health = health.after(measured(reward=0.9))
    assert raised == [True, False, False, False]


@pytest.mark.parametrize(("entropy", "num_batches"), [(2.0, 4), (0.2, 14)])
def test_an_entropy_that_is_new_to_stay_is_taken_for_granted_later(entropy: float, num_batches: int) -> None:
    health, seen, num = usual(40), measured(step(entropy=entropy)), 0
    while alarm(seen, health, BOUNDS) is not None:
        health, num = health.after(seen), num + 1
    assert num == num_batches


def test_an_alarm_that_is_off_says_nothing_but_no_step_at_all_still_does() -> None:
    off = AlarmsConfig.model_validate(
        {
            name: None
            for name in AlarmsConfig.model_fields
            if name[:4] in ("max_", "min_") and name not in ("max_skipped", "min_updates")
        }
    )
    bad = measured(step(ess=0.01, kl=9.0, entropy=0.0, grad_norm=1e9), reward=1.0)
    assert alarm(bad, usual(), off) is None
    assert alarm(measured(SKIPPED), usual(), off) is not None


def test_running_numbers_are_plain_over_the_first_ten() -> None:
    running = Running()
    for value in (1.0, 2.0, 6.0, math.nan):
        running = running.after(value)
    assert (running.num, running.mean, running.variance) == (3, 3.0, pytest.approx(14.0 / 3.0))
