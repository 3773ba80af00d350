"""The gate's arithmetic, against numbers worked by hand and against what it promises."""

import itertools
import math
import random

import pytest

from infra.config import GateConfig, GuardrailConfig, RampStep
from ingest.records.events import Arm
from serving.rollout import gate
from serving.rollout.gate import Baseline, Unit, Verdict

HALF = Baseline(mean=0.5, variance=0.25)


def unit(n: int, arm: Arm, reward: float, pi: float = 0.5, **guardrails: float) -> Unit:
    propensity = pi if arm is Arm.CANDIDATE else 1.0 - pi
    return Unit(f"s{n}", arm, propensity, reward, guardrails)


def trial(rng: random.Random, num: int, stable: float, candidate: float, pi: float = 0.5) -> tuple[Unit, ...]:
    units = []
    for n in range(num):
        arm = Arm.CANDIDATE if rng.random() < pi else Arm.STABLE
        rate = candidate if arm is Arm.CANDIDATE else stable
        units.append(unit(n, arm, float(rng.random() < rate), pi))
    return tuple(units)


CONFIG = GateConfig(margin=0.1, min_champion_units=2, guardrails=())


def judge(units: tuple[Unit, ...], config: GateConfig = CONFIG, age_s: float = 0.0) -> gate.Standing:
    baselines = {"reward": HALF} | {rail.name: Baseline(0.9, 0.09) for rail in config.guardrails}
    return gate.judge(units, baselines, config, trial=1, promotions=0, age_s=age_s)


def test_a_candidate_success_scores_its_surprise_over_its_share() -> None:
    assert gate.score(Arm.CANDIDATE, 0.25, 1.0, 0.6) == pytest.approx(1.6)
    assert gate.score(Arm.STABLE, 0.25, 1.0, 0.6) == pytest.approx(-0.4 / 0.75)


def test_evidence_from_one_unit_is_the_mixture_worked_by_hand() -> None:
    # pi .5, c .5, s2 .25: phi = 1, v = 1, B = 1; stakes are min(m * .1, .5) for m = .5, 1, 2, 4, 8
    stakes = [0.05, 0.1, 0.2, 0.4, 0.5]
    expected = math.log(sum(1 + stake * 1.1 for stake in stakes) / 5)
    assert gate.log_evidence([(Arm.CANDIDATE, 0.5, 1.0)], HALF, 0.1) == pytest.approx(expected)
    harm = math.log(sum(1 - stake * 1.0 for stake in stakes) / 5)
    assert gate.log_harm([(Arm.CANDIDATE, 0.5, 1.0)], HALF, 0.1) == pytest.approx(harm)


def test_no_units_are_no_evidence() -> None:
    assert gate.log_evidence([], HALF, 0.1) == 0.0
    assert gate.log_mismatch([]) == 0.0
    assert judge(()).verdict is Verdict.HOLD


def test_evidence_does_not_depend_on_the_order_of_arrival() -> None:
    units = [(u.arm, u.pi, u.reward) for u in trial(random.Random(1), 200, 0.5, 0.6, 0.3)]
    shuffled = units.copy()
    random.Random(2).shuffle(shuffled)
    assert gate.log_evidence(units, HALF, 0.1) == pytest.approx(gate.log_evidence(shuffled, HALF, 0.1))


def test_evidence_stays_finite_at_the_most_surprising_outcomes() -> None:
    for pi in (0.01, 0.5, 0.99):
        for mean in (0.001, 0.5, 0.999):
            base = Baseline(mean, 1e-4)
            for arm in Arm:
                for outcome in (0.0, 1.0):
                    assert math.isfinite(gate.log_evidence([(arm, pi, outcome)], base, 0.5))
                    assert math.isfinite(gate.log_harm([(arm, pi, outcome)], base, 0.5))


def test_a_candidate_worse_by_the_margin_is_promoted_less_often_than_alpha() -> None:
    rng = random.Random(7)
    config = GateConfig(margin=0.1, alpha=0.1, alpha_rollback=1e-9, guardrails=())
    level = gate.level(config.alpha, 1, 0)
    crossed = 0
    for _ in range(300):
        units = [(u.arm, u.pi, u.reward) for u in trial(rng, 300, 0.5, 0.4)]
        crossed += any(gate.log_evidence(units[:n], HALF, 0.1) >= -math.log(level) for n in range(10, 301, 10))
    assert crossed / 300 <= level + 0.03  # three standard errors above the promise


def test_a_clearly_better_candidate_is_promoted() -> None:
    standing = judge(trial(random.Random(3), 300, 0.45, 0.8))
    assert standing.verdict is Verdict.PASS
    assert "reward" in standing.reason


def test_a_clearly_worse_candidate_is_rejected_with_both_rewards_in_the_reason() -> None:
    standing = judge(trial(random.Random(3), 200, 0.5, 0.02))
    assert standing.verdict is Verdict.REJECT
    assert "served worse" in standing.reason


def test_a_good_reward_does_not_buy_off_a_hurt_guardrail() -> None:
    config = CONFIG.model_copy(update={"guardrails": (GuardrailConfig(name="substance", margin=0.1),)})
    rng = random.Random(5)
    units = tuple(
        unit(n, arm, float(arm is Arm.CANDIDATE), substance=0.0 if arm is Arm.CANDIDATE else 1.0)
        for n in range(120)
        for arm in [rng.choice(list(Arm))]
    )
    standing = judge(units, config)
    assert standing.verdict is Verdict.REJECT
    assert "substance" in standing.reason


def test_a_guardrail_nobody_measured_never_passes() -> None:
    config = CONFIG.model_copy(update={"guardrails": (GuardrailConfig(name="substance", margin=0.1),)})
    units = trial(random.Random(3), 300, 0.45, 0.8)
    assert judge(units, config).verdict is Verdict.HOLD
    assert judge(units, config, age_s=config.max_s).verdict is Verdict.EXPIRE


def test_time_without_data_expires_and_does_not_promote() -> None:
    assert judge((), age_s=CONFIG.max_s).verdict is Verdict.EXPIRE


def test_too_many_units_without_a_verdict_expire() -> None:
    config = GateConfig(margin=0.1, max_units=50)
    assert judge(trial(random.Random(3), 50, 0.5, 0.5), config).verdict is Verdict.EXPIRE


def test_a_split_that_does_not_match_its_coin_is_rejected() -> None:
    units = tuple(unit(n, Arm.CANDIDATE, 0.5) for n in range(60))
    standing = judge(units)
    assert standing.verdict is Verdict.REJECT
    assert "coin" in standing.reason


def test_levels_over_all_candidates_sum_to_less_than_alpha() -> None:
    levels = [gate.level(0.05, j, 0) for j in range(1, 5000)]
    assert sum(levels) < 0.05
    assert all(a > b for a, b in itertools.pairwise(levels))
    assert gate.level(0.05, 2, 1) == pytest.approx(2 * gate.level(0.05, 2, 0))


def test_the_share_follows_the_ramp_and_ends_at_its_last_step() -> None:
    config = GateConfig(ramp=(RampStep(share=0.1, until_units=10), RampStep(share=0.5)))
    assert [gate.share_at(n, config) for n in (0, 9, 10, 10_000)] == [0.1, 0.1, 0.5, 0.5]
