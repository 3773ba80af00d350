"""A street of users before a controller in memory: they come by chance, their sessions take some seconds, and are
rewarded by what served them. The router's own decisions say what that is."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rollouts import Hand, World

from infra.config import EngineSlot, GateConfig, Placement, RampStep, RolloutConfig, SwitchbackConfig, WatchConfig
from ingest.log import reader, topics
from ingest.records.events import (
    Assignment,
    CloseReason,
    Reward,
    Trajectory,
    TrialState,
    Turn,
    TurnKind,
    about,
)
from serving.router.routing import Health, assign, order

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

    def __init__(
        self, folder: Path, num_engines: int = 1, placement: Placement = Placement.SWITCHBACK, **gate: object
    ) -> None:
        super().__init__(folder)
        ramp = (RampStep(share=0.3, until_units=6), RampStep(share=0.5))
        given = {"margin": 0.15, "min_champion_units": 10, "ramp": ramp, "guardrails": (), "settle_s": 20.0} | gate
        self.config = RolloutConfig(
            placement=placement,
            switchback=SwitchbackConfig(block_s=BLOCK_S, whole_margin=0.3, live_only=num_engines == 1),
            gate=GateConfig.model_validate(given),
            watch=WatchConfig(share=0.25, min_units=12, max_units=2000, max_s=50_000, alpha=0.01),
            tick_s=0.001,
            drain_s=30,
        )
        is_split = placement is Placement.SPLIT
        arms = [*["stable"] * (num_engines - is_split), *["candidate"] * is_split]
        slots = [
            EngineSlot.model_validate({"id": f"e{n}", "arm": arm, "port": 1, "control_port": 2})
            for n, arm in enumerate(arms)
        ]
        self.hands = {slot.id: Hand(slot) for slot in slots}
        self.random, self.open = random.Random(7), list[Session]()
        self.rates = {0: 0.4, 1: 0.9}
        self.polite = {0: 0.9, 1: 0.9}
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
        for _ in range(2):
            self.sessions += 1
            name = f"session-{self.sessions}"
            assignment = assign(name, self.rollout.served, tuple(self.hands), Health())
            length = self.random.expovariate(1.0 / self.lengths[self._served(name, assignment)])
            self.open.append(Session(name, assignment, self.now, self.now + length))
        for one in tuple(self.open):
            again = assign(one.name, self.rollout.served, tuple(self.hands), Health())
            one.versions |= {self._served(one.name, again): None}
            if one.ends_at <= self.now:
                self.open.remove(one)
                self._score(one)

    def _served(self, name: str, assignment: Assignment) -> int:
        """The version that a request is answered by."""
        engines = order(name, assignment, self.rollout.served, tuple(self.hands), Health())
        return self.hands[engines[0]].version

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
        rate, polite = (min(of[version] for version in one.versions) for of in (self.rates, self.polite))
        reward = Reward(
            reward_id=one.name, trajectory_id=one.name, session_id=one.name, spec="x", components=(), turns=(),
            value=float(self.random.random() < rate), has_signal=True,
            guardrails={"polite": float(self.random.random() < polite)}, trajectory=trajectory, at=self.now,
            **about(trajectory),
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
