"""One late signal through every stage: it comes when two other sessions were served and two versions promoted since.

The stages are the real ones over an in-memory log. Version 0 serves `first` and `late`; `late` is in the trial of
version 1, as its control. Versions 1 and 2 are promoted and serve `second` and `third` before a user edits what `late`
said in its first turn. However stale, its tokens might train then.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from infra.config import Config
from infra.lifecycle import Stop
from ingest.audit.account import Limits
from ingest.audit.reading import take
from ingest.lake.content import NoSeal, Vault
from ingest.lake.manifest import Table
from ingest.lake.reading import Reading
from ingest.lake.storage import Storage
from ingest.lake.table import Lake
from ingest.lake.writer import Writer
from ingest.log import topics
from ingest.log.memory import InMemoryLog
from ingest.log.reader import replay, send
from ingest.records.events import (
    Arm,
    Assignment,
    Fate,
    FateKind,
    Feedback,
    Release,
    ReleaseKind,
    Reward,
    Trace,
    Trajectory,
    TrialState,
    TurnKind,
    Version,
    VersionSpan,
    session_key,
)
from ingest.sessions.assemble import Assembler
from ingest.store.versions import VersionStore
from rewards.asking import Background
from rewards.scorers import FeedbackScorer, Services
from rewards.spec import RewardSpec, Scoring
from rewards.stage import Stage
from serving.rollout.evidence import Evidence
from trainer.learner.batching import Minibatch
from trainer.learner.update import StepMetrics, UpdateMetrics
from trainer.loop import Trainer

TURNS = 2


@dataclass
class TellingPolicy:
    """A learner whose weights stay as they are; `trained` are the tokens of every update that there ever was."""

    trained: list[int] = field(default_factory=list)

    def load(self, folder: Path) -> None: ...

    def restore(self, folder: Path) -> None: ...

    def save(self, folder: Path) -> None: ...

    def anchor(self, folder: Path | None) -> None: ...

    def update(self, minibatches: Sequence[Minibatch]) -> UpdateMetrics:
        self.trained += [token for batch in minibatches for one in batch for token in one.targets_N.tolist()]
        return UpdateMetrics.of([StepMetrics(False, 0.1, 1.0, 0.01, 1.0, 0.9, 0.1, 10)])

    def export(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_text("[1]")


class World:
    """The log, and a process of each stage, which all live as long as the test."""

    def __init__(self, folder: Path) -> None:
        self.now, self.log, self.policy = 10_000.0, InMemoryLog(), TellingPolicy()
        self.log.create(topics.specs(partitions=2, retention_s=1e9))
        given = {
            "run_dir": str(folder), "model": {"path": str(folder)}, "log": {"partitions": 2, "retention_s": 1e9},
            "ingest": {"inactivity_s": 4.0, "held_out_share": 0.0, "lake": {"flush_s": 1.0}},
            "trainer": {"batch_turns": TURNS, "minibatch_turns": 1, "max_staleness": 4},
        }  # fmt: skip
        self.config = Config.model_validate(given)
        self._numbers: dict[str, int] = {}
        self._releases = 0
        store = VersionStore(self.config.store.url)
        base = folder / "base"
        base.mkdir()
        (base / "model.safetensors").write_text("[0]")
        store.publish(0, base, None, {}, {}, 0.0)
        self._release(kind=ReleaseKind.BOOTSTRAP, stable=0)
        self._lake = Lake(Storage(self.config.ingest.lake.url), self.clock)
        self._assembler = Assembler(self.log, self.config, clock=self.clock)
        self._writer = Writer(self.log, self._lake, Vault(NoSeal()), self.config, self.clock)
        self._trainer = Trainer(self.config, self.log, store, self.policy, Stop(), now=self.clock)
        self._trainer.recover()

    def clock(self) -> float:
        return self.now

    def close(self) -> None:
        for stage in (self._assembler, self._writer, self._trainer):
            stage.close()

    def _release(self, **fields: object) -> None:
        told = {"release": self._releases, "epoch": 1, "reason": "test", "at": self.now, **fields}
        send(self.log, topics.RELEASES, "", Release.model_validate(told))
        self._releases += 1

    def promote(self, version: int) -> None:
        assert [one.version for one in replay(self.log, topics.VERSIONS, Version)][-1] == version
        self._release(kind=ReleaseKind.TRIAL, candidate=version, state=TrialState.PROMOTED, stable=version)
        self.run()

    def serve(self, session: str, version: int, assignment: Assignment, *, is_thumbed: bool = True) -> None:
        """A session of some turns, and a thumb up for each of them."""
        number = self._numbers[session] = len(self._numbers) + 1
        prompt, messages = (1, 2), [{"role": "user", "content": "question 0"}]
        for n, name in enumerate(self.traces(session)):
            reply = self.tokens(session, n)
            trace = Trace(
                trace_id=name, session_id=session, tenant="default", assignment=assignment, engine_id="stable-0",
                kind=TurnKind.MAIN, endpoint="/v1/chat/completions", model="policy",
                request={"messages": list(messages)}, reply_text=f"answer {number} {n}", streamed=False, status=200,
                prompt_token_ids=prompt, token_ids=reply, logprobs=(-0.5, -0.5),
                spans=(VersionSpan(version=version, start=0, end=2),), sampling={}, finish_reason="stop",
                started_at=self.now, finished_at=self.now + 1.0,
            )  # fmt: skip
            send(self.log, topics.TRACES, session_key(session), trace)
            if is_thumbed:
                self.say("thumb", 1.0, session, n)
            prompt = (*prompt, *reply, 3)
            messages += [{"role": "assistant", "content": trace.reply_text}, {"role": "user", "content": f"next {n}"}]
            self.now += 1.0
        self.run()

    def say(self, name: str, value: float, session: str, turn: int) -> None:
        trace = self.traces(session)[turn]
        given = Feedback(
            feedback_id=f"{name}-{trace}", trace_id=trace, tenant="default", name=name, value=value, at=self.now
        )
        send(self.log, topics.FEEDBACK, session_key(session), given)

    @staticmethod
    def traces(session: str) -> list[str]:
        return [f"{session_key(session)}-{n:032x}" for n in range(TURNS)]

    def tokens(self, session: str, turn: int) -> tuple[int, int]:
        """A reply's tokens, which no other reply has."""
        first = 100 * self._numbers[session] + 10 * turn
        return first, first + 1

    def run(self) -> None:
        """Every stage, until what was said has gone through all of them."""
        for _ in range(8):
            self.now += 10.0
            self._assembler.step(0.0)
        self._score()
        for _ in range(6):
            self._trainer.tick()
        while self._writer.read(0.0):
            pass
        self._writer.flush()

    def _score(self) -> None:
        parts = [{"name": name, "scorer": "feedback", "params": {"names": [name]}} for name in ("thumb", "edit")]
        spec = RewardSpec.model_validate({"name": "test", "components": parts})
        scoring = Scoring(spec, (FeedbackScorer(("thumb",)), FeedbackScorer(("edit",))), (), "test@0")
        with Background(Services()) as asking:
            stage = Stage(self.log, self.config, scoring, asking, clock=self.clock)
            stage.step(0.0)
            stage.close()

    # -- what came of it

    def fates(self, trace: str) -> set[tuple[FateKind, int | None]]:
        return {(one.kind, one.version) for one in replay(self.log, topics.FATES, Fate) if trace in one.trace_ids}

    def evidence(self) -> Evidence:
        found = Evidence()
        for reward in replay(self.log, topics.REWARDS, Reward):
            found.add(reward)
        return found

    def in_lake(self, table: Table, session: str) -> list[dict[str, object]]:
        rows = Reading(self._lake, Vault(NoSeal())).rows(table).collect().to_dicts()
        return [row for row in rows if row["session_id"] == session]


