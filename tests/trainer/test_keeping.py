from typing import Any

import pytest

from ingest.records.events import TrialState
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
