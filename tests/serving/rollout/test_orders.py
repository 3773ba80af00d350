"""Operators' commands, carried out: each an audited release, and what the controller does and leaves in each mode."""

import pytest
from rollouts import World

from ingest.records.events import Mode, Release, ReleaseKind, TrialState
from serving.rollout.commands import Command, Do, Done, Refused


def last(world: World) -> Release:
    return [one for one in world.released if one.kind is not ReleaseKind.ANNOUNCED][-1]


def passed(world: World) -> None:
    """Sessions that convince the gate."""
    for num in (20, 140):
        world.trial_sessions(num, stable=0.5, candidate=0.9)
        world.ticks()


@pytest.mark.parametrize(
    ("do", "mode"), [(Do.PAUSE, Mode.PAUSED), (Do.PIN, Mode.PINNED), (Do.FREEZE, Mode.FROZEN)], ids=str
)
def test_a_command_is_a_release_with_author_and_reason_and_survives_a_restart(world: World, do: Do, mode: Mode) -> None:
    answer = world.order(do, reason="the news are on")
    assert isinstance(answer, Done)
    written = last(world)
    assert (answer.release, written.kind, written.author, written.mode) == (
        written.release, ReleaseKind.OPERATOR, "ann", mode,
    )  # fmt: skip
    assert answer.told in written.reason and written.reason.endswith("the news are on")
    world.restarted()
    assert world.served.mode is world.rollout.served.mode is mode
    assert world.served.engines == {"s": 0, "c": 0}


def test_what_is_refused_writes_nothing(world: World) -> None:
    num = len(world.released)
    assert isinstance(world.order(Do.ROLLBACK), Refused)
    assert len(world.released) == num


@pytest.mark.parametrize("do", [Do.PAUSE, Do.PIN, Do.FREEZE])
def test_no_trial_begins_until_it_is_resumed(world: World, do: Do) -> None:
    world.order(do)
    world.champion()
    world.publish(1, parent=0)
    world.ticks(4)
    assert world.served.trials == {}
    world.order(Do.RESUME)
    world.ticks(4)
    assert world.served.state is TrialState.CANARY


def test_paused_a_trial_does_not_climb(world: World) -> None:
    world.to_canary()
    world.order(Do.PAUSE)
    world.trial_sessions(8, stable=0.5, candidate=0.5)
    world.ticks()
    assert world.served.share == 0.3
    world.order(Do.RESUME)
    world.ticks()
    assert world.served.share == 0.5


def test_paused_a_trial_does_not_pass_and_is_promoted_once_resumed(world: World) -> None:
    world.to_canary()
    world.trial_sessions(20, stable=0.5, candidate=0.9)
    world.ticks()
    world.order(Do.PAUSE)
    world.trial_sessions(140, stable=0.5, candidate=0.9)
    world.ticks()
    assert world.served.state is TrialState.CANARY
    world.order(Do.RESUME)
    world.ticks()
    assert world.served.stable == 1


@pytest.mark.parametrize(("do", "then"), [(Do.PAUSE, TrialState.REJECTED), (Do.FREEZE, TrialState.CANARY)])
def test_paused_harm_is_acted_on_still_and_frozen_nothing_moves_by_itself(
    world: World, do: Do, then: TrialState
) -> None:
    world.to_canary()
    world.order(do)
    world.trial_sessions(60, stable=0.5, candidate=0.0)
    world.now += 1000
    world.ticks()
    assert world.served.state is then


def test_frozen_an_engine_that_came_back_is_still_brought_to_what_the_log_says(world: World) -> None:
    world.to_canary()
    world.order(Do.FREEZE)
    world.hands["c"].version = 0
    world.ticks(1)
    assert world.hands["c"].version == 1


def test_pinning_ends_the_trial_by_the_hand_of_who_asked(world: World) -> None:
    world.to_canary()
    world.order(Do.PIN)
    ended = last(world)
    assert (ended.kind, ended.state, ended.author, ended.mode) == (
        ReleaseKind.OPERATOR, TrialState.REJECTED, "ann", Mode.PINNED,
    )  # fmt: skip
    assert world.hands["c"].version == 0


