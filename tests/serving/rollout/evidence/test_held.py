"""Outcomes of sessions: counted once, revised in place, kept over a restart."""

import random
from pathlib import Path
from typing import Any

import pytest

from infra.config import GateConfig, GuardrailConfig
from ingest.records.events import Arm, Assignment, Reward, Source
from serving.rollout.evidence import Baseline, Evidence, Verdict, keep, read, watch

GATE = GateConfig(min_champion_units=2, guardrails=())
TRIAL = Assignment(arm=Arm.CANDIDATE, trial=7, propensity=0.25)


def reward(session: str = "s", value: float = 0.5, **fields: Any) -> Reward:
    return Reward.model_validate(
        {
            "reward_id": "r", "trajectory_id": "t", "session_id": session, "tenant": "t", "assignment": TRIAL,
            "held_out": False, "opened_at": 0.0, "trace_ids": (f"{session}-0",), "versions": (7,), "spec": "x",
            "components": (), "turns": (), "value": value, "has_signal": True, "guardrails": {}, "at": 1.0,
            "source": Source(partition=0, offset=0), **fields,
        }
    )  # fmt: skip


def values(held: Evidence, trial: int = 7) -> dict[str, float]:
    return {unit.session_id: unit.reward for unit in held.units_of(trial)}


def test_late_feedback_at_two_sessions_and_two_versions_distance_counts_once_where_it_belongs() -> None:
    held = Evidence()
    for number, trial in enumerate((7, 8, 9)):
        assignment = Assignment(arm=Arm.CANDIDATE, trial=trial, propensity=0.5)
        held.add(reward(f"s{number}", 0.1, assignment=assignment, versions=(trial,)))
    held.add(reward("s0", 0.9, revision=2, assignment=TRIAL.model_copy(update={"propensity": 0.5})))
    assert (values(held, 7), values(held, 8), values(held, 9)) == ({"s0": 0.9}, {"s1": 0.1}, {"s2": 0.1})


def test_a_revision_takes_the_place_of_what_it_revises() -> None:
    held = Evidence()
    for session in ("a", "b", "c"):
        held.add(reward(session))
    held.add(reward("a", 0.75, revision=2))
    assert [unit.session_id for unit in held.units_of(7)] == ["a", "b", "c"]
    assert values(held)["a"] == 0.75


def test_an_earlier_revision_that_comes_later_changes_nothing() -> None:
    held = Evidence()
    held.add(reward(value=0.75, revision=2))
    held.add(reward(value=0.25))
    assert values(held) == {"s": 0.75}


def test_a_revised_champion_counts_once() -> None:
    held, champion = Evidence(), {"assignment": Assignment(), "versions": (3,)}
    for session, value, revision in (("a", 0.0, 1), ("b", 1.0, 1), ("a", 1.0, 2)):
        held.add(reward(session, value, revision=revision, **champion))
    found = held.baselines(3, GATE)
    assert found is not None and found["reward"].mean == 1.0


def test_a_session_that_another_arms_weights_served_is_excluded_once() -> None:
    held = Evidence()
    for revision in (1, 2):
        held.add(reward(versions=(7, 6), revision=revision))
    assert (values(held), held.trials[7].excluded) == ({}, {"s"})


def test_what_was_kept_is_read_again(tmp_path: Path) -> None:
    held, file = Evidence(), tmp_path / "deep" / "evidence.json"
    held.positions = {0: 12}
    held.add(reward(guardrails={"completed": 0.1}))
    held.add(reward("x", versions=(7, 6)))
    held.add(reward("c", assignment=Assignment(), versions=(3,)))
    held.add(reward("w", assignment=Assignment(arm=Arm.HOLDBACK, trial=7, propensity=0.1), versions=(6,)))
    keep(held, file)
    found = read(file)
    assert (found.champion, found.positions) == (held.champion, held.positions)
    for mine, other in ((found.trials, held.trials), (found.watches, held.watches)):
        assert {n: (one.units, one.newest_at) for n, one in mine.items()} == {
            n: (one.units, one.newest_at) for n, one in other.items()
        }


@pytest.mark.parametrize("damage", [None, b"", b"{", b'{"units": 3}', b"\xff"])
def test_what_is_missing_or_damaged_is_read_from_the_log_again(tmp_path: Path, damage: bytes | None) -> None:
    file = tmp_path / "evidence.json"
    if damage is not None:
        file.write_bytes(damage)
    found = read(file)
    assert found.champion == found.trials == found.watches == found.positions == {}


def test_only_what_a_decision_may_ask_for_is_kept() -> None:
    held = Evidence()
    for trial in (7, 8):
        held.add(reward(assignment=TRIAL.model_copy(update={"trial": trial}), versions=(trial,)))
        held.add(reward("c", assignment=Assignment(), versions=(trial,)))
    held.forget_all_but(versions=[8], trials=[7])
    assert (list(held.champion), list(held.trials)) == ([8], [7])


