"""What a controller reads again of the topics that are kept for ever: its candidate's life, and versions that wait."""

from dataclasses import replace
from pathlib import Path

import pytest
from rollouts import World
from street import Street

from ingest.log import topics
from ingest.records.events import TrialState
from serving.rollout.controller import Rollout
from serving.rollout.remembering import recall


def second_trial(world: World) -> None:
    """One trial ended, another goes on with a few sessions, and the next version waits; the controller is gone."""
    world.to_canary()
    world.now += 501
    world.ticks()
    assert world.served.trials == {1: TrialState.EXPIRED}
    world.publish(2, parent=0)
    world.ticks(3)
    world.trial_sessions(4, stable=0.5, candidate=0.9, version=2)
    world.publish(3, parent=0)
    world.ticks()
    assert world.served.on_trial == 2
    world.rollout.close()


def stands(rollout: Rollout) -> tuple[object, ...]:
    writer = rollout._writer
    return replace(rollout.served, epoch=0, last=0), writer.begun, list(writer.blocks.all), rollout.standing


def test_a_restart_reads_nothing_from_before_the_candidate_and_no_version_that_was_decided(world: World) -> None:
    second_trial(world)
    before = stands(world.rollout)
    kept = recall(world.folder / "releases.json", world.log)
    assert kept is not None and list(kept.known.served.trials) == [1]
    world.log.forget(topics.RELEASES.name, 0, kept.known.offset - 1)
    world.log.forget(topics.VERSIONS.name, 0, kept.versions_from)
    world.restarted().tick()
    assert stands(world.rollout) == before
    assert sorted(world.rollout._reading.waiting) == [2, 3]


def test_blocks_are_told_again_from_where_their_candidates_life_began(tmp_path: Path) -> None:
    street = Street(tmp_path)
    street.to_trial()
    street.live(100, lambda: street.rollout.served.block == 3)
    street.rollout.close()
    before = stands(street.rollout)
    kept = recall(tmp_path / "releases.json", street.log)
    assert kept is not None
    street.log.forget(topics.RELEASES.name, 0, kept.known.offset - 1)
    street.restarted()
    assert len(street.rollout._writer.blocks.all) == 4
    assert stands(street.rollout)[:3] == before[:3]


@pytest.mark.parametrize("damage", [b"", b'{"form": 2}', b"\xff"])
def test_what_cannot_be_read_is_read_from_the_log_again(world: World, damage: bytes) -> None:
    second_trial(world)
    before = stands(world.rollout)
    (world.folder / "releases.json").write_bytes(damage)
    world.restarted().tick()
    assert stands(world.rollout) == before
    world.rollout.close()
    kept = recall(world.folder / "releases.json", world.log)
    assert kept is not None and kept.versions_from == 2


def test_what_was_kept_of_a_log_that_is_lost_says_nothing_of_the_next(world: World, tmp_path: Path) -> None:
    second_trial(world)
    (tmp_path / "next").mkdir()
    other = World(tmp_path / "next")
    (other.folder / "releases.json").write_bytes((world.folder / "releases.json").read_bytes())
    other.restarted()
    assert other.rollout.served == other.served and not other.rollout.served.trials
