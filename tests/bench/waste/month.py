"""A month at speed: users, engines that sample with real weights, trials of a given length, and a trainer."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from table import MODEL, Table
from task import ANSWERS, QUESTIONS, Users

from infra.config import Config
from infra.lifecycle import Stop
from ingest.log import topics
from ingest.log.memory import InMemoryLog
from ingest.log.protocol import TopicSpec
from ingest.log.reader import replay, send
from ingest.records.events import (
    Chain,
    CloseReason,
    Fate,
    Release,
    ReleaseKind,
    Reward,
    Segment,
    Source,
    Trajectory,
    TrialState,
    Turn,
    TurnKind,
    TurnReward,
    Version,
    VersionSpan,
    about,
    session_key,
)
from ingest.store.versions import VersionStore
from trainer.loop import Trainer

DAY_S = 86_400.0
MakeTrainer = Callable[..., Trainer]


@dataclass(frozen=True)
class Plan:
    """A month. A trial takes `trial_batches` batches of sessions, `candidate_share` of them on the candidate."""

    seed: int
    days: int = 30
    sessions_a_day: int = 640
    batch_turns: int = 32
    trial_batches: int = 20
    candidate_share: float = 0.25
    promoted: float = 0.45
    rejected: float = 0.45
    changes_a_day: int = 1
    lr: float = 0.03

    @property
    def num_sessions(self) -> int:
        return self.days * self.sessions_a_day

    def outcome(self, trial: int) -> TrialState:
        """Of the trial of that number, whoever is on trial."""
        drawn = random.Random(f"{self.seed} {trial}").random()
        if drawn < self.promoted:
            return TrialState.PROMOTED
        return TrialState.REJECTED if drawn < self.promoted + self.rejected else TrialState.EXPIRED


@dataclass
class Told:
    """What a month came to."""

    rewards: list[float] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    num_in_line: int = 0
    num_versions: int = 0


class Month:
    """One rule's month, in a folder."""

    def __init__(self, plan: Plan, make: MakeTrainer, folder: Path) -> None:
        self._plan, self._users, self.time = plan, Users(plan.seed, plan.changes_a_day), 0.0
        own = {
            "batch_turns": plan.batch_turns,
            "minibatch_turns": plan.batch_turns,
            "lr": plan.lr,
        }
        self._config = Config.model_validate({"run_dir": str(folder), "model": {"path": str(folder)}, "trainer": own})
        self._log = InMemoryLog()
        self._log.create([TopicSpec(topic.name, 1 if topic.ordered else 2, None) for topic in topics.ALL])
        self._store = VersionStore(str(folder / "store"))
        self._weights: dict[int, NDArray[np.float64]] = {}
        self._folder, self._num_releases, self._told = folder, 0, Told()
        self._stable, self._begun = 0, 0
        self._candidate: int | None = None
        self._tried: int | None = None
        base = folder / "base"
        base.mkdir(parents=True)
        save_file({"logits": np.zeros((QUESTIONS, ANSWERS), np.float32)}, base / MODEL)
        self._store.publish(0, base, None, {}, {}, 0.0)
        self._release(ReleaseKind.BOOTSTRAP)
        policy = Table(self._config.trainer)
        self._trainer = make(self._config, self._log, self._store, policy, Stop(), now=lambda: self.time)
        self._trainer.recover()

    # -- the rollout

    def _release(self, kind: ReleaseKind = ReleaseKind.TRIAL, **fields: Any) -> None:
        told = {
            "release": self._num_releases,
            "epoch": 1,
            "kind": kind,
            "stable": self._stable,
            "reason": "",
            "at": 0.0,
        }
        self._num_releases += 1
        send(self._log, topics.RELEASES, "", Release.model_validate({**told, **fields}))

    def _look(self, session: int) -> None:
        """Begin the trial of what is published, or end one that has had its sessions."""
        owed = self._trainer.state.candidate
        if self._candidate is None and owed is not None and owed.is_published and owed.version != self._tried:
            self._candidate = self._tried = owed.version
            self._begun = session
            self._release(candidate=owed.version, state=TrialState.CANARY)
        elif self._candidate is not None and session - self._begun >= self._plan.trial_batches * self._plan.batch_turns:
            outcome = self._plan.outcome(self._told.outcomes.total())
            self._told.outcomes[outcome.value] += 1
            if outcome is TrialState.PROMOTED:
                self._stable = self._candidate
            self._release(candidate=self._candidate, state=outcome)
            self._candidate = None

    # -- the engines

    def _odds(self, version: int) -> NDArray[np.float64]:
        """A version's odds of each answer, QUESTIONS x ANSWERS, from its weights in the store."""
        if version not in self._weights:
            fetched = self._store.fetch(self._store.read(version), self._folder / "engine")
            logits = load_file(fetched / MODEL)["logits"].astype(np.float64)
            odds = np.exp(logits - logits.max(1, keepdims=True))
            self._weights[version] = odds / odds.sum(1, keepdims=True)
        return self._weights[version]

    def _serve(self, session: int, pleased: NDArray[np.float64]) -> None:
        """A session of one turn, and its reward on the log."""
        question, arm, drawn, pleasure = self._users.draws(session)
        is_tried = self._candidate is not None and arm < self._plan.candidate_share
        version = self._candidate if is_tried and self._candidate is not None else self._stable
        odds = self._odds(version)[question]
        answer = min(int(np.searchsorted(odds.cumsum(), drawn)), ANSWERS - 1)
        reward = float(pleasure < pleased[question, answer])
        self._told.rewards.append(reward)
        self._send(f"s{session}", question, answer, float(np.log(odds[answer])), version, reward)

    def _send(self, session: str, question: int, answer: int, logp: float, version: int, reward: float) -> None:
        key = session_key(session)
        trace_id = f"{key}-0"
        segment = Segment(
            trace_id=trace_id, start=1, end=2, logprobs=(logp,), spans=(VersionSpan(version=version, start=0, end=1),)
        )
        turn = Turn(
            trace_id=trace_id, kind=TurnKind.MAIN, context="", reply="", followup=None, finish_reason="stop",
            status=200, num_tokens=1, versions=(version,), at=self.time,
        )  # fmt: skip
        trajectory = Trajectory(
            trajectory_id=f"t-{session}", session_id=session, tenant="default", assignment=None, held_out=False,
            closed=CloseReason.INACTIVE, opened_at=self.time, closed_at=self.time, turns=(turn,), feedback=(),
            chains=(Chain(token_ids=(question, QUESTIONS + answer), segments=(segment,)),), revision=1,
        )  # fmt: skip
        placed = send(self._log, topics.TRAJECTORIES, key, trajectory)
        made = Reward(
            reward_id=f"r-{session}", trajectory_id=trajectory.trajectory_id, revision=1, session_id=session,
            spec="bench/1", components=(), turns=(TurnReward(trace_id=trace_id, kind=turn.kind, value=reward),),
            value=reward, has_signal=True, guardrails={}, **about(trajectory), at=self.time,
            source=Source(partition=placed.partition, offset=placed.offset),
        )  # fmt: skip
        send(self._log, topics.REWARDS, key, made)

    # -- a month

    def live(self, tick: Callable[[], None]) -> Told:
        """All of it. The trainer turns four times for each batch of sessions."""
        plan = self._plan
        for day in range(plan.days):
            pleased = self._users.pleased(day)
            for session in range(day * plan.sessions_a_day, (day + 1) * plan.sessions_a_day):
                self.time += DAY_S / plan.sessions_a_day
                self._serve(session, pleased)
                self._look(session)
                if session % (plan.batch_turns // 4) == 0:
                    self._trainer.tick()
                tick()
        self._end()
        return self._told

    def _end(self) -> None:
        """How every turn ended, also of what is not decided yet: trained or not."""
        for fate in replay(self._log, topics.FATES, Fate):
            self._told.ends[fate.reason if fate.version is None else "trained"] += len(fate.trace_ids)
        for used in self._trainer.state.used:
            self._told.ends[used.reason or "trained"] += len(used.trace_ids)
        versions = {one.version: one for one in replay(self._log, topics.VERSIONS, Version)}
        self._told.num_versions = len(versions)
        number: int | None = self._stable
        while number in versions:
            self._told.num_in_line += len(versions[number].lineage["trace_ids"])
            number = versions[number].parent
        self._trainer.close()
