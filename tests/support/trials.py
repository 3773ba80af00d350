"""A rollout's past on an in-memory log: trials with simulated sessions, whose releases the gate itself decided on."""

import random
from collections.abc import Mapping
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
from serving.rollout import evidence
from serving.rollout.evidence import Baseline, Standing, Verdict
from serving.rollout.moves import freeze
from serving.rollout.operators.gauges import TrialGauge, WatchGauge

BASELINES = {"reward": Baseline(0.6, 0.24), "completed": Baseline(0.9, 0.09), "substance": Baseline(0.8, 0.16)}
CONFIG = RolloutConfig(
    gate=GateConfig(margin=0.05, settle_s=120.0, ramp=(RampStep(share=0.1, until_units=300), RampStep(share=0.5)))
)


Rates = Mapping[str, float]
"""Outcome -> how often it is 1; left out: as often as the champion's."""


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

    def canary(self, version: int, rates: Rates, every_s: float = 30.0, at_most: int = 4000) -> Standing:
        """Sessions of one trial, until the gate says something; the release of that is left to the caller.

        `rates` are the candidate's; stable's are the baselines'.
        """
        gauge = TrialGauge(self.releases[-1], self.releases, self.config)
        stable = self.releases[-1].stable
        standing = gauge.look(self.now)
        for number in range(at_most):
            share = self.releases[-1].share
            arms = (Arm.CANDIDATE, share, version, rates), (Arm.STABLE, 1.0 - share, stable, {})
            gauge.add(self._session(version, every_s, *arms))
            if number % 25 and number < at_most - 1:
                continue
            standing = gauge.look(self.now)
            if standing.verdict is not Verdict.HOLD:
                break
            if (wanted := evidence.share_at(standing.num_units, self.config.gate)) != share:
                told = f"version {version} gets {wanted:.0%} of sessions"
                self.move(version, TrialState.CANARY, told, share=wanted, numbers=standing.numbers)
        return standing

    def watch(self, version: int, good: Rates, bad: Rates, num_good: int, every_s: float = 30.0) -> Standing:
        """Sessions of a watch, until it says something. The promoted version is `good` for so many, then `bad`."""
        begin = self.releases[-1]
        assert begin.holdback is not None
        gauge = WatchGauge(begin, self.releases, self.config)
        self.now += 1.0
        self.reward(version, Arm.STABLE, 1.0 - begin.share, (version,), 0.0)  # began before the promotion: not of it
        self.now += 60.0  # the first session begins after the promotion, and is scored a minute later
        standing = gauge.look(self.now)
        for number in range(self.config.watch.max_units):
            share, rates = begin.share, good if number < num_good else bad
            arms = (Arm.HOLDBACK, share, begin.holdback, {}), (Arm.STABLE, 1.0 - share, version, rates)
            gauge.add(self._session(version, every_s, *arms))
            if number % 25 == 0 and (standing := gauge.look(self.now)).verdict is not Verdict.HOLD:
                break
        return standing

    def _session(self, trial: int, every_s: float, *arms: tuple[Arm, float, int, Rates]) -> Reward:
        """One session, with a coin that gives it the first arm or the other: (arm, share, version, rates)."""
        self.now += self.draw.expovariate(1.0 / every_s)
        arm, share, version, rates = arms[self.draw.random() >= arms[0][1]]
        hits = {name: float(self.draw.random() < rates.get(name, one.mean)) for name, one in BASELINES.items()}
        return self.reward(trial, arm, share, (version,), hits.pop("reward"), guardrails=hits)

    def promote(self, version: int, standing: Standing) -> Release:
        """Promoted, and watched beside the version before."""
        what = {"stable": version, "holdback": self.releases[-1].stable, "share": self.config.watch.share}
        told = f"version {version} is promoted: {standing.reason}"
        return self.move(version, TrialState.PROMOTED, told, numbers={**standing.numbers, **freeze(BASELINES)}, **what)


def eventful() -> Past:
    """Four trials: one hurt users, one was rejected by a person, one was promoted and turned bad, one goes on."""
    past = Past()
    past.now += 3600.0
    past.begin(1, 0)
    standing = past.canary(1, {"reward": 0.3})
    past.move(1, TrialState.REJECTED, standing.reason, numbers=standing.numbers)
    past.now += 1800.0
    past.begin(2, 0)
    past.canary(2, {}, at_most=200)
    past.now += 60.0
    past.operator(
        "mara",
        "version 2 is rejected: support has complaints about its tone",
        candidate=2,
        state=TrialState.REJECTED,
    )
    past.operator(
        "mara",
        "no trial begins and nothing is promoted until it is resumed: until we know why",
        candidate=2,
        state=TrialState.REJECTED,
        mode=Mode.PAUSED,
    )
    past.now += 7200.0
    past.operator(
        "jo",
        "it was paused, and goes on: the system prompt was at fault",
        candidate=2,
        state=TrialState.REJECTED,
        mode=Mode.OPEN,
    )
    past.begin(3, 0)
    past.promote(3, past.canary(3, {"reward": 0.72, "completed": 0.95, "substance": 0.88}))
    standing = past.watch(3, {"reward": 0.7}, {"reward": 0.3}, num_good=300)
    told = f"version 3 is taken back, version 0 serves everyone: {standing.reason}"
    past.move(3, TrialState.ROLLED_BACK, told, stable=0, numbers=standing.numbers)
    past.now += 900.0
    past.begin(4, 0)
    past.canary(4, {"reward": 0.64}, at_most=900)
    return past
