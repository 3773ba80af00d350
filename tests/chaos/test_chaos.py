"""Kills at every step, repetition, disorder and workers that come and go change nothing; `make bench NAME=chaos` does
the same to a hundred thousand traces."""

from collections import Counter

import pytest
from chaos import WRITING, Chaos

from ingest.lake.manifest import Table


@pytest.fixture(scope="module")
def chaos(tmp_path_factory: pytest.TempPathFactory) -> Chaos:
    made = Chaos(tmp_path_factory.mktemp("chaos"), num_sessions=300)
    made.run()
    return made


def test_workers_were_killed_at_every_step(chaos: Chaos) -> None:
    names = Counter(name.partition(" ")[0] for name in chaos.found.kills)
    assert names == {"ingest": 5, "lake": len(WRITING)}


def test_every_trace_is_in_one_trajectory_and_no_other_is(chaos: Chaos) -> None:
    found = chaos.found
    assert set(found.in_trajectories) == found.traces
    assert set(found.in_trajectories.values()) == {1}


def test_every_feedback_is_in_one_trajectory(chaos: Chaos) -> None:
    assert set(chaos.found.feedback_ended) == chaos.found.feedback and chaos.late_letters() == {}
    assert set(chaos.found.feedback_ended.values()) == {1} and chaos.found.num_revised > 0


def test_every_trace_has_one_fate_and_the_audit_explains_all(chaos: Chaos) -> None:
    account = chaos.found.account
    assert account is not None and set(chaos.fated().values()) == {1}
    assert (account.num_traces, account.by_fate) == (len(chaos.found.traces), {"held_out": len(chaos.found.traces)})
    assert (account.unexplained.num, account.conflicts.num, account.feedback.unexplained.num) == (0, 0, 0)


def test_nothing_is_in_the_lake_twice_and_nothing_is_missing(chaos: Chaos) -> None:
    found = chaos.found
    for table, rows in found.in_lake.items():
        assert set(rows.values()) == {1}, table
    assert found.lake_ids[Table.TURNS] == found.lake_ids[Table.FATES] == found.traces
    assert found.lake_ids[Table.FEEDBACK] == found.feedback
    assert found.lake_ids[Table.SESSIONS] == set(chaos.on_topic())
