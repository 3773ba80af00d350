import math

import pytest

from trainer.learner.update import StepMetrics, UpdateMetrics, alarm

STEP = StepMetrics(False, loss=0.1, grad_norm=1.0, kl=0.01, mean_ratio=1.0, ess=0.9, clip_fraction=0.1, num_tokens=10)
SKIPPED = StepMetrics(True, math.nan, math.nan, math.nan, 1.0, 1.0, 0.0, 10)


def step(**changes: float) -> StepMetrics:
    return StepMetrics(**{**vars(STEP), **changes})


def test_means_are_over_the_steps_that_were_taken() -> None:
    metrics = UpdateMetrics.of([step(loss=1.0), SKIPPED, step(loss=3.0)])
    assert (metrics.loss, metrics.num_steps, metrics.num_skipped, metrics.num_tokens) == (2.0, 3, 1, 30)


@pytest.mark.parametrize(
    ("steps", "word"),
    [
        ([SKIPPED], "not finite"),
        ([SKIPPED, STEP], "not finite"),
        ([step(ess=0.2)], "effective sample size"),
        ([step(ess=math.nan)], "effective sample size"),
        ([step(kl=0.3)], "KL"),
        ([step(kl=-0.3)], "KL"),
    ],
)
def test_an_unhealthy_update_raises_an_alarm(steps: list[StepMetrics], word: str) -> None:
    reason = alarm(UpdateMetrics.of(steps))
    assert reason is not None and word in reason


def test_a_healthy_update_raises_none_even_with_one_step_of_three_skipped() -> None:
    assert alarm(UpdateMetrics.of([STEP, STEP, SKIPPED])) is None


def test_how_far_the_policy_moved_is_told_by_the_ratios() -> None:
    """Ratios 1.2, 0.8, 1.2 and 0.8: mean 1, mean square 1.04, so ess 1 / 1.04; each is 0.2 from 1."""
    assert UpdateMetrics.of([step(ess=1 / 1.04)]).moved == pytest.approx(0.2)
    assert UpdateMetrics.of([step(ess=1.0)]).moved == 0.0
    assert UpdateMetrics.of([step(ess=1.0 + 1e-12)]).moved == 0.0, "rounding"
