"""What held-out sessions were asked, asked again of two versions: through capture, ingest and rewards to a verdict, and
to the one fate of the answers. The stages are the real ones over an in-memory log; the engines sample fixed words.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from answering import TOKEN
from captured import Captured, of_user

from infra.config import CONTROL_TOKEN_VAR, Config
from infra.lifecycle import Stop
from ingest.log import reader, topics
from ingest.log.memory import InMemoryLog
from ingest.records.events import Arm, Fate, FateKind, Release, ReleaseKind, Reward, Trace, Trajectory, Version
from ingest.sessions.assemble import Assembler
from ingest.store.versions import VersionStore
from rewards.asking import Background
from rewards.scorers import Services
from rewards.spec import RewardSpec, build
from rewards.stage import Stage
from serving.rollout.evidence import Standing, Verdict
from serving.rollout.replay import check
from serving.spool import Shipper
from trainer.loop import Trainer

SESSIONS = 8
LONG, SHORT = "an answer of five words", "no"


class Untaught:
    """A learner that must never be asked to learn."""

    def load(self, folder: Path) -> None: ...

    def restore(self, folder: Path) -> None: ...

    def save(self, folder: Path) -> None: ...

    def anchor(self, folder: Path | None) -> None: ...

    def update(self, minibatches: Any) -> Any:
        raise AssertionError("something of a held-out session, or of a replay of it, trains")

    def export(self, folder: Path) -> None: ...


class World:
    """The log and the stages, by hand."""

    def __init__(self, folder: Path, candidate_says: str) -> None:
        self.now, self.log = 10_000_000_000.0, InMemoryLog()
        self.log.create(topics.specs(partitions=2, retention_s=1e9))
        rails = [{"name": "substance", "margin": 0.02}]
        given = {
            "run_dir": str(folder), "model": {"path": str(folder), "name": "small"}, "log": {"partitions": 2},
            "ingest": {"inactivity_s": 4.0, "held_out_share": 0.9999},
            "trainer": {"batch_turns": 2, "minibatch_turns": 2},
            "serving": {
                "rollout": {
                    "gate": {"guardrails": rails},
                    "replay": {"alpha": 0.3, "margin": 0.5, "timeout_s": 20.0, "max_tokens": 8},
                }
            },
        }  # fmt: skip
        self.config = Config.model_validate(given)
        self.stable = Captured(folder, "stable", 0, LONG)
        self.candidate = Captured(folder, "candidate", 1, candidate_says)
        self.store = VersionStore(self.config.store.url)
        base = folder / "base"
        base.mkdir()
        (base / "model.safetensors").write_text("[0]")
        self.store.publish(0, base, None, {}, {}, 0.0)
        first = Release(release=0, epoch=1, kind=ReleaseKind.BOOTSTRAP, stable=0, reason="first", at=0.0)
        reader.send(self.log, topics.RELEASES, "", first)

    async def talk(self) -> None:
        """Users have sessions of two turns, which stable serves."""
        url = f"http://127.0.0.1:{self.stable.slot.port}/v1/chat/completions"
        async with httpx.AsyncClient() as client:
            for number in range(SESSIONS):
                messages = [{"role": "user", "content": f"question {number}"}]
                for _ in range(2):
                    body = {"model": "small", "messages": messages, "max_tokens": 64, "stream": False, "user": "u"}
                    answer = await client.post(url, json=body, headers=of_user(f"s-{number}", f"user-{number}"))
                    said = answer.raise_for_status().json()["choices"][0]["message"]
                    messages += [said, {"role": "user", "content": "and then?"}]

    def flow(self, waits_s: float) -> None:
        """What engines wrote goes through ingest and rewards; `waits_s` pass meanwhile."""
        for engine in (self.stable, self.candidate):
            Shipper(engine.spool, lambda: self.log, Stop()).ship()
        stage = Assembler(self.log, self.config, clock=lambda: self.now)
        stage.poll(0.0)
        self.now += waits_s
        stage.step(0.0)
        stage.close()
        spec = RewardSpec.model_validate(
            {
                "name": "test",
                "components": [{"name": "thumb", "scorer": "feedback"}],
                "guardrails": [{"name": "substance", "scorer": "reply", "params": {"min_words": 2}}],
            }
        )
        with Background(Services()) as asking:
            scores = Stage(self.log, self.config, build(spec), asking, clock=lambda: self.now)
            scores.step(0.0)
            scores.close()

    def rewards(self) -> list[Reward]:
        return list(reader.replay(self.log, topics.REWARDS, Reward))

    def train(self) -> None:
        trainer = Trainer(self.config, self.log, self.store, Untaught(), Stop(), now=lambda: self.now)  # type: ignore[arg-type]
        trainer.recover()
        for _ in range(3):
            trainer.tick()
            self.now += 1e6
        trainer.close()

    async def replay(self) -> Standing:
        """The stage, until it has its verdict."""
        make = check.maker(self.config, self.log)
        assert make is not None
        version = Version(
            version=1, digest="d", parent=0, parent_digest="e", files=(), lineage={}, metrics={}, created_at=0.0
        )
        one = make(version, 0, [self.candidate.slot], [self.stable.slot])
        assert isinstance(one, check.ReplayCheck)
        standing = await asyncio.to_thread(one.wait, 30.0)
        assert standing.verdict is Verdict.HOLD, standing.reason
        self.flow(waits_s=0.0)
        for reward in self.rewards():
            if reward.assignment and reward.assignment.replay_of:
                one.take(reward)
        one.close()
        return one.look()


@pytest.fixture
async def world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> AsyncIterator[World]:
    monkeypatch.setenv(CONTROL_TOKEN_VAR, TOKEN)
    monkeypatch.setattr("os.fsync", lambda _handle: None)
    monkeypatch.setattr("trainer.loop.POLL_S", 0.0)
    made = World(tmp_path, request.param)
    async with made.stable.serving(), made.candidate.serving():
        await made.talk()
        made.flow(waits_s=100.0)
        yield made
    made.stable.spool.close()
    made.candidate.spool.close()


@pytest.mark.parametrize("world", [SHORT], indirect=True)
async def test_a_candidate_that_answers_worse_is_rejected_by_what_scorers_say_of_its_replays(world: World) -> None:
    standing = await world.replay()
    assert standing.verdict is Verdict.REJECT
    assert "substance is worse by 1.000" in standing.reason


@pytest.mark.parametrize("world", [LONG], indirect=True)
async def test_what_only_users_can_score_passes_the_stage_over_and_says_why(world: World) -> None:
    standing = await world.replay()
    assert standing.verdict is Verdict.PASS
    assert "passed over" in standing.reason
    assert "without their users no rewards are scored (thumb: no feedback)" in standing.reason
    assert standing.reason.endswith("candidate less stable over 8 prompts: substance +0.000")
    assert standing.numbers["scored"] == SESSIONS


@pytest.mark.parametrize("world", [LONG], indirect=True)
async def test_a_replay_is_asked_as_the_session_was_and_belongs_to_its_user(world: World) -> None:
    await world.replay()
    traces = {trace.trace_id: trace for trace in reader.replay(world.log, topics.TRACES, Trace)}
    replays = [trace for trace in traces.values() if trace.assignment.replay_of]
    assert len(replays) == 2 * SESSIONS and {trace.session_id[:7] for trace in replays} == {"replay-"}
    for trace in replays:
        original = traces[str(trace.assignment.replay_of)]
        assert (trace.user, trace.tenant, trace.consent) == (original.user, original.tenant, original.consent)
        assert (trace.assignment.trial, trace.assignment.propensity) == (1, 0.5)
        assert trace.request["max_tokens"] == 8 and trace.request["messages"][0]["content"].startswith("question")
    by_arm = {arm: {t.assignment.replay_of for t in replays if t.assignment.arm is arm} for arm in Arm}
    assert by_arm[Arm.CANDIDATE] == by_arm[Arm.STABLE] and len(by_arm[Arm.STABLE]) == SESSIONS
    assert {trace.engine_id for trace in replays if trace.assignment.arm is Arm.CANDIDATE} == {"candidate-0"}


@pytest.mark.parametrize("world", [LONG], indirect=True)
async def test_a_replay_never_trains_and_its_traces_end_as_replays(world: World) -> None:
    await world.replay()
    closed = reader.replay(world.log, topics.TRAJECTORIES, Trajectory)
    replays = [one for one in closed if one.assignment and one.assignment.replay_of]
    assert len(replays) == 2 * SESSIONS and all(one.held_out for one in replays)
    world.train()
    fates: dict[str, list[tuple[FateKind, str]]] = {}
    for fate in reader.replay(world.log, topics.FATES, Fate):
        for trace_id in fate.trace_ids:
            fates.setdefault(trace_id, []).append((fate.kind, fate.reason))
    mine = {turn.trace_id for one in replays for turn in one.turns}
    assert {name: fates[name] for name in mine} == {name: [(FateKind.HELD_OUT, "replay")] for name in mine}
    assert {tuple(ends) for name, ends in fates.items() if name not in mine} == {
        ((FateKind.HELD_OUT, "its session is held out"),)
    }


@pytest.mark.parametrize("world", [LONG], indirect=True)
async def test_a_replay_is_not_replayed_by_the_next_trial(world: World) -> None:
    await world.replay()
    asked = len(world.stable.bodies)
    await world.replay()
    assert len(world.stable.bodies) == asked + SESSIONS
