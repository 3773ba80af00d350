"""A rollout over an in-memory log, a store of tiny files, and engines that only remember what they were told."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from infra.config import EngineSlot, GateConfig, RampStep, RolloutConfig, WatchConfig
from infra.errors import ControlError
from ingest.log import reader, topics
from ingest.log.memory import InMemoryLog
from ingest.records.events import (
    Arm,
    Assignment,
    CloseReason,
    Release,
    ReleaseKind,
    Reward,
    Trajectory,
    TrialState,
    Turn,
    TurnKind,
    Version,
    about,
)
from ingest.store import releases
from ingest.store.releases import Served
from ingest.store.versions import VersionStore
from serving.rollout.commands import Command, Do
from serving.rollout.controller import Rollout
from serving.rollout.desk import Answer
from serving.rollout.engines import EngineStatus
from serving.rollout.stages import CheckMaker


@dataclass
class Hand:
    """What the rollout holds of an engine."""

    slot: EngineSlot
    version: int = 0
    in_flight: int = 0
    is_up: bool = True
    refuses: set[int] = field(default_factory=set)
    loads: list[int] = field(default_factory=list)
    together: threading.Barrier | None = None
    held: set[int] = field(default_factory=set)
    epochs: list[int] = field(default_factory=list)
    is_dumb: bool = False

    def status(self) -> EngineStatus | None:
        return EngineStatus(self.version, self.in_flight, tuple(self.held)) if self.is_up else None

    def hold(self, versions: Sequence[int]) -> None:
        self.held |= set(versions)

    def load(self, version: int, epoch: int) -> dict[str, float]:
        if version in self.refuses:
            raise ControlError(f"{self.slot.id}: version {version}: lm_head holds a NaN")
        if self.together is not None:
            self.together.wait(timeout=10.0)
        self.loads.append(version)
        self.epochs.append(epoch)
        self.version = version
        return {"fetch_s": 0.0, "pause_s": 0.01}

    def probe(self) -> None:
        if not self.is_up or self.is_dumb:
            raise ControlError(f"{self.slot.id}: no answer")

    def close(self) -> None:
        """It goes on without the controller."""


class World:
    """A log, a store, two engines, a clock, and a rollout over them."""

    checks: Mapping[TrialState, CheckMaker] = {}

    def __init__(self, folder: Path) -> None:
        self.log, self.store = InMemoryLog(), VersionStore(str(folder / "store"))
        self.log.create(topics.specs(partitions=2, retention_s=60.0))
        self.now, self.folder, self.sessions = 1000.0, folder, 0
        self.hands = {
            "s": Hand(EngineSlot(id="s", arm="stable", port=1, control_port=2)),
            "c": Hand(EngineSlot(id="c", arm="candidate", port=3, control_port=4)),
        }
        ramp = (RampStep(share=0.3, until_units=6), RampStep(share=0.5))
        gate = GateConfig(margin=0.1, min_champion_units=10, max_wall_s=500, ramp=ramp, guardrails=(), settle_s=0)
        watch = WatchConfig(share=0.25, min_units=12, max_units=200, max_s=500)
        self.config = RolloutConfig(gate=gate, watch=watch, tick_s=0.01, drain_s=30)
        self.publish(0, parent=None)
        first = Release(
            release=0, epoch=1, kind=ReleaseKind.BOOTSTRAP, stable=0, engines={"s": 0, "c": 0}, reason="first", at=0.0
        )
        reader.send(self.log, topics.RELEASES, "", first)
        self.rollout = self.restarted()

    def restarted(self) -> Rollout:
        kept = self.folder / "evidence.json"
        self.rollout = Rollout(
            self.log,
            self.store,
            self.hands,
            self.config,
            kept,
            now=lambda: self.now,
            checks=self.checks,  # type: ignore[arg-type]
        )
        self.rollout.start()
        return self.rollout

    def publish(self, number: int, parent: int | None, metrics: dict[str, float] | None = None) -> Version:
        folder = self.folder / f"v{number}"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(bytes([number]))
        version = self.store.publish(
            number, folder, self.store.read(parent) if parent is not None else None, {}, metrics or {}, 0.0
        )
        reader.send(self.log, topics.VERSIONS, "", version)
        return version

    def session(self, assignment: Assignment, version: int, value: float, tenant: str = "t") -> None:
        self.sessions += 1
        name = f"session-{self.sessions}"
        turn = Turn(
            trace_id=f"t{self.sessions}", kind=TurnKind.MAIN, context="", reply="", followup=None, finish_reason="stop",
            status=200, num_tokens=1, versions=(version,), at=self.now,
        )  # fmt: skip
        trajectory = Trajectory(
            trajectory_id=f"j{self.sessions}", session_id=name, tenant=tenant, assignment=assignment, held_out=False,
            closed=CloseReason.INACTIVE, opened_at=self.now, closed_at=self.now, turns=(turn,), chains=(), feedback=(),
        )  # fmt: skip
        reward = Reward(
            reward_id=f"r{self.sessions}", trajectory_id=f"j{self.sessions}", session_id=name, spec="x", components=(),
            turns=(), value=value, has_signal=True, guardrails={}, trajectory=trajectory, **about(trajectory),
            at=self.now,
        )  # fmt: skip
        reader.send(self.log, topics.REWARDS, name, reward)

    def champion(self, num: int = 20) -> None:
        self.session_of_stable(num, version=0)

    def trial_sessions(self, num: int, stable: float, candidate: float, version: int = 1, tenant: str = "t") -> None:
        """As many on each arm, in the shares of the moment."""
        share = self.served.share
        for n in range(num):
            arm = Arm.CANDIDATE if n % 2 else Arm.STABLE
            pi = share if arm is Arm.CANDIDATE else 1 - share
            served = version if arm is Arm.CANDIDATE else 0
            rate = candidate if arm is Arm.CANDIDATE else stable
            self.session(
                Assignment(arm=arm, trial=version, propensity=pi), served, float((n // 2 % 10) < rate * 10), tenant
            )

    def session_of_stable(self, num: int, version: int) -> None:
        """Sessions outside any trial."""
        for n in range(num):
            self.session(Assignment(), version, float(n % 2))

    def watch_sessions(self, num: int, promoted: float, before: float) -> None:
        """Of a watch of version 1 over version 0: every fourth session is held back."""
        for n in range(num):
            arm = Arm.STABLE if n % 4 else Arm.HOLDBACK
            pi = 0.25 if arm is Arm.HOLDBACK else 0.75
            rate, version = (before, 0) if arm is Arm.HOLDBACK else (promoted, 1)
            self.session(Assignment(arm=arm, trial=1, propensity=pi), version, float((n // 4 % 10) < rate * 10))

    def replayed(self, version: int, value: float) -> None:
        """A prompt that was asked again, of an engine that serves `version`."""
        arm = Arm.CANDIDATE if version == 1 else Arm.STABLE
        self.session(Assignment(arm=arm, trial=1, propensity=0.5, replay_of="t1"), version, value)

    def order(self, do: Do, version: int | None = None, reason: str = "because") -> Answer:
        """What an operator is answered, within a tick."""
        answer = self.rollout.desk.ask(Command(do=do, author="ann", reason=reason, version=version))
        self.rollout.tick()
        return answer.result(timeout=0)

    @property
    def released(self) -> list[Release]:
        return list(reader.replay(self.log, topics.RELEASES, Release))

    @property
    def served(self) -> Served:
        return releases.fold(self.released)

    def ticks(self, num: int = 3) -> None:
        for _ in range(num):
            self.rollout.tick()

    def to_canary(self, metrics: dict[str, float] | None = None) -> None:
        self.champion()
        self.publish(1, parent=0, metrics=metrics)
        self.ticks(3)
        assert self.served.state is TrialState.CANARY

    def to_promotion(self) -> None:
        self.trial_sessions(20, stable=0.5, candidate=0.9)
        self.ticks()
        self.trial_sessions(140, stable=0.5, candidate=0.9)
        self.ticks()
