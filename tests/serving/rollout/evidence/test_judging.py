"""The gate's verdicts, against what it promises."""

import itertools
import random

import pytest
from units import tally_of, unit

from infra.config import GateConfig, GuardrailConfig, RampStep
from ingest.records.events import Arm
from serving.rollout.evidence import Baseline, Standing, Unit, Verdict, judge, level, share_at

HALF = Baseline(mean=0.5, variance=0.25)
CONFIG = GateConfig(margin=0.1, min_champion_units=2, guardrails=(), settle_s=0)
SUBSTANCE = CONFIG.model_copy(update={"guardrails": (GuardrailConfig(name="substance", margin=0.1),)})
KEPT = GuardrailConfig(name="kept", margin=0.1, required=False, missing=0.5)


def trial(rng: random.Random, num: int, stable: float, candidate: float, pi: float = 0.5) -> list[Unit]:
    units = []
    for n in range(num):
        arm = Arm.CANDIDATE if rng.random() < pi else Arm.STABLE
        rate = candidate if arm is Arm.CANDIDATE else stable
        units.append(unit(n, arm, float(rng.random() < rate), pi))
    return units


def stand(units: list[Unit], config: GateConfig = CONFIG, wall_s: float = 0.0) -> Standing:
    baselines = {"reward": HALF} | {rail.name: Baseline(0.9, 0.09) for rail in config.guardrails if rail.required}
    return judge(tally_of(units, config, baselines), trial=1, promotions=0, wall_s=wall_s)


def test_no_units_are_no_evidence() -> None:
    standing = stand([])
    assert standing.verdict is Verdict.HOLD
    assert standing.numbers["log_e.reward"] == standing.numbers["log_mismatch"] == 0.0


def test_a_clearly_better_candidate_passes() -> None:
    standing = stand(trial(random.Random(3), 300, 0.45, 0.8))
    assert standing.verdict is Verdict.PASS
    assert "reward" in standing.reason


def test_a_clearly_worse_candidate_is_rejected_with_both_rewards_in_the_reason() -> None:
    standing = stand(trial(random.Random(3), 200, 0.5, 0.02))
    assert standing.verdict is Verdict.REJECT
    assert "served worse" in standing.reason


def test_harm_that_one_arm_alone_shows_says_that_the_other_has_nothing_yet() -> None:
    units = [unit(n, Arm.CANDIDATE, 0.0, pi=0.9) for n in range(400)]
    assert "reward 0.000 against none yet over 400 candidate" in stand(units).reason


def test_a_good_reward_does_not_buy_off_a_hurt_guardrail() -> None:
    rng = random.Random(5)
    units = [
        unit(n, arm, float(arm is Arm.CANDIDATE), substance=0.0 if arm is Arm.CANDIDATE else 1.0)
        for n in range(120)
        for arm in [rng.choice([Arm.CANDIDATE, Arm.STABLE])]
    ]
    standing = stand(units, SUBSTANCE)
    assert standing.verdict is Verdict.REJECT
    assert "substance" in standing.reason


def test_a_guardrail_that_one_session_lacks_passes_nothing_and_says_so() -> None:
    units = trial(random.Random(3), 300, 0.45, 0.8)
    rails = [one._replace(names=("scored", "substance"), values=(1.0, 1.0)) for one in units[1:]]
    assert stand([units[0]._replace(names=("scored", "substance"), values=(1.0, 1.0)), *rails], SUBSTANCE).verdict is (
        Verdict.PASS
    )
    standing = stand([units[0], *rails], SUBSTANCE)
    assert standing.verdict is Verdict.HOLD
    assert "substance is missing in 1 sessions" in standing.reason


def test_a_guardrail_without_a_baseline_passes_nothing_and_says_so() -> None:
    units = [one._replace(names=("substance",), values=(1.0,)) for one in trial(random.Random(3), 300, 0.45, 0.8)]
    standing = judge(tally_of(units, SUBSTANCE, {"reward": HALF}), trial=1, promotions=0)
    assert standing.verdict is Verdict.HOLD
    assert standing.numbers["unmeasured.substance"] == 1.0
    assert "substance was not measured" in standing.reason


def test_what_nobody_reports_is_not_judged_and_the_verdict_says_so() -> None:
    config = CONFIG.model_copy(update={"guardrails": (KEPT,)})
    standing = stand(trial(random.Random(3), 300, 0.45, 0.8), config)
    assert standing.verdict is Verdict.PASS
    assert "kept not judged: no client reports it" in standing.reason
    assert standing.numbers["unmeasured.kept"] == 1.0


def test_what_clients_do_report_counts_at_its_declared_value_where_it_is_missing() -> None:
    config = CONFIG.model_copy(update={"guardrails": (KEPT,)})
    units = [
        one._replace(names=("kept",), values=(0.9,)) if one.arm is Arm.STABLE else one
        for one in trial(random.Random(3), 300, 0.45, 0.8)
    ]
    tally = tally_of(units, config, {"reward": HALF, "kept": Baseline(0.9, 0.01)})
    standing = judge(tally, trial=1, promotions=0)
    assert standing.numbers["kept.candidate"] == 0.5
    assert standing.verdict is Verdict.REJECT


