"""With `trainer.lora`, from the first version to a return to an older one: a real learner, store and checkpoints."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import killed
import pytest
import torch

from infra.config import Config
from infra.errors import StoreOutageError
from infra.lifecycle import Stop
from ingest.records.events import ReleaseKind, Version
from ingest.store.versions import MANIFEST, VersionStore
from trainer.loop import Trainer


class World:
    """A story of trials (`killed`) whose process may end and begin again."""

    def __init__(self, folder: Path, reward_of: Callable[..., Any]) -> None:
        folder.mkdir()
        killed.set_up(folder, reward_of)
        self.folder, self.log = folder, killed.DiskLog(folder / "log")
        self.store = VersionStore(str(folder / "store"))
        self.config: Config = killed.config_of(folder, 1, lora={"rank": 2}, lr=1e-3, alarms={"max_mismatch": None})

    def start(self) -> Trainer:
        from trainer.learner.learner import Learner

        self.learner = Learner(self.folder / "base", self.config.trainer)
        return Trainer(self.config, self.log, self.store, self.learner, Stop(), now=lambda: 1000.0)

    def play(self) -> None:
        trainer = self.start()
        try:
            killed.play(self.log, trainer)
        finally:
            trainer.close()
            self.log.restart()

    def versions(self) -> list[Version]:
        return [self.store.read(number) for number in self.store.versions()]


@pytest.fixture
def world(tmp_path: Path, reward_of: Callable[..., Any]) -> World:
    return World(tmp_path / "world", reward_of)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([[1, 2, 3, 4]])).logits


def test_each_version_is_a_change_of_the_one_that_the_learner_loaded_whoever_its_parent_is(world: World) -> None:
    world.play()
    first, *rest = world.versions()
    assert first.base is None
    assert [(one.parent, one.base) for one in rest] == [(0, 0), (0, 0), (2, 0), (2, 0)]
    whole, change = (sum(file.bytes for file in one.files) for one in (first, rest[-1]))
    assert change < whole / 2


def test_a_learner_that_begins_from_a_version_of_adapters_has_the_weights_of_who_made_it(world: World) -> None:
    import transformers

    world.play()
    copy = world.store.fetch(world.versions()[-1], world.folder / "copies")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(copy, dtype=torch.float32)
    base = transformers.AutoModelForCausalLM.from_pretrained(world.folder / "base", dtype=torch.float32)
    moved = float((logits(base) - logits(world.learner.model)).abs().max())
    assert float((logits(loaded) - logits(world.learner.model)).abs().max()) < moved / 20


@pytest.mark.parametrize("file", ["adapter_model.safetensors", MANIFEST])
def test_a_trainer_that_ends_before_a_file_of_a_version_is_there_makes_the_same_version(
    world: World, reward_of: Callable[..., Any], file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = World(tmp_path / "other", reward_of)
    other.play()
    left, fs = [2, 3], world.store._fs
    own = {"put_file": fs.put_file, "mv": fs.mv}

    def ends(name: str) -> Callable[..., Any]:
        def call(source: str, target: str, **how: Any) -> Any:
            if left and Path(target).name == file and f"/{left[0]:06d}-" in target:
                left.pop(0)
                raise OSError("the process ends here")
            return own[name](source, target, **how)

        return call

    for name in own:
        monkeypatch.setattr(fs, name, ends(name))
    while left:
        with pytest.raises(StoreOutageError, match="the process ends here"):
            world.play()
    world.play()
    assert [(one.digest, one.base) for one in world.versions()] == [(one.digest, one.base) for one in other.versions()]


def test_after_a_return_to_a_version_of_adapters_the_next_ones_are_changes_of_that(
    world: World, reward_of: Callable[..., Any]
) -> None:
    world.play()
    newest = world.versions()[-1].version
    killed.release(world.log, kind=ReleaseKind.OPERATOR, stable=2)
    copy = world.store.fetch(world.store.read(2), world.folder / "copies")
    killed.say_more(world.log, "more", 8, copy, reward_of)
    world.play()
    found = world.versions()[newest + 1 :]
    assert [(one.parent, one.base) for one in found[:1]] == [(2, 2)]
    assert {one.base for one in found} == {2}
