"""What operators may do, and what is refused with which reason: pure decisions."""

from dataclasses import replace

import pytest

from ingest.records.events import Mode, TrialState
from ingest.store.releases import Served
from serving.rollout.commands import Change, Command, Do, Held, Refused, decide
from serving.rollout.evidence import Standing, Verdict

IDLE = Served(lineage=(0, 3, 5), engines={"s": 5, "c": 5})
CANARY = replace(IDLE, candidate=6, state=TrialState.CANARY, share=0.5, trials={6: TrialState.CANARY})
WATCH = replace(IDLE, candidate=5, state=TrialState.PROMOTED, holdback=3, share=0.1)
EVERYWHERE = Held({"s": frozenset({5}), "c": frozenset({5})}, lambda _version: True)
PASSED = Standing(Verdict.PASS, "enough", {})
HELD_BACK = Standing(Verdict.HOLD, "reward has e^0.1 of e^3.0", {})


def given(do: Do, served: Served, version: int | None = None, standing: Standing | None = PASSED) -> Change | Refused:
    return decide(Command(do=do, author="ann", reason="so", version=version), served, standing, EVERYWHERE)


def changed(do: Do, served: Served, version: int | None = None, standing: Standing | None = PASSED) -> Change:
    change = given(do, served, version, standing)
    assert isinstance(change, Change), change
    return change


def refused(do: Do, served: Served, version: int | None = None, standing: Standing | None = PASSED) -> str:
    change = given(do, served, version, standing)
    assert isinstance(change, Refused), change
    return change.error


@pytest.mark.parametrize(("do", "mode"), [(Do.PAUSE, Mode.PAUSED), (Do.PIN, Mode.PINNED), (Do.FREEZE, Mode.FROZEN)])
def test_a_mode_is_entered_once_and_left_by_resume(do: Do, mode: Mode) -> None:
    assert changed(do, IDLE).mode is mode
    assert f"it is {mode}" in refused(do, replace(IDLE, mode=mode))
    assert changed(Do.RESUME, replace(IDLE, mode=mode)).mode is Mode.OPEN
    assert "nothing is paused" in refused(Do.RESUME, IDLE)


@pytest.mark.parametrize("do", [Do.PAUSE, Do.PIN])
def test_what_is_frozen_is_not_loosened_by_another_mode(do: Do) -> None:
    assert "it is frozen" in refused(do, replace(IDLE, mode=Mode.FROZEN))
    assert changed(Do.FREEZE, replace(IDLE, mode=Mode.PINNED)).mode is Mode.FROZEN


def test_a_promotion_needs_evidence_that_passed_and_no_author_replaces_it() -> None:
    assert changed(Do.PROMOTE, CANARY).promotes
    assert "the gate has not passed version 6: reward has e^0.1" in refused(Do.PROMOTE, CANARY, standing=HELD_BACK)
    assert "nothing is known yet" in refused(Do.PROMOTE, CANARY, standing=None)
    assert "no users met it yet" in refused(Do.PROMOTE, replace(CANARY, state=TrialState.REPLAY))
    for mode in (Mode.PINNED, Mode.FROZEN):
        assert f"it is {mode}" in refused(Do.PROMOTE, replace(CANARY, mode=mode))


@pytest.mark.parametrize("do", [Do.PROMOTE, Do.REJECT])
def test_the_version_that_is_meant_must_be_the_one_on_trial(do: Do) -> None:
    assert refused(do, CANARY, version=7) == f"{do}: version 6 is on trial, got 7"
    assert "no version is on trial" in refused(do, IDLE)
    assert isinstance(given(do, CANARY, version=6), Change)


def test_a_rejection_ends_the_trial_in_any_mode() -> None:
    for mode in Mode:
        assert changed(Do.REJECT, replace(CANARY, mode=mode)).ends_trial


@pytest.mark.parametrize("served", [IDLE, WATCH, replace(IDLE, mode=Mode.FROZEN)])
def test_a_rollback_goes_to_the_version_before_or_to_an_older_one(served: Served) -> None:
    assert changed(Do.ROLLBACK, served).back_to == 3
    assert changed(Do.ROLLBACK, served, version=0).back_to == 0
    assert "must be to a version that was stable before (0, 3), got 5" in refused(Do.ROLLBACK, served, version=5)
    assert "got 4" in refused(Do.ROLLBACK, served, version=4)
    assert refused(Do.ROLLBACK, replace(served, lineage=(0,))) == "rollback: there is no version before 0"


def test_a_rollback_ends_the_trial_of_what_descends_from_the_bad_version() -> None:
    assert changed(Do.ROLLBACK, CANARY).ends_trial and not changed(Do.ROLLBACK, IDLE).ends_trial


def test_a_rollback_is_refused_only_where_an_engine_could_not_load_the_version() -> None:
    def lost(*held: int) -> Held:
        return Held({"s": frozenset(held), "c": frozenset({3, 5})}, lambda _version: False)

    back = Command(do=Do.ROLLBACK, author="ann", reason="so")
    assert isinstance(decide(back, IDLE, None, lost(3, 5)), Change), "held by all: the store is not needed"
    answer = decide(back, IDLE, None, lost(5))
    assert answer == Refused(error="rollback: version 3 is not in the store, nor held by s")


def test_pinning_ends_a_trial_and_is_to_what_is_stable() -> None:
    assert changed(Do.PIN, CANARY).ends_trial
    assert changed(Do.PIN, IDLE, version=5).mode is Mode.PINNED
    assert "version 5 is stable, got 3: roll back to that first" in refused(Do.PIN, IDLE, version=3)