def test_a_prompt_asked_again_is_nobodys_session() -> None:
    held = Evidence()
    held.add(reward(assignment=TRIAL.model_copy(update={"replay_of": "t0"})))
    held.add(reward(assignment=Assignment(replay_of="t0")))
    assert held.trials == held.champion == {}


def test_a_session_whose_coin_could_fall_one_way_only_is_excluded() -> None:
    held = Evidence()
    held.add(reward(assignment=Assignment(arm=Arm.STABLE, trial=7, propensity=1.0), versions=(6,)))
    assert held.trials[7].excluded == {"s"}


def test_a_versions_trial_and_its_watch_are_told_apart_by_what_served_the_stable_arm() -> None:
    held = Evidence()
    stable = Assignment(arm=Arm.STABLE, trial=7, propensity=0.9)
    held.add(reward("trial", assignment=stable, versions=(6,)))
    held.add(reward("watch", assignment=stable, versions=(7,)))
    held.add(reward("both", assignment=stable, versions=(6, 7)))
    held.add(reward("back", assignment=Assignment(arm=Arm.HOLDBACK, trial=7, propensity=0.1), versions=(6,)))
    held.add(reward("spoilt", assignment=Assignment(arm=Arm.HOLDBACK, trial=7, propensity=0.1), versions=(6, 7)))
    assert (set(held.trials[7].units), held.trials[7].excluded) == ({"trial", "both"}, {"both"})
    assert (set(held.watches[7].units), held.watches[7].excluded) == ({"watch", "back", "spoilt"}, {"spoilt"})


def test_of_a_session_that_went_on_after_it_was_closed_the_first_part_counts_whichever_comes_first() -> None:
    first = reward(value=0.0)
    second = reward(value=1.0, trace_ids=("s-9",), opened_at=50.0)
    for order in ((first, second), (second, first)):
        held = Evidence()
        for one in order:
            held.add(one)
        assert values(held) == {"s": 0.0}


@pytest.mark.parametrize("rate", [float("nan"), 1.5, -0.1])
def test_a_guardrail_that_is_no_rate_is_missing(rate: float) -> None:
    held = Evidence()
    held.add(reward(guardrails={"completed": rate, "substance": 1.0}))
    assert held.units_of(7)[0].guardrails == {"substance": 1.0, "scored": 1.0}


def test_what_only_some_clients_report_has_a_baseline_once_enough_did() -> None:
    rail = GuardrailConfig(name="kept", margin=0.1, required=False, missing=0.5)
    config, held = GATE.model_copy(update={"guardrails": (rail,)}), Evidence()
    for n, rails in enumerate(({"kept": 1.0}, {}, {"kept": 0.0}, {})):
        held.add(reward(f"c{n}", assignment=Assignment(), versions=(3,), guardrails=rails))
        found = held.baselines(3, config)
        assert found is None if n == 0 else found is not None and ("kept" in found) is (n >= 2)
    assert found is not None and found["kept"].mean == 0.5


def test_a_promoted_version_that_is_worse_is_taken_back_and_one_that_is_not_is_left() -> None:
    def stand(promoted: float, **limits: Any) -> tuple[Verdict, str]:
        held, rng = Evidence(), random.Random(1)
        for n in range(600):
            is_held_back = rng.random() < 0.3
            arm, pi, version = (Arm.HOLDBACK, 0.3, 6) if is_held_back else (Arm.STABLE, 0.7, 7)
            value = float(rng.random() < (0.6 if is_held_back else promoted))
            coin = Assignment(arm=arm, trial=7, propensity=pi)
            held.add(reward(f"s{n}", value, assignment=coin, versions=(version,), opened_at=float(n)))
        tally = held.watch(7, {"reward": Baseline(0.6, 0.24)}, GATE.model_copy(update={"margin": 0.05}))
        standing = watch(tally, **{"alpha": 0.05, "max_units": 601, "max_s": 600.0} | limits)
        assert standing.num_units == 600
        return standing.verdict, standing.reason

    verdict, reason = stand(0.3)
    assert verdict is Verdict.REJECT and "stable sessions" in reason
    assert stand(0.6)[0] is Verdict.HOLD
    assert stand(0.6, max_units=600)[0] is Verdict.PASS
    assert stand(0.6, max_s=599.0)[0] is Verdict.PASS
    assert stand(0.6, max_s=599.0, min_units=601)[0] is Verdict.HOLD


def test_what_began_before_the_promotion_is_not_of_the_watch() -> None:
    held = Evidence()
    for n in range(4):
        coin = Assignment(arm=Arm.STABLE, trial=7, propensity=0.9)
        held.add(reward(f"s{n}", assignment=coin, versions=(7,), opened_at=float(n)))
    tally = held.watch(7, {"reward": Baseline(0.6, 0.24)}, GATE, since=2.0)
    assert (sum(tally.num.values()), tally.num_excluded) == (2, 2)