def test_a_session_that_nothing_scored_counts_as_declared_in_both_arms() -> None:
    config = CONFIG.model_copy(update={"missing": 0.0})
    units = [unit(0, Arm.CANDIDATE, 0.5, scored=0.0), unit(1, Arm.STABLE, 0.5, scored=0.0), unit(2, Arm.STABLE, 0.5)]
    numbers = stand(units, config).numbers
    assert (numbers["reward.candidate"], numbers["reward.stable"]) == (0.0, 0.25)


def test_fewer_scored_sessions_are_a_hurt_guardrail_of_their_own() -> None:
    config = CONFIG.model_copy(update={"guardrails": (GuardrailConfig(name="scored", margin=0.1),)})
    units = [
        one if one.arm is Arm.STABLE else one._replace(values=(0.0,)) for one in trial(random.Random(1), 200, 1, 1)
    ]
    standing = judge(tally_of(units, config, {"reward": HALF, "scored": Baseline(0.9, 0.09)}), trial=1, promotions=0)
    assert standing.verdict is Verdict.REJECT
    assert "scored is hurt" in standing.reason


def test_a_version_that_starved_is_told_apart_from_one_that_could_not_convince() -> None:
    # 3.48 2 v / (2 delta)^2 with v = 1 and delta = .1: 175 sessions are needed
    def ended(num: int) -> Standing:
        units = trial(random.Random(1), num, 0.5, 0.45)
        return stand([one._replace(began_at=n * 86_401.0 / (num - 1)) for n, one in enumerate(units)])

    few, enough = ended(150), ended(300)
    assert few.verdict is enough.verdict is Verdict.EXPIRE
    assert few.numbers["units_needed"] == pytest.approx(175, abs=1)
    assert (few.numbers["starved"], enough.numbers["starved"]) == (1.0, 0.0)
    assert "starved: 150 sessions" in few.reason and "starved" not in enough.reason


def test_a_night_without_users_is_no_evidence_and_no_time() -> None:
    units = trial(random.Random(1), 40, 0.5, 0.5)
    night = [one._replace(began_at=one.began_at + (n >= 20) * 50_000.0) for n, one in enumerate(units)]
    assert stand(night).numbers["age_s"] == 38 + CONFIG.idle_s
    assert stand(night).verdict is Verdict.HOLD


def test_a_trial_to_which_nobody_comes_ends_starved_by_the_clock() -> None:
    assert stand([], wall_s=CONFIG.max_wall_s - 1).verdict is Verdict.HOLD
    standing = stand([], wall_s=CONFIG.max_wall_s)
    assert (standing.verdict, standing.numbers["starved"]) == (Verdict.EXPIRE, 1.0)


def test_too_many_units_without_a_verdict_expire() -> None:
    config = CONFIG.model_copy(update={"max_units": 50})
    assert stand(trial(random.Random(3), 49, 0.5, 0.5), config).verdict is Verdict.HOLD
    assert stand(trial(random.Random(3), 50, 0.5, 0.5), config).verdict is Verdict.EXPIRE


def test_a_split_that_does_not_match_its_coin_is_rejected() -> None:
    standing = stand([unit(n, Arm.CANDIDATE, 0.5) for n in range(60)])
    assert standing.verdict is Verdict.REJECT
    assert "coin" in standing.reason


def test_successes_that_are_known_sooner_than_failures_pass_nothing_before_these_could_be_known() -> None:
    units = trial(random.Random(3), 600, 0.5, 0.5)
    known = [one for one in units if one.arm is Arm.STABLE or one.reward or one.began_at < 400]
    late = CONFIG.model_copy(update={"settle_s": 200.0})
    assert stand(known).verdict is Verdict.PASS
    assert stand(known, late).verdict is Verdict.HOLD
    assert stand(known, late).numbers["units.settled"] == 400


def test_harm_does_not_wait_for_sessions_to_settle() -> None:
    late = CONFIG.model_copy(update={"settle_s": 10_000.0})
    assert stand(trial(random.Random(3), 200, 0.5, 0.02), late).verdict is Verdict.REJECT


def test_levels_over_all_candidates_sum_to_less_than_alpha() -> None:
    levels = [level(0.05, j, 0) for j in range(1, 5000)]
    assert sum(levels) < 0.05
    assert all(a > b for a, b in itertools.pairwise(levels))
    assert level(0.05, 2, 1) == pytest.approx(2 * level(0.05, 2, 0))


def test_the_share_follows_the_ramp_and_ends_at_its_last_step() -> None:
    config = GateConfig(ramp=(RampStep(share=0.1, until_units=10), RampStep(share=0.5)))
    assert [share_at(n, config) for n in (0, 9, 10, 10_000)] == [0.1, 0.1, 0.5, 0.5]
