"""Scorers that wait for an engine, with one and without."""

import histories
import pytest

from ingest.records.events import Trajectory
from rewards.backtest.rescore import Engines, Rescoring
from rewards.spec import load
from rewards.summary.fake import CopyingLikelihoods
from rewards.summary.likelihood import UnavailableError


@pytest.fixture
def compacted() -> Trajectory:
    history = histories.draw(3, next(iter(histories.domains())))
    return histories.record(history, histories.summarise(history, histories.Kind.FAITHFUL))


def test_with_an_engine_nothing_is_lacking(compacted: Trajectory) -> None:
    with Engines(CopyingLikelihoods()) as engines:
        engines.require()
        (again,) = Rescoring(load(""), engines).score([compacted])
    values = [part.value for part in again.reward.components if part.name == "sufficiency"]
    assert values
    assert None not in values
    assert (again.is_whole, again.lacking) == (True, frozenset())


def test_without_an_engine_the_summary_is_lacking_and_the_session_is_whole(compacted: Trajectory) -> None:
    (again,) = Rescoring(load("")).score([compacted])
    (told,) = (part for part in again.reward.components if part.name == "sufficiency")
    assert told.unscored == "not asked: --engines"
    assert (again.is_whole, again.lacking) == (True, {told.trace_id})


def test_an_engine_that_does_not_answer_is_found_out_at_once() -> None:
    with Engines(CopyingLikelihoods(is_available=False)) as engines, pytest.raises(UnavailableError):
        engines.require()
