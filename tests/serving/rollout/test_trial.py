"""The table of a trial's steps."""

import itertools

import pytest

from infra.errors import TransitionError
from ingest.records.events import TrialState
from serving.rollout import trial


def test_every_state_has_its_row() -> None:
    assert set(trial.ALLOWED) == set(TrialState)


def test_a_trial_takes_no_step_that_is_not_in_the_table() -> None:
    for now, then in itertools.product(TrialState, TrialState):
        if then in trial.ALLOWED[now]:
            assert trial.step(now, then) is then
        else:
            with pytest.raises(TransitionError, match=f"{now} may become .*, not {then}"):
                trial.step(now, then)
