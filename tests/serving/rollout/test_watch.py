"""The watch over a promoted version: who is held back, what takes it back, and what ends the watch."""

import pytest
from rollouts import Hand, World

from infra.config import EngineSlot
from ingest.records.events import ReleaseKind, TrialState
from serving.rollout.commands import Do


@pytest.fixture
def watched(world: World) -> World:
    """Version 1 was promoted and is watched."""
    world.to_canary()
    world.to_promotion()
    assert (world.served.state, world.served.holdback) == (TrialState.PROMOTED, 0)
    return world


def test_a_promotion_holds_some_sessions_back_on_the_version_before(watched: World) -> None:
    assert (watched.served.stable, watched.served.share) == (1, 0.25)
    assert watched.served.engines == {"s": 1, "c": 0}
    assert (watched.hands["s"].version, watched.hands["c"].version) == (1, 0)


def test_the_coin_of_the_watch_is_not_that_of_the_trial(watched: World) -> None:
    salts = {one.state: one.salt for one in watched.released if one.state is not None}
    assert salts[TrialState.PROMOTED] != salts[TrialState.CANARY]


def test_without_a_share_there_is_no_watch(world: World) -> None:
    none = world.config.watch.model_copy(update={"share": 0.0})
    world.config = world.config.model_copy(update={"watch": none})
    world.restarted()
    world.to_canary()
    world.to_promotion()
    assert (world.served.holdback, world.served.share) == (None, 0.0)
    assert [hand.version for hand in world.hands.values()] == [1, 1]


def test_a_version_that_turns_bad_is_taken_back_by_itself(watched: World) -> None:
    watched.hands["s2"] = Hand(EngineSlot(id="s2", arm="stable", port=9, control_port=10), version=1)
    watched.restarted()
    watched.watch_sessions(160, promoted=0.0, before=0.6)
    watched.ticks()
    assert (watched.served.state, watched.served.stable) == (TrialState.ROLLED_BACK, 0)
    assert {hand.version for hand in watched.hands.values()} == {0}
    written = next(one for one in watched.released if one.state is TrialState.ROLLED_BACK)
    assert (written.kind, written.candidate, written.author) == (ReleaseKind.TRIAL, 1, "")
    assert "version 1 is taken back, version 0 serves everyone" in written.reason
    assert written.numbers["log_harm.reward"] >= written.numbers["log_threshold"]


@pytest.mark.parametrize("do", [Do.PAUSE])
def test_paused_a_bad_version_is_taken_back_all_the_same(watched: World, do: Do) -> None:
    watched.order(do)
    watched.watch_sessions(160, promoted=0.0, before=0.6)
    watched.ticks()
    assert watched.served.stable == 0


def test_a_version_that_stays_good_serves_everyone_after_the_watch(watched: World) -> None:
    watched.watch_sessions(199, promoted=0.6, before=0.5)
    watched.ticks()
    assert watched.served.holdback == 0
    watched.watch_sessions(1, promoted=0.6, before=0.5)
    watched.ticks()
    assert (watched.served.state, watched.served.holdback, watched.served.share) == (TrialState.PROMOTED, None, 0.0)
    assert [hand.version for hand in watched.hands.values()] == [1, 1]
    assert "the watch over version 1 is over" in " ".join(one.reason for one in watched.released)


def test_no_time_without_sessions_ends_a_watch(watched: World) -> None:
    watched.now += 1e6
    watched.ticks()
    assert watched.served.holdback == 0


def test_the_next_version_waits_until_the_watch_has_seen_enough(watched: World) -> None:
    watched.session_of_stable(20, version=1)
    watched.publish(2, parent=1)
    watched.watch_sessions(11, promoted=0.5, before=0.5)
    watched.ticks(4)
    assert (watched.served.holdback, watched.served.on_trial) == (0, None)
    watched.watch_sessions(1, promoted=0.5, before=0.5)
    watched.ticks(4)
    assert (watched.served.holdback, watched.served.on_trial) == (None, 2)


def test_what_was_trained_on_from_a_version_taken_back_is_never_tried(watched: World) -> None:
    watched.publish(2, parent=1)
    watched.watch_sessions(8, promoted=0.0, before=0.6)
    watched.order(Do.ROLLBACK)
    watched.ticks()
    assert watched.served.trials[2] is TrialState.EXPIRED
    assert 2 not in watched.hands["c"].loads


def test_an_engine_gained_during_a_watch_serves_and_the_watch_goes_on(watched: World) -> None:
    before = watched.served
    watched.hands["s-1"] = Hand(EngineSlot(id="s-1", arm="stable", port=5, control_port=6))
    watched.restarted()
    watched.ticks(2)
    now = watched.served
    assert now.engines == {"s": 1, "s-1": 1, "c": 0}
    assert (now.holdback, now.share, now.salt) == (before.holdback, before.share, before.salt)


def test_pinning_ends_the_watch(watched: World) -> None:
    watched.order(Do.PIN)
    assert (watched.served.stable, watched.served.holdback, watched.served.engines) == (1, None, {"s": 1, "c": 1})
    watched.watch_sessions(160, promoted=0.0, before=0.6)
    watched.ticks()
    assert watched.served.stable == 1


def test_engines_fetch_what_is_on_trial_before_it_is_promoted(world: World) -> None:
    world.to_canary()
    world.ticks(2)
    assert world.rollout.held == {"s": {0, 1}, "c": {0, 1}}


def test_every_engine_is_asked_to_hold_the_version_before(watched: World) -> None:
    watched.ticks(2)
    assert 0 in watched.hands["s"].held
    assert watched.rollout.held["s"] == {0, 1}
