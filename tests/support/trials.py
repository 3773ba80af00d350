"""A rollout's past on an in-memory log: trials with simulated sessions, whose releases the gate itself decided on."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from infra.config import GateConfig, RampStep, RolloutConfig
from ingest.log import reader, topics
from ingest.log.memory import InMemoryLog
from ingest.records.events import (
    Arm,
    Assignment,
    Mode,
    Release,
    ReleaseKind,
    Reward,
    Source,
    TrialState,
    Version,
    session_key,
)
from serving.rollout import gate
from serving.rollout.controller import freeze
from serving.rollout.gate import Baseline, Standing, Verdict
from serving.rollout.operators.gauges import TrialGauge

BASELINES = {"reward": Baseline(0.6, 0.24), "completed": Baseline(0.9, 0.09), "substance": Baseline(0.8, 0.16)}
CONFIG = RolloutConfig(gate=GateConfig(margin=0.05, ramp=(RampStep(share=0.1, until_units=300), RampStep(share=0.5))))


@dataclass
class Past:
    """Writes a past, second by second. `now` is Unix time."""

    log: InMemoryLog = field(default_factory=InMemoryLog)
    config: RolloutConfig = CONFIG
    now: float = 1_790_000_000.0
    draw: random.Random = field(default_factory=lambda: random.Random(7))
    releases: list[Release] = field(default_factory=list)
    sessions: int = 0

    def __post_init__(self) -> None:
        self.log.create(topics.specs(partitions=2, retention_s=60.0))
        self.release(ReleaseKind.BOOTSTRAP, "version 0 is the base model", stable=0)
        self.release(ReleaseKind.CLAIM, "the rollout controller started, epoch 1", epoch=1)

    def release(self, kind: ReleaseKind, reason: str, **what: Any) -> Release:
        last = self.releases[-1] if self.releases else None
        kept = {} if last is None else {"epoch": last.epoch, "stable": last.stable, "mode": last.mode}
        fields = {
            "release": len(self.releases),
            "kind": kind,
            "reason": reason,
            "at": self.now,
            "epoch": 0,
            **kept,
            **what,
        }
        made = Release.model_validate(fields)
        reader.append(self.log, topics.RELEASES, "", made)
        self.releases.append(made)
        return made

    def move(self, version: int, state: TrialState, reason: str, **what: Any) -> Release:
        return self.release(ReleaseKind.TRIAL, reason, **{"candidate": version, "state": state, **what})

    def operator(self, author: str, reason: str, **what: Any) -> Release:
        return self.release(ReleaseKind.OPERATOR, reason, author=author, **what)

    def publish(self, version: int, parent: int) -> Version:
        made = Version(
            version=version, digest=f"{version:064d}", parent=parent, parent_digest=None, files=(), lineage={},
            metrics={}, created_at=self.now,
        )  # fmt: skip
        reader.append(self.log, topics.VERSIONS, "", made)
        return made

    def reward(
        self, trial: int, arm: Arm, propensity: float, versions: tuple[int, ...], value: float, **what: Any
    ) -> Reward:
        self.sessions += 1
        session = f"session {self.sessions}"
        assignment = Assignment(arm=arm, trial=trial, propensity=propensity)
        fields = {
            "reward_id": f"r{self.sessions}", "trajectory_id": f"t{self.sessions}", "session_id": session,
            "tenant": "acme", "user": f"user {self.sessions}", "assignment": assignment, "held_out": False,
            "opened_at": self.now - 60.0, "trace_ids": (f"{session_key(session)}-0",), "versions": versions,
            "spec": "spec@1", "components": (), "turns": (), "value": value, "has_signal": True,
            "guardrails": {"completed": 1.0, "substance": 1.0}, "source": Source(partition=0, offset=0),
            "at": self.now, **what,
        }  # fmt: skip
        made = Reward.model_validate(fields)
        reader.append(self.log, topics.REWARDS, session_key(session), made)
        return made

    def begin(self, version: int, parent: int) -> None:
        """Published, loaded, and given its first users."""
        self.publish(version, parent)
        self.now += 40.0
        self.move(version, TrialState.EVALUATING, f"version {version} takes the candidate engines")
        self.now += 95.0
        self.move(
            version,
            TrialState.CANARY,
            f"version {version} gets 10% of sessions; the champion's reward is 0.600",
            share=0.1,
            numbers=freeze(BASELINES),
        )

    def canary(self, version: int, rates: dict[str, float], every_s: float = 30.0, at_most: int = 4000) -> Standing:
        """Sessions of one trial, until the gate says something; the release of that is left to the caller.

        `rates` are the candidate's; stable's are the baselines'.
        """
        begin, before = self.releases[-1], self.releases[:-1]
        stable = begin.stable
        gauge = TrialGauge(begin, before, self.config.gate)
        for number in range(at_most):
            share = self.releases[-1].share
            self.now += self.draw.expovariate(1.0 / every_s)
            is_candidate = self.draw.random() < share
            hit: Callable[[str], float] = lambda name, is_candidate=is_candidate: float(  # noqa: E731
                self.draw.random() < (rates.get(name, BASELINES[name].mean) if is_candidate else BASELINES[name].mean)
            )
            gauge.add(
                self.reward(
                    version,
                    Arm.CANDIDATE if is_candidate else Arm.STABLE,
                    share if is_candidate else 1.0 - share,
                    (version if is_candidate else stable,),
                    hit("reward"),
                    guardrails={"completed": hit("completed"), "substance": hit("substance")},
                )
            )
            if number % 25 and number < at_most - 1:
                continue
            standing = gauge.look(self.now)
            if standing.verdict is not Verdict.HOLD:
                return standing
            if (wanted := gate.share_at(standing.num_units, self.config.gate)) != share:
                self.move(
                    version,
                    TrialState.CANARY,
                    f"version {version} gets {wanted:.0%} of sessions",
                    share=wanted,
                    numbers=standing.numbers,
                )
        return standing

    def promote(self, version: int, standing: Standing, **what: Any) -> Release:
        reason = f"version {version} is promoted: {standing.reason}"
        return self.move(version, TrialState.PROMOTED, reason, stable=version, numbers=standing.numbers, **what)


def eventful() -> Past:
    """Four trials: one hurt users, one was rejected by a person, one was promoted and taken back, one goes on."""
    past = Past()
    past.now += 3600.0
    past.begin(1, 0)
    standing = past.canary(1, {"reward": 0.35})
    past.move(1, TrialState.REJECTED, standing.reason, numbers=standing.numbers)
    past.now += 1800.0
    past.begin(2, 0)
    standing = past.canary(2, {}, at_most=200)
    past.now += 60.0
    past.operator("mara", "support has complaints about tone", candidate=2, state=TrialState.REJECTED)
    past.operator("mara", "until we know why", mode=Mode.PAUSED)
    past.now += 7200.0
    past.operator("jo", "the prompt was at fault", mode=Mode.OPEN)
    past.begin(3, 0)
    standing = past.canary(3, {"reward": 0.72, "completed": 0.93, "substance": 0.85})
    past.promote(3, standing, holdback=0, share=0.1)
    past.now += 5400.0
    past.operator("mara", "it answers in German", candidate=3, state=TrialState.ROLLED_BACK, stable=0)
    past.now += 900.0
    past.begin(4, 0)
    past.canary(4, {"reward": 0.64}, at_most=900)
    return past
