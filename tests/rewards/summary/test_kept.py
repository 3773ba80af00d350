"""What a summary kept, lost and has wrong, for people to read."""

import histories
import pytest
from histories import Kind

from ingest.sessions.history import compactions
from rewards.summary.kept import Inventory, inventory


def found(kind: Kind) -> Inventory:
    trajectory = histories.record(history := histories.draw(1, "coding"), histories.summarise(history, kind))
    (cut,) = compactions(trajectory)
    return inventory(trajectory, cut)


def test_a_faithful_summary_lost_nothing_and_has_nothing_wrong() -> None:
    of = found(Kind.FAITHFUL)
    assert (of.lost, of.wrong) == ((), ())
    assert len(of.kept) >= 4


@pytest.mark.parametrize("kind", [Kind.EMPTY, Kind.FLATTERING])
def test_a_summary_of_nothing_lost_what_a_faithful_one_kept(kind: Kind) -> None:
    of = found(kind)
    assert of.kept == ()
    assert set(found(Kind.FAITHFUL).kept) <= set(of.lost)


def test_a_wrong_value_is_told_in_the_summarys_words() -> None:
    history = histories.draw(1, "coding")
    wrong = found(Kind.WRONG_VALUE).wrong
    assert wrong
    assert all(text in histories.summarise(history, Kind.WRONG_VALUE).text for text in wrong)
