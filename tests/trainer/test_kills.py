"""The trainer killed at every moment around what it does to the world, and started again."""

import itertools
from collections.abc import Callable
from typing import Any

from ingest.log import topics
from ingest.log.reader import replay
from ingest.records.events import Fate, Release, TrialState
from trainer.loop import Trainer
from trainer.phases import Phase

World = Any  # tests/trainer/conftest.py; importlib mode keeps it from being imported

EFFECTS = (
    "ingest.log.memory.InMemoryLog.append",
    "ingest.log.memory.InMemoryLog.flush",
    "ingest.log.memory.InMemorySubscription.commit",
    "ingest.store.versions.VersionStore._put",
    "trainer.checkpoint.replace_text",
    "pathlib.Path.rename",
)


def drive(world: World, trainer: Trainer) -> None:
    """The first version is rejected, the second promoted, each once; the third is published."""
    for _ in range(12):
        trainer.tick()
        if trainer.phase is not Phase.TRIAL:
            continue
        decided = {release.candidate for release in replay(world.log, topics.RELEASES, Release)}
        candidate = trainer.state.candidate.version
        if candidate == 1 and 1 not in decided:
            world.decide(1, TrialState.REJECTED)
        if candidate == 2 and 2 not in decided:
            world.decide(2, TrialState.PROMOTED, stable=2)


def check(world: World, rewards: list[Any], moment: str) -> None:
    """Whatever happened: three versions, each turn trained once, in the order of the log's partitions."""
    assert world.store.versions() == [0, 1, 2, 3], moment
    trained = [world.store.read(number).lineage["trace_ids"] for number in (1, 2, 3)]
    everything = [trace_id for batch in trained for trace_id in batch]
    assert sorted(everything) == sorted(reward.turns[0].trace_id for reward in rewards), moment
    token_of = {reward.turns[0].trace_id: reward.trajectory.chains[0].token_ids[-1] for reward in rewards}
    expected = [sorted(token_of[trace_id] for trace_id in batch for _ in range(2)) for batch in trained]
    assert sorted(world.weights(1)) == expected[0], moment
    assert sorted(world.weights(2)) == expected[1], moment
    assert sorted(world.weights(3)) == sorted(expected[1] + expected[2]), moment
    assert [world.store.read(number).parent for number in (1, 2, 3)] == [0, 0, 2], moment
    assert {version.version for version in world.published()} == {1, 2, 3}, moment
    fates: dict[str, set[Fate]] = world.fates()
    assert all(len(found) == 1 for found in fates.values()), moment
    outcomes = {trace_id: next(iter(found)).version for trace_id, found in fates.items()}
    assert outcomes == {trace_id: n + 1 for n, batch in enumerate(trained) for trace_id in batch}, moment


def test_a_kill_at_any_moment_trains_no_turn_twice_and_loses_none(
    make_world: Any, make_fuse: Callable[[int], Any]
) -> None:
    for at in itertools.count(1):
        world, fuse = make_world(), make_fuse(at)
        world.bootstrap()
        rewards = [reward for name in "abc" for reward in world.fill(name)]
        trainer = world.start()
        with fuse.around(*EFFECTS):
            drive(world, trainer)
        world.kill(trainer)
        trainer = world.start()
        drive(world, trainer)
        check(world, rewards, fuse.name)
        trainer.close()
        if not fuse.is_blown:
            break
    assert at > 80


def test_a_second_kill_while_recovering_changes_nothing_either(
    make_world: Any, make_fuse: Callable[[int], Any]
) -> None:
    for at in itertools.count(1):
        world = make_world()
        world.bootstrap()
        rewards = [reward for name in "abc" for reward in world.fill(name)]
        trainer = world.start()
        with make_fuse(1).around("trainer.loop.publish"):
            drive(world, trainer)
        world.kill(trainer)
        fuse = make_fuse(at)
        with fuse.around(*EFFECTS):
            world.kill(world.start())
        trainer = world.start()
        drive(world, trainer)
        check(world, rewards, fuse.name)
        trainer.close()
        if not fuse.is_blown:
            break
    assert at > 15


def test_a_kill_between_the_checkpoint_and_publishing_publishes_the_same_number_and_bytes(
    make_world: Any, make_fuse: Callable[[int], Any]
) -> None:
    digests = set()
    for at in (1, 2, 10_000):
        world, fuse = make_world(), make_fuse(at)
        world.bootstrap()
        world.fill("a")
        trainer = world.start()
        with fuse.around("ingest.store.versions.VersionStore.publish"):
            for _ in range(8):
                trainer.tick()
        world.kill(trainer)
        world.start().tick()
        digests.add((world.store.read(1).digest, world.store.read(1).model_dump_json()))
    assert len(digests) == 1
