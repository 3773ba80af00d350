"""Outcomes of sessions: counted once, revised in place, kept over a restart."""

from pathlib import Path
from typing import Any

import pytest

from infra.config import GateConfig
from ingest.records.events import Arm, Assignment, Reward, Source
from serving.rollout import evidence
from serving.rollout.evidence import Evidence

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
    assert (values(held), held.excluded) == ({}, {7: {"s"}})


def test_what_was_kept_is_read_again(tmp_path: Path) -> None:
    held, file = Evidence(positions={0: 12}), tmp_path / "deep" / "evidence.json"
    held.add(reward())
    held.add(reward("x", versions=(7, 6)))
    held.add(reward("c", assignment=Assignment(), versions=(3,)))
    evidence.keep(held, file)
    assert evidence.read(file) == held


@pytest.mark.parametrize("damage", [None, b"", b"{", b'{"units": 3}'])
def test_what_is_missing_or_damaged_is_read_from_the_log_again(tmp_path: Path, damage: bytes | None) -> None:
    file = tmp_path / "evidence.json"
    if damage is not None:
        file.write_bytes(damage)
    assert evidence.read(file) == Evidence()


def test_only_what_a_decision_may_ask_for_is_kept() -> None:
    held = Evidence()
    for trial in (7, 8):
        held.add(reward(assignment=TRIAL.model_copy(update={"trial": trial}), versions=(trial,)))
        held.add(reward("c", assignment=Assignment(), versions=(trial,)))
    held.forget_all_but(versions=[8], trials=[7])
    assert (list(held.champion), list(held.units)) == ([8], [7])
