import shutil
from typing import Any

import pytest

from infra.errors import LogError
from ingest.log import topics
from ingest.log.memory import InMemoryLog
from ingest.log.protocol import TopicSpec
from ingest.log.reader import replay
from ingest.records.events import Mode, ReleaseKind, TrialState, Version
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


def test_adapters_are_of_the_version_that_was_loaded_whatever_the_store_has_under_its_number_since(
    make_world: Any,
) -> None:
    world = make_world(lora={"rank": 4})
    world.bootstrap()
    first = world.store.read(0)
    trainer = world.start()
    shutil.rmtree(world.folder / "store" / first.folder)
    (world.folder / "base" / "config.json").write_text("{}")
    world.store.publish(0, world.folder / "base", None, {}, {}, 0.0)
    world.fill("a")
    for _ in range(8):
        trainer.tick()
    made = world.store.read(1)
    assert (made.base, made.base_digest) == (0, first.digest)


def test_a_copy_that_a_killed_trainer_had_begun_to_remove_is_made_anew(world: Any) -> None:
    world.bootstrap()
    first = world.store.read(0)
    left = world.store.fetch(first, world.folder / "trainer" / "stable")
    (left / "model.safetensors").unlink()
    assert world.start().state.base == 0


def test_a_version_that_the_release_before_had_stored_whole_and_not_announced_is_announced(
    make_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end(*_: Any) -> None:
        raise LogError("the process ends here")

    world = make_world(lora={"rank": 4})
    world.bootstrap()
    world.fill("a")
    trainer = world.start()
    with monkeypatch.context() as during:
        during.setattr("trainer.keeping.publish", end)
        with pytest.raises(LogError, match="the process ends here"):
            for _ in range(8):
                trainer.tick()
    made, whole = trainer.state.candidate, world.folder / "whole"
    world.kill(trainer)
    assert made is not None and not made.is_published
    trainer._keeper._policy.export(whole)
    lineage = {"trace_ids": list(made.trace_ids)}
    stored = world.store.publish(1, whole, world.store.read(0), lineage, {}, made.at)
    again = world.start()
    assert list(replay(world.log, topics.VERSIONS, Version)) == [stored]
    assert again.state.candidate is not None and again.state.candidate.is_published


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
