"""The fold of the release log, and the table of a trial's steps."""

import itertools

import pytest

from infra.errors import TransitionError
from ingest.events import Arm, Assignment, Release, ReleaseKind, TrialState
from serving import releases, trial
from serving.releases import Served


def release(number: int, kind: ReleaseKind = ReleaseKind.TRIAL, epoch: int = 1, **fields: object) -> Release:
    given: dict[str, object] = {"stable": 0, "reason": "because", "at": 0.0} | fields
    return Release.model_validate({"release": number, "epoch": epoch, "kind": kind} | given)


BOOTSTRAP = release(0, ReleaseKind.BOOTSTRAP, engines={"a": 0, "b": 0})
CANARY = release(1, state=TrialState.CANARY, candidate=1, share=0.3, salt="x", engines={"a": 0, "b": 1})
PROMOTED = release(2, state=TrialState.PROMOTED, stable=1, candidate=1, engines={"a": 1, "b": 1})


def test_the_log_says_what_is_served() -> None:
    served = releases.fold([BOOTSTRAP, CANARY])
    assert (served.stable, served.candidate, served.share) == (0, 1, 0.3)
    served = releases.advance(served, PROMOTED)
    assert (served.stable, served.lineage, served.promoted, served.trials) == (1, (0, 1), (1,), (1,))
    assert not served.is_trial_open()


def test_entries_read_twice_change_nothing() -> None:
    once = releases.fold([BOOTSTRAP, CANARY, PROMOTED])
    assert releases.fold([BOOTSTRAP, CANARY, CANARY, BOOTSTRAP, PROMOTED, CANARY]) == once


def test_a_fenced_writers_entry_is_skipped() -> None:
    claim = release(1, ReleaseKind.CLAIM, epoch=2)
    served = releases.fold([BOOTSTRAP, claim, CANARY.model_copy(update={"release": 2})])
    assert served.candidate is None


def test_a_claim_counts_even_where_the_fenced_writer_took_its_number() -> None:
    claim = release(1, ReleaseKind.CLAIM, epoch=2)
    served = releases.fold([BOOTSTRAP, CANARY, claim, PROMOTED])
    assert (served.epoch, served.state) == (2, TrialState.CANARY)


def test_no_trial_no_coin() -> None:
    assert releases.fold([BOOTSTRAP]).assign("anyone") == Assignment()


def test_the_coin_is_sticky_and_shares_sessions_as_the_log_says() -> None:
    served = releases.fold([BOOTSTRAP, CANARY])
    given = {f"s{n}": served.assign(f"s{n}") for n in range(4000)}
    on_trial = [a for a in given.values() if a.arm is Arm.CANDIDATE]
    assert 0.27 < len(on_trial) / 4000 < 0.33
    assert all(a.propensity == 0.3 and a.trial == 1 for a in on_trial)
    assert all(served.assign(session) == a for session, a in given.items())
    stable = next(a for a in given.values() if a.arm is Arm.STABLE)
    assert stable.propensity == pytest.approx(0.7)


def test_a_larger_share_keeps_the_sessions_the_candidate_had() -> None:
    before = releases.fold([BOOTSTRAP, CANARY])
    after = releases.advance(before, CANARY.model_copy(update={"release": 2, "share": 0.6}))
    had = [f"s{n}" for n in range(500) if before.assign(f"s{n}").arm is Arm.CANDIDATE]
    assert had
    assert all(after.assign(session).arm is Arm.CANDIDATE for session in had)


def test_every_state_has_its_row() -> None:
    assert set(trial.ALLOWED) == set(TrialState)


def test_a_trial_takes_no_step_that_is_not_in_the_table() -> None:
    for now, then in itertools.product(TrialState, TrialState):
        if then in trial.ALLOWED[now]:
            assert trial.step(now, then) is then
        else:
            with pytest.raises(TransitionError, match=f"{now} may become .*, not {then}"):
                trial.step(now, then)


def test_nothing_was_released_before_the_first_entry() -> None:
    assert Served().stable is None
