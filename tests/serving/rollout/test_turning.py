"""A controller whose arms take turns on the same engines, with users whose sessions take some seconds."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rollouts import Hand, World

from infra.config import EngineSlot, GateConfig, Placement, RampStep, RolloutConfig, SwitchbackConfig, WatchConfig
from ingest.log import reader, topics
from ingest.records.events import (
    Arm,
    Assignment,
    CloseReason,
    Mode,
    ReleaseKind,
    Reward,
    Trajectory,
    TrialState,
    Turn,
    TurnKind,
    about,
)
from serving.rollout.commands import Do
from serving.rollout.operators.books import tell
from serving.rollout.operators.history import Filters, history
from serving.router.routing import Health, assign

BLOCK_S = 10.0


@dataclass
class Session:
    """One that goes on: what the router said of it first, and which versions served it."""

    name: str
    assignment: Assignment
    began_at: float
    ends_at: float
    versions: dict[int, None] = field(default_factory=dict)


class Street(World):
    """Users who come by chance, and whose sessions are rewarded by what served them."""

    def __init__(self, folder: Path, num_engines: int = 1, **gate: object) -> None:
        self.num_engines = num_engines
        super().__init__(folder)
        ramp = (RampStep(share=0.3, until_units=6), RampStep(share=0.5))
        given = {"margin": 0.15, "min_champion_units": 10, "ramp": ramp, "guardrails": (), "settle_s": 20.0} | gate
        self.config = RolloutConfig(
            placement=Placement.SWITCHBACK,
            switchback=SwitchbackConfig(block_s=BLOCK_S, kept_margin=0.3, live_only=num_engines == 1),
            gate=GateConfig.model_validate(given),
            watch=WatchConfig(share=0.25, min_units=12, max_units=2000, max_s=50_000, alpha=0.01),
            tick_s=0.001,
            drain_s=30,
        )
        names = [f"e{n}" for n in range(num_engines)]
        self.hands = {name: Hand(EngineSlot(id=name, arm="stable", port=1, control_port=2)) for name in names}
        self.random, self.open = random.Random(7), list[Session]()
        self.rates = {0: 0.4, 1: 0.9}
        self.lengths = {0: 2.0, 1: 2.0}
        self.rollout = self.restarted()

    def live(self, seconds: int, until: Callable[[], bool] = lambda: False) -> None:
        for _ in range(seconds):
            if until():
                return
            self.now += 1.0
            self._users()
            self.rollout.tick()

    def _users(self) -> None:
        served, names = self.rollout.served, tuple(self.hands)
        for _ in range(2):
            self.sessions += 1
            name = f"session-{self.sessions}"
            version = self.hands[self.random.choice(names)].version
            length = self.random.expovariate(1.0 / self.lengths[version])
            self.open.append(
                Session(name, assign(name, served, names, Health()), self.now, self.now + length, {version: None})
            )
        for one in tuple(self.open):
            pool = [hand.version for hand in self.hands.values()]
            one.versions |= {self.random.choice(pool): None} if len(one.versions) == 1 else {}
            if one.ends_at <= self.now:
                self.open.remove(one)
                self._score(one)

    def _score(self, one: Session) -> None:
        turn = Turn(
            trace_id=f"{one.name}-t", kind=TurnKind.MAIN, context="", reply="", followup=None, finish_reason="stop",
            status=200, num_tokens=1, versions=tuple(one.versions), at=one.ends_at,
        )  # fmt: skip
        trajectory = Trajectory(
            trajectory_id=one.name, session_id=one.name, tenant="t", assignment=one.assignment, held_out=False,
            closed=CloseReason.INACTIVE, opened_at=one.began_at, closed_at=self.now, turns=(turn,), chains=(),
            feedback=(),
        )  # fmt: skip
        rate = min(self.rates[version] for version in one.versions)
        reward = Reward(
            reward_id=one.name, trajectory_id=one.name, session_id=one.name, spec="x", components=(), turns=(),
            value=float(self.random.random() < rate), has_signal=True, guardrails={}, trajectory=trajectory,
            at=self.now, **about(trajectory),
        )  # fmt: skip
        reader.send(self.log, topics.REWARDS, one.name, reward)

    @property
    def state(self) -> TrialState | None:
        return self.rollout.served.state

    def to_trial(self) -> None:
        self.live(120)
        self.publish(1, parent=0)
        self.live(10, lambda: self.state is TrialState.CANARY)
        assert self.state is TrialState.CANARY

    def is_over(self) -> bool:
        return self.state is not TrialState.CANARY


@pytest.mark.parametrize("num_engines", [1, 3])
def test_a_better_version_is_promoted_on_the_blocks_of_one_pool(tmp_path: Path, num_engines: int) -> None:
    street = Street(tmp_path, num_engines)
    street.to_trial()
    street.live(3000, street.is_over)
    assert street.state is TrialState.PROMOTED, street.rollout.standing
    assert {hand.version for hand in street.hands.values()} == {1}
    promoted = next(release for release in street.released if release.state is TrialState.PROMOTED)
    assert "blocks" in promoted.reason
    assert promoted.numbers["kept.candidate"] > 0.5 and promoted.numbers["log_e.kept"] > 0.0
    assert promoted.numbers["units.candidate"] + promoted.numbers["units.stable"] < promoted.numbers["sessions"] / 5


def test_a_worse_version_is_rejected_and_stable_serves_at_once(tmp_path: Path) -> None:
    street = Street(tmp_path)
    street.rates[1] = 0.05
    street.to_trial()
    street.live(3000, street.is_over)
    assert street.state is TrialState.REJECTED
    assert "users are served worse" in street.released[-2].reason + street.released[-1].reason
    assert street.hands["e0"].version == 0


def test_a_better_version_whose_sessions_outlast_their_blocks_more_often_is_not_promoted(tmp_path: Path) -> None:
    street = Street(tmp_path, max_units=200)
    street.lengths[1] = 12.0
    street.to_trial()
    street.live(6000, street.is_over)
    assert street.state is TrialState.REJECTED
    (rejected,) = [release for release in street.released if release.state is TrialState.REJECTED]
    assert "kept is hurt" in rejected.reason


def test_every_engine_serves_the_arm_of_the_block_for_as_long_as_it_goes_on(tmp_path: Path) -> None:
    street = Street(tmp_path, num_engines=3)
    street.to_trial()
    seen = set()
    for _ in range(300):
        street.live(1, street.is_over)
        served = street.rollout.served
        if served.block is not None and served.turn is not None:
            seen.add(served.turn)
            assert {hand.version for hand in street.hands.values()} == set(served.engines.values())
    assert seen == {Arm.STABLE, Arm.CANDIDATE}


def test_checks_before_users_have_an_engine_of_the_pool_and_users_the_others(tmp_path: Path) -> None:
    street = Street(tmp_path, num_engines=2)
    street.hands["e1"].in_flight = 1
    street.live(120)
    street.publish(1, parent=0)
    street.live(5, lambda: street.state is TrialState.EVALUATING)
    assert street.rollout.served.engines == {"e0": 0, "e1": 1}
    assert street.hands["e1"].version == 0, "it is drained first"
    street.hands["e1"].in_flight = 0
    street.live(5, lambda: street.state is TrialState.CANARY)
    assert (street.state, street.hands["e0"].loads) == (
        TrialState.CANARY,
        [],
    ) or street.rollout.served.block is not None


def test_one_engine_says_that_users_are_the_first_to_meet_a_candidate(tmp_path: Path) -> None:
    street = Street(tmp_path)
    street.hands["e0"].in_flight = 5  # its users never go away
    street.to_trial()
    began = next(release for release in street.released if release.state is TrialState.CANARY)
    assert "users are the first to meet it" in began.reason and "of blocks" in began.reason


def test_a_version_that_cannot_be_loaded_in_its_block_is_rejected(tmp_path: Path) -> None:
    street = Street(tmp_path)
    street.to_trial()
    street.hands["e0"].refuses.add(1)
    street.live(200, street.is_over)
    assert street.state is TrialState.REJECTED
    assert any("could not be served in its block" in release.reason for release in street.released)


def test_a_controller_that_starts_in_the_middle_of_a_block_goes_on_with_it(tmp_path: Path) -> None:
    street = Street(tmp_path)
    street.to_trial()
    street.live(100, lambda: street.rollout.served.block == 2)
    street.live(3)
    before = street.rollout.served.block
    street.restarted()
    assert street.rollout.served.block == before
    street.rollout.tick()
    assert street.rollout.served.block == before
    street.live(3000, street.is_over)
    assert street.state is TrialState.PROMOTED


def test_a_version_that_turns_bad_is_taken_back_on_blocks_of_the_version_before(tmp_path: Path) -> None:
    street = Street(tmp_path)
    street.to_trial()
    street.live(3000, street.is_over)
    assert (street.state, street.rollout.served.holdback) == (TrialState.PROMOTED, 0)
    street.rates[1] = 0.05
    street.live(9000, lambda: street.state is TrialState.ROLLED_BACK)
    assert street.state is TrialState.ROLLED_BACK, street.rollout.standing
    assert (street.rollout.served.stable, street.hands["e0"].version) == (0, 0)


def test_a_freeze_in_a_candidates_block_gives_everyone_stable(tmp_path: Path) -> None:
    street = Street(tmp_path)
    street.to_trial()
    street.live(300, lambda: street.rollout.served.turn is Arm.CANDIDATE)
    street.order(Do.FREEZE)
    street.live(40)
    assert street.rollout.served.mode is Mode.FROZEN and street.state is TrialState.CANARY
    assert (street.rollout.served.block, street.hands["e0"].version) == (None, 0)
    street.order(Do.RESUME)
    street.live(3000, street.is_over)
    assert street.state is TrialState.PROMOTED


def test_blocks_go_on_while_a_trial_is_paused_or_waits_for_approval(tmp_path: Path) -> None:
    street = Street(tmp_path)
    street.config = street.config.model_copy(update={"approval": True})
    street.restarted()
    street.to_trial()
    street.live(1500)
    before = street.rollout.served.block
    assert street.rollout.standing is not None and street.rollout.standing.verdict == "pass"
    street.order(Do.PAUSE)
    street.live(50)
    assert street.rollout.served.block is not None and before is not None and street.rollout.served.block > before


def test_a_day_of_blocks_costs_the_release_log_a_few_megabytes(tmp_path: Path) -> None:
    street = Street(tmp_path)
    street.rates = {0: 0.5, 1: 0.5}
    street.to_trial()
    street.live(300)
    blocks = [release for release in street.released if release.kind in (ReleaseKind.BLOCK, ReleaseKind.ANNOUNCED)]
    total = sum(len(release.model_dump_json()) for release in blocks)
    num = sum(release.block is not None for release in blocks)
    assert num >= 20 and total / num < 1500


def test_the_story_of_a_trial_in_blocks_is_told_by_the_evidence_it_was_decided_on(tmp_path: Path) -> None:
    street = Street(tmp_path)
    street.to_trial()
    street.live(3000, street.is_over)
    promoted = next(release for release in street.released if release.state is TrialState.PROMOTED)
    told = tell(street.log, 1, None, street.released, street.config, street.now)
    seen = [point for point in told.points if not point.is_watch and point.at <= promoted.at]
    assert seen[-1].log_e == pytest.approx(promoted.numbers["log_e.reward"], abs=0.5)
    assert seen[-1].num_units == promoted.numbers["units.candidate"] + promoted.numbers["units.stable"]
    assert [stage.state for stage in told.stages] == [TrialState.EVALUATING, TrialState.CANARY, TrialState.PROMOTED]
    assert all(len(stage.steps) < 5 for stage in told.stages), "blocks are no steps"


def test_history_tells_of_blocks_only_when_it_is_asked_for_everything(tmp_path: Path) -> None:
    street = Street(tmp_path)
    street.to_trial()
    street.live(60)
    told = {is_all: history(street.released, Filters(is_all=is_all, limit=500)) for is_all in (False, True)}
    assert not [entry for entry in told[False].entries if entry.release.kind is ReleaseKind.BLOCK]
    whats = [entry.what for entry in told[True].entries if entry.release.kind is ReleaseKind.BLOCK]
    assert "block 0 begins" in whats and "engines swap" in whats