STABLE, CONTROL = Assignment(), Assignment(arm=Arm.STABLE, trial=1, propensity=0.5)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr("os.fsync", lambda _handle: None)
    monkeypatch.setattr("trainer.loop.POLL_S", 0.0)
    made = World(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("is_thumbed", "before", "after", "versions"),
    [
        (True, 1.0, (0.625 + 1.0) / 2, [2, 2]),  # (thumb 1 + edit 1/4) / 2, and a thumb alone
        (False, 0.5, 0.25, [4, None]),  # the price of silence; then the edit alone, which is about the first turn
    ],
)
def test_a_signal_two_sessions_and_two_versions_late_trains_once_and_counts_once(
    world: World, is_thumbed: bool, before: float, after: float, versions: list[int | None]
) -> None:
    """A turn that was scored trained at once, and never again; one that was not waits, and trains with the edit."""
    world.serve("first", 0, STABLE)
    world.serve("late", 0, CONTROL, is_thumbed=is_thumbed)
    world.promote(1)
    world.serve("second", 1, STABLE)
    world.promote(2)
    world.serve("third", 2, STABLE)
    assert world.evidence().champion[0]["late"].reward == before
    assert [row["value"] for row in world.in_lake(Table.REWARDS, "late")] == [before]

    world.say("edit", -0.5, "late", 0)
    world.run()
    for version in (3, 4):
        world.promote(version)
        world.serve(f"after {version}", version, STABLE)

    revisions = [one.revision for one in replay(world.log, topics.TRAJECTORIES, Trajectory) if one.session_id == "late"]
    assert revisions == [1, 2]
    fates = [{(FateKind.TRAINED, version)} if version else set() for version in versions]
    assert [world.fates(trace) for trace in world.traces("late")] == fates
    trained = Counter(world.policy.trained)
    assert [trained[world.tokens("late", n)[0]] for n in range(TURNS)] == [
        int(version is not None) for version in versions
    ]
    assert set(trained.values()) == {1}
    evidence = world.evidence()
    assert set(evidence.champion[0]) == {"first", "late"} and evidence.champion[0]["late"].reward == after
    assert [(unit.session_id, unit.reward) for unit in evidence.units_of(1)] == [("late", after)]
    for table in (Table.SESSIONS, Table.REWARDS):
        assert [row["revision"] for row in world.in_lake(table, "late")] == [2]
    assert [row["value"] for row in world.in_lake(Table.REWARDS, "late")] == [after]
    audit = take(world.log, Limits.of(world.config), world.now)
    assert (audit.unexplained.num, audit.conflicts.num, audit.feedback.unexplained.num) == (0, 0, 0)
