"""Stages in which a check decides, before users meet the candidate."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from rollouts import World

from infra.config import EngineSlot
from ingest.records.events import Assignment, Group, Reward, TrialState, Version
from serving.rollout.commands import Do
from serving.rollout.evidence import Standing, Verdict
from serving.rollout.stages import CheckMaker

HOLD = Standing(Verdict.HOLD, "3 of 9 tasks", {"tasks": 3.0})
PASS = Standing(Verdict.PASS, "9 of 9 tasks", {"tasks": 9.0})
REJECT = Standing(Verdict.REJECT, "says its prompt aloud", {})
EXPIRE = Standing(Verdict.EXPIRE, "no prompts are left", {})


@dataclass
class Scripted:
    """A check that stands as it is told, and remembers."""

    standing: Standing = HOLD
    raises: str = ""
    asked: list[tuple[int, int, list[str], list[str]]] = field(default_factory=list)
    taken: list[float] = field(default_factory=list)
    num_closed: int = 0

    def make(
        self, candidate: Version, stable: int, mine: Sequence[EngineSlot], others: Sequence[EngineSlot]
    ) -> "Scripted":
        self.asked.append((candidate.version, stable, [one.id for one in mine], [one.id for one in others]))
        self._fail("make")
        return self

    def take(self, reward: Reward) -> None:
        self._fail("take")
        self.taken.append(reward.value)

    def look(self) -> Standing:
        self._fail("look")
        return self.standing

    def close(self) -> None:
        self.num_closed += 1
        self._fail("close")

    def _fail(self, where: str) -> None:
        if self.raises == where:
            raise ValueError(f"{where}: no judge answers")


def on_trial(world: World, **checks: CheckMaker) -> None:
    """Version 1, as far as it goes."""
    world.checks = {TrialState(name): maker for name, maker in checks.items()}
    world.restarted()
    world.champion()
    world.publish(1, parent=0)
    world.ticks(4)


def test_users_meet_a_candidate_only_after_both_checks_passed(world: World) -> None:
    suites, replay = Scripted(), Scripted()
    on_trial(world, suites=suites.make, replay=replay.make)
    assert (world.served.state, world.served.share, world.hands["c"].version) == (TrialState.SUITES, 0.0, 1)
    assert (suites.asked, replay.asked) == ([(1, 0, ["c"], ["s"])], [])
    assert world.rollout.standing == HOLD
    suites.standing = PASS
    world.ticks(2)
    assert (world.served.state, len(replay.asked), suites.num_closed) == (TrialState.REPLAY, 1, 1)
    replay.standing = PASS
    world.ticks(2)
    assert (world.served.state, world.served.share) == (TrialState.CANARY, 0.3)
    assert "9 of 9 tasks" in next(one for one in world.released if one.state is TrialState.CANARY).reason


def test_a_state_that_has_no_check_is_passed_over(world: World) -> None:
    replay = Scripted(PASS)
    on_trial(world, replay=replay.make)
    world.ticks(2)
    assert TrialState.SUITES not in {one.state for one in world.released}
    assert world.served.state is TrialState.CANARY


@pytest.mark.parametrize(("standing", "then"), [(REJECT, TrialState.REJECTED), (EXPIRE, TrialState.EXPIRED)])
def test_a_check_that_is_not_passed_ends_the_trial_with_its_reason(
    world: World, standing: Standing, then: TrialState
) -> None:
    suites = Scripted(standing)
    on_trial(world, suites=suites.make)
    ended = next(one for one in world.released if one.state is then)
    assert standing.reason in ended.reason
    assert (world.hands["c"].version, suites.num_closed) == (0, 1)


@pytest.mark.parametrize("where", ["make", "look", "take"])
def test_a_check_that_cannot_run_is_no_pass_and_says_so(world: World, where: str) -> None:
    suites = Scripted(PASS if where != "take" else HOLD, raises=where)
    on_trial(world, suites=suites.make)
    if where == "take":
        world.replayed(1, 0.5)
        world.ticks(2)
    assert world.served.state is TrialState.REJECTED
    ended = next(one for one in world.released if one.state is TrialState.REJECTED)
    assert f"its suites could not run: ValueError: {where}: no judge answers" in ended.reason


def test_a_check_that_does_not_close_changes_nothing(world: World) -> None:
    suites = Scripted(PASS, raises="close")
    on_trial(world, suites=suites.make)
    world.ticks(2)
    assert world.served.state is TrialState.CANARY


def test_prompts_asked_again_are_the_checks_alone_and_never_evidence(world: World) -> None:
    replay = Scripted()
    on_trial(world, replay=replay.make)
    before = world.rollout.evidence.baselines(0, world.config.gate)
    world.replayed(1, 0.25)
    world.replayed(0, 0.75)
    world.ticks(2)
    assert sorted(replay.taken) == [0.25, 0.75]
    replay.standing = PASS
    world.ticks(2)
    assert world.rollout.standing is not None and world.rollout.standing.num_units == 0
    assert world.rollout.evidence.baselines(0, world.config.gate) == before
    world.replayed(1, 0.0)
    world.ticks(2)
    assert len(replay.taken) == 2, "it is closed"


def test_what_the_replay_lane_asks_is_neither_a_checks_nor_evidence(world: World) -> None:
    replay = Scripted()
    on_trial(world, replay=replay.make)
    before = world.rollout.evidence.baselines(0, world.config.gate)
    asked = Assignment(replay_of="t1", group=Group(size=2, propensity=0.1))
    for _ in range(3):
        world.session(asked, 0, 0.0)
    world.ticks(2)
    assert replay.taken == []
    assert world.rollout.evidence.baselines(0, world.config.gate) == before


def test_a_check_begins_anew_with_the_controller(world: World) -> None:
    suites = Scripted()
    on_trial(world, suites=suites.make)
    world.restarted()
    world.ticks(2)
    assert (len(suites.asked), world.served.state) == (2, TrialState.SUITES)


@pytest.mark.parametrize("do", [Do.PAUSE, Do.FREEZE])
def test_while_it_is_held_a_check_that_passed_leads_to_no_users(world: World, do: Do) -> None:
    suites = Scripted()
    on_trial(world, suites=suites.make)
    world.order(do)
    suites.standing = PASS
    world.ticks(3)
    assert world.served.state is TrialState.SUITES
    world.order(Do.RESUME)
    world.ticks(2)
    assert world.served.state is TrialState.CANARY


def test_a_rejection_by_an_operator_closes_the_check(world: World) -> None:
    suites = Scripted()
    on_trial(world, suites=suites.make)
    world.order(Do.REJECT)
    assert (world.served.state, suites.num_closed) == (TrialState.REJECTED, 1)
