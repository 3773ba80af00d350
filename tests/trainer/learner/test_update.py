import math

import pytest

from infra.config import LrByEss
from trainer.learner.update import StepMetrics, UpdateMetrics, lr_scale

STEP = StepMetrics(False, loss=0.1, grad_norm=1.0, kl=0.01, mean_ratio=1.0, ess=0.9, clip_fraction=0.1, num_tokens=10)
SKIPPED = StepMetrics(True, math.nan, math.nan, math.nan, 1.0, 1.0, 0.0, 10)


def step(**changes: float) -> StepMetrics:
    return StepMetrics(**{**vars(STEP), **changes})


def test_means_are_over_the_steps_that_were_taken() -> None:
    metrics = UpdateMetrics.of([step(loss=1.0), SKIPPED, step(loss=3.0)])
    assert (metrics.loss, metrics.num_steps, metrics.num_skipped, metrics.num_tokens) == (2.0, 3, 1, 30)


def test_the_mismatch_is_that_of_the_first_step_that_was_taken() -> None:
    metrics = UpdateMetrics.of([SKIPPED, step(kl=0.02, k3=0.03), step(kl=0.5, k3=0.6)])
    assert (metrics.mismatch_k1, metrics.mismatch_k3) == (0.02, 0.03)


def test_a_manifest_is_given_no_number_that_json_does_not_have() -> None:
    numbers = UpdateMetrics.of([step(loss=math.inf)]).numbers()
    assert not {"entropy", "loss", "hint_gap", "num_hinted"} & numbers.keys() and numbers["kl"] == 0.01


def test_how_far_the_policy_moved_is_told_by_the_ratios() -> None:
    """Ratios 1.2, 0.8, 1.2 and 0.8: mean 1, mean square 1.04, so ess 1 / 1.04; each is 0.2 from 1."""
    assert UpdateMetrics.of([step(ess=1 / 1.04)]).moved == pytest.approx(0.2)
    assert UpdateMetrics.of([step(ess=1.0)]).moved == 0.0
    assert UpdateMetrics.of([step(ess=1.0 + 1e-12)]).moved == 0.0, "rounding"


@pytest.mark.parametrize(
    ("rule", "scale"), [(LrByEss.NONE, 1.0), (LrByEss.SQRT, 0.5), (LrByEss.LINEAR, 0.25)], ids=lambda one: str(one)
)
def test_a_quarter_of_the_samples_counts_as_the_rule_says(rule: LrByEss, scale: float) -> None:
    assert lr_scale(rule, 0.25) == scale
    assert lr_scale(rule, math.nan) == 1.0