def test_where_approval_is_asked_for_evidence_alone_does_not_promote(world: World) -> None:
    world.config = world.config.model_copy(update={"approval": True})
    world.restarted()
    world.to_canary()
    assert "the gate has not passed" in str(world.order(Do.PROMOTE))
    passed(world)
    assert world.served.state is TrialState.CANARY
    answer = world.order(Do.PROMOTE, version=1)
    assert isinstance(answer, Done)
    promoted = next(one for one in world.released if one.state is TrialState.PROMOTED)
    assert (promoted.kind, promoted.author, promoted.stable) == (ReleaseKind.OPERATOR, "ann", 1)
    assert promoted.numbers["log_e.reward"] >= promoted.numbers["log_threshold"]


def test_a_rejection_takes_the_candidate_from_its_engines(world: World) -> None:
    world.to_canary()
    world.order(Do.REJECT, reason="it swears")
    assert (world.served.state, world.hands["c"].version) == (TrialState.REJECTED, 0)
    assert last(world).reason == "version 1 is rejected: it swears"


def test_a_rollback_swaps_every_engine_at_once_within_the_tick_that_hears_of_it(world: World) -> None:
    world.to_canary()
    world.to_promotion()
    for hand in world.hands.values():
        hand.version = 1
    assert isinstance(world.order(Do.ROLLBACK), Done)
    assert [hand.version for hand in world.hands.values()] == [0, 0]
    written = last(world)
    assert (written.state, written.stable, written.candidate, written.author) == (TrialState.ROLLED_BACK, 0, 1, "ann")
    assert (world.served.stable, world.served.holdback, world.served.share) == (0, None, 0.0)


def test_a_rollback_in_the_middle_of_a_trial_ends_it_first(world: World) -> None:
    world.to_canary()
    world.to_promotion()
    world.watch_sessions(60, promoted=0.5, before=0.5)
    world.session_of_stable(20, version=1)
    world.publish(2, parent=1)
    world.ticks(5)
    assert world.served.on_trial == 2
    world.order(Do.ROLLBACK)
    assert world.served.trials == {1: TrialState.ROLLED_BACK, 2: TrialState.REJECTED}
    assert (world.served.stable, {hand.version for hand in world.hands.values()}) == (0, {0})


def test_frozen_an_operator_can_still_roll_back(world: World) -> None:
    world.to_canary()
    world.to_promotion()
    world.order(Do.FREEZE)
    assert isinstance(world.order(Do.ROLLBACK), Done)
    assert (world.served.stable, world.served.mode) == (0, Mode.FROZEN)


def test_a_command_that_nobody_waits_for_any_more_is_not_carried_out(world: World) -> None:
    answer = world.rollout.desk.ask(Command(do=Do.FREEZE, author="ann", reason="so"))
    assert answer.cancel()
    world.ticks()
    assert world.served.mode is Mode.OPEN


def test_a_command_ends_the_wait_of_a_tick(world: World) -> None:
    world.config = world.config.model_copy(update={"tick_s": 3600.0})
    world.rollout._config = world.config  # as started with it: claiming the log would wait, too
    assert isinstance(world.order(Do.FREEZE), Done)


def test_what_passed_before_a_freeze_is_judged_anew_before_it_is_promoted(world: World) -> None:
    world.config = world.config.model_copy(update={"approval": True})
    world.restarted()
    world.to_canary()
    passed(world)
    assert world.rollout.standing is not None and world.rollout.standing.verdict == "pass"
    world.order(Do.FREEZE)
    world.trial_sessions(400, stable=0.9, candidate=0.0)
    world.ticks()
    asked = [Command(do=do, author="ann", reason="because") for do in (Do.RESUME, Do.PROMOTE)]
    answers = [world.rollout.desk.ask(command) for command in asked]
    world.ticks()
    assert isinstance(answers[1].result(timeout=0), Refused)
    assert world.served.state is TrialState.REJECTED
