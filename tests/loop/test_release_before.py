"""The four stages started on a log that the release before wrote: nothing is lost, and nothing is done again.

`release_before.jsonl` is that log, written by that release: sessions `fated`, `scored` and `tried` have a reward,
`closed` has a trajectory only, and `open` is still open; the traces of `fated` have their fate.
"""

import json
from collections import Counter
from pathlib import Path

import pytest

from infra.config import Config, GateConfig, IngestConfig, LogConfig, ModelConfig, TrainerConfig
from ingest.audit.account import Limits
from ingest.audit.reading import take
from ingest.log import topics
from ingest.log.memory import InMemoryLog
from ingest.log.protocol import Message, TopicSpec
from ingest.log.reader import Follower, replay
from ingest.log.topics import FATES, REWARDS, TRACES, TRAJECTORIES
from ingest.log.trajectories import trajectory_of
from ingest.records.events import Fate, FateKind, Reward, Trajectory, session_key
from ingest.sessions.assemble import Assembler
from rewards.asking import Background
from rewards.scorers import FeedbackScorer, Services
from rewards.spec import RewardSpec, Scoring
from rewards.stage import Stage
from serving.rollout.evidence import Evidence
from trainer.checkpoint import Checkpoints
from trainer.eligibility import Ineligible, Reason
from trainer.inbox import Inbox

FILE = Path(__file__).with_name("release_before.jsonl")
PARTITIONS = 2


def traces_of(session: str) -> set[str]:
    return {f"{session_key(session)}-{n:032x}" for n in range(2)}


class World:
    """That log, as its groups had committed it, and a folder for what stages keep on disk: nothing yet."""

    def __init__(self, folder: Path) -> None:
        self.log, self.now = InMemoryLog(), 300.0
        self.log.create(TopicSpec(topic.name, 1 if topic.ordered else PARTITIONS, None) for topic in topics.ALL)
        for line in FILE.read_text().splitlines():
            told = json.loads(line)
            part = self.log._shared.partitions[told["topic"]][told["partition"]]
            value = json.dumps(told["value"]).encode()
            part.messages.append(
                Message(told["topic"], told["partition"], part.end, told["key"], value, told["headers"])
            )
        self.config = Config(
            run_dir=str(folder),
            model=ModelConfig(path="unused"),
            log=LogConfig(partitions=PARTITIONS),
            ingest=IngestConfig(inactivity_s=60.0, horizon_s=3600.0, held_out_share=0.0),
            trainer=TrainerConfig(checkpoint_dir=str(folder / "trainer")),
        )

    def ingest(self) -> None:
        stage = Assembler(self.log, self.config, clock=lambda: self.now)
        for _ in range(8):
            self.now += 10.0
            stage.step(0.0)
        stage.close()

    def score(self) -> None:
        spec = RewardSpec.model_validate({"name": "test", "components": [{"name": "thumb", "scorer": "x"}]})
        scoring = Scoring(spec, (FeedbackScorer(),), (), "test@0")
        with Background(Services()) as asking:
            stage = Stage(self.log, self.config, scoring, asking, clock=lambda: self.now)
            stage.step(0.0)
            stage.close()

    def inbox(self) -> Inbox:
        """The trainer's, from the checkpoint that the release before left."""
        folder = Path(self.config.trainer.checkpoint_dir)
        (folder / "states").mkdir(parents=True)
        fates = [
            {"trace_id": name, "kind": "refused", "version": None, "reason": "unscored", "at": 220.0}
            for name in sorted(traces_of("fated"))
        ]
        state = {"step": 3, "base": 0, "baselines": {"main:thumb:default": 0.5}, "fates": fates, "offsets": {}}
        state["fated"] = sorted(traces_of("fated"))
        (folder / "states" / "000007.json").write_text(json.dumps(state))
        (folder / "current").write_text("7\n")
        read = Checkpoints(folder).read()
        assert read is not None and {name for fate in read.fates for name in fate.trace_ids} == traces_of("fated")
        made = Inbox(self.log, read.positions, read.fated)
        made.poll(0.0)
        return made


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_ingest_closes_what_was_open_and_repeats_nothing(world: World) -> None:
    world.ingest()
    made = list(replay(world.log, TRAJECTORIES, Trajectory))
    assert Counter(one.session_id for one in made) == dict.fromkeys(("fated", "scored", "tried", "closed", "open"), 1)
    (opened,) = (one for one in made if one.session_id == "open")
    assert {turn.trace_id for turn in opened.turns} == traces_of("open") and len(opened.feedback) == 1
    (before,) = (one for one in made if one.session_id == "scored")
    assert [chain.token_ids for chain in before.chains] == [chain.token_ids for chain in opened.chains]


def test_rewards_scores_what_had_none_and_repeats_nothing(world: World) -> None:
    world.score()
    made = {one.session_id: one for one in replay(world.log, REWARDS, Reward)}
    assert len(list(world.log.replay(REWARDS.name))) == 4 and set(made) == {"fated", "scored", "tried", "closed"}
    assert made["closed"].value == 1.0 and made["closed"].source is not None
    for one in made.values():
        trajectory = trajectory_of(world.log, one)
        assert trajectory is not None and trajectory.session_id == one.session_id


def test_the_trainer_takes_every_trace_without_a_fate_once(world: World) -> None:
    world.score()
    inbox = world.inbox()
    held = [turn.trace_id for item in inbox.items for turn in item.eligible]
    assert Counter(held) == dict.fromkeys(traces_of("scored") | traces_of("tried") | traces_of("closed"), 1)
    assert all(item.chains for item in inbox.items if item.eligible)
    assert Ineligible(Reason.GONE) not in [turn for item in inbox.items for turn in item.turns.values()]
    inbox.close()


def test_the_rollout_counts_every_session_where_it_belongs(world: World) -> None:
    evidence, follower = Evidence(), Follower(world.log, [REWARDS])
    for record in follower.poll(0.0):
        assert isinstance(record, Reward)
        evidence.add(record)
    assert set(evidence.champion[0]) == {"fated", "scored"}
    assert [unit.session_id for unit in evidence.units_of(1)] == ["tried"]
    assert evidence.baselines(0, GateConfig(min_champion_units=2, guardrails=())) is not None


def test_the_audit_explains_every_trace_of_both_releases(world: World) -> None:
    world.ingest()
    world.score()
    found = take(world.log, Limits.of(world.config), world.now)
    assert found.num_traces == 10 and found.by_fate == {"refused": 2}
    assert (found.unexplained.num, found.conflicts.num) == (0, 0)
    fates = list(replay(world.log, FATES, Fate))
    assert {name for fate in fates for name in fate.trace_ids} == traces_of("fated")
    assert {fate.kind for fate in fates} == {FateKind.REFUSED}
    assert world.log.lag("ingest", [TRACES.name]) == {TRACES.name: 0}
