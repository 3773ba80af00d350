from typing import Any

import pytest

from ingest.log import topics
from ingest.log.memory import InMemoryLog
from ingest.log.protocol import TopicSpec
from ingest.records.events import Mode, ReleaseKind, TrialState
from ingest.store import releases
from trainer.inbox import Inbox


@pytest.mark.parametrize(("lora", "expected"), [({"rank": 4}, ["load 000000", "restore"]), (None, ["restore"])])
def test_adapters_are_restored_over_the_version_that_they_change_and_whole_weights_over_anything(
    make_world: Any, lora: dict[str, int] | None, expected: list[str]
) -> None:
    """Version 1 is stable by then, and its adapters are changes of version 0."""
    calls = []
    world = make_world(lora=lora)
    world.bootstrap()
    world.fill("a")
    trainer = world.start()
    for _ in range(8):
        trainer.tick()
    world.decide(1, TrialState.PROMOTED, stable=1)
    trainer.tick()
    assert trainer.state.base == 1
    world.kill(trainer)

    class Policy(type(world.policy)):  # type: ignore[misc]
        def load(self, folder: Any) -> None:
            calls.append(f"load {folder.name[:6]}")
            super().load(folder)

        def restore(self, folder: Any) -> None:
            calls.append("restore")
            super().restore(folder)

    world.make_policy = Policy
    world.start()
    assert calls == expected


def test_a_restart_reads_no_release_from_before_the_last_checkpoint(world: Any) -> None:
    world.bootstrap()
    world.fill("a")
    trainer = world.start()
    for _ in range(8):
        trainer.tick()
    world.decide(1, TrialState.PROMOTED, stable=1)
    trainer.tick()
    world.kill(trainer)
    known = trainer.state.known
    world.release(stable=1, mode=Mode.PAUSED)
    world.log.forget(topics.RELEASES.name, 0, known.offset - 1)
    served = world.start()._releases.served
    assert (served.lineage, served.trials, served.mode) == ((0, 1), {1: TrialState.PROMOTED}, Mode.PAUSED)


def test_a_checkpoint_says_nothing_of_a_release_log_that_came_after_it(world: Any) -> None:
    world.bootstrap()
    world.fill("a")
    trainer = world.start()
    for _ in range(8):
        trainer.tick()
    world.kill(trainer)
    assert trainer.state.known is not None
    world.log = InMemoryLog()
    world.log.create([TopicSpec(topic.name, 1 if topic.ordered else 2, None) for topic in topics.ALL])
    world.release(ReleaseKind.BOOTSTRAP, at=7.0)
    again = world.start()
    assert again._releases.served == releases.read(world.log)


def test_once_fates_are_told_the_inbox_remembers_no_more_of_them_than_the_checkpoint(
    make_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    remembered = []
    monkeypatch.setattr("trainer.state.MAX_FATED", 2)
    monkeypatch.setattr(Inbox, "remember", lambda _self, told, done: remembered.append((list(told), done)))
    world = make_world()
    world.bootstrap()
    told = world.fill("a")
    trainer = world.start()
    for _ in range(8):
        trainer.tick()
    world.decide(1, TrialState.PROMOTED, stable=1)
    trainer.tick()
    ((names, done),) = remembered
    assert sorted(names) == sorted(reward.trace_ids[0] for reward in told)
    assert done == trainer.state.fated and len(done) == 2
