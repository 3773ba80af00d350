"""The trainer killed at every moment around what it does to the world, and started again."""

import itertools
import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from lineages import check_ended

from ingest.records.events import Reward, TrialState
from trainer.loop import Trainer
from trainer.state import State

World = Any  # tests/trainer/conftest.py; importlib mode keeps it from being imported

EFFECTS = (
    "ingest.log.memory.InMemoryLog.append",
    "ingest.log.memory.InMemoryLog.flush",
    "ingest.log.memory.InMemorySubscription.commit",
    "ingest.log.memory.InMemorySubscription.seek",
    "ingest.store.versions.VersionStore._put",
    "infra.storage.Folder.write",
    "pathlib.Path.rename",
)
PROMOTED, REJECTED, EXPIRED = TrialState.PROMOTED, TrialState.REJECTED, TrialState.EXPIRED
STORY: tuple[tuple[int, dict[str, int], int, TrialState, int], ...] = (
    (1, {"b": 0, "c": 1}, 8, REJECTED, 0),
    (2, {"d": 2}, 4, PROMOTED, 2),
    (3, {"e": 3}, 4, EXPIRED, 2),
    (4, {"f": 2}, 4, PROMOTED, 4),
    (5, {}, 0, PROMOTED, 5),
)
"""A version on trial, who samples what meanwhile, how many turns the next one then holds, and what is decided."""
HELD = {1: "a", 2: "b", 3: "d", 4: "d", 5: "f"}
"""What each version trains. What 1 and 3 sampled is refused, and 4 takes what 3 took, for nobody judged that."""


class Play:
    """The story, as far as the world has come: it goes on after a kill."""

    def __init__(self, world: World) -> None:
        self.world, self.rewards, self._done = world, list[Reward](), set[object]()
        world.bootstrap()
        self._fill("a", 0)

    def _fill(self, name: str, version: int) -> None:
        if name not in self._done:
            self._done.add(name)
            self.rewards += self.world.fill(name, version=version)

    def go_on(self, trainer: Trainer, fuse: Any = None) -> None:
        """Until nothing is left to happen. What the world does kills nobody."""
        for _ in range(60):
            trainer.tick()
            if 5 in self._done and trainer.state.candidate is None:
                break
            with fuse.paused() if fuse else nullcontext():
                self._act(trainer.state)

    def _act(self, state: State) -> None:
        candidate, num_in_making = state.candidate, state.making.num_turns if state.making else 0
        if candidate is None or not candidate.is_published or candidate.version in self._done:
            return
        number, sampled, num_turns, end, stable = STORY[candidate.version - 1]
        for name, version in sampled.items():
            self._fill(name, version)
        if num_in_making == num_turns:
            self._done.add(number)
            self.world.decide(number, end, stable=stable)


def check(play: Play, moment: str) -> None:
    """Whatever happened: five versions, and what is in them."""
    world = play.world
    assert world.store.versions() == [0, 1, 2, 3, 4, 5], moment
    assert [world.store.read(number).parent for number in (1, 2, 3, 4, 5)] == [0, 0, 2, 2, 4], moment
    for number, name in HELD.items():
        held = {
            token for trace_id in world.store.read(number).lineage["trace_ids"] for token in token_of(play, trace_id)
        }
        assert held == set(world.tokens(name)), f"version {number} {moment}"
    assert {version.version for version in world.published()} == {1, 2, 3, 4, 5}, moment
    found = check_ended(world, play.rewards, moment)
    by_name = {
        play.rewards[n].session_id[0]: found[play.rewards[n].turns[0].trace_id] for n in range(len(play.rewards))
    }
    ends = {name: fate.version or fate.reason for name, fate in by_name.items()}
    refused = "weights of a rejected candidate"
    assert ends == {"a": 1, "b": 2, "c": refused, "d": 4, "e": refused, "f": 5}, moment


def token_of(play: Play, trace_id: str) -> set[int]:
    (reward,) = (one for one in play.rewards if trace_id in one.trace_ids)
    assert reward.trajectory is not None
    return {reward.trajectory.chains[0].token_ids[-1]}


def test_a_kill_at_any_moment_trains_no_turn_twice_and_loses_none(
    make_world: Any, make_fuse: Callable[[int], Any]
) -> None:
    at = next(
        at for at in itertools.count(1, 2) if not killed(make_world(), make_fuse(at))
    )  # after one is before the next
    assert at > 200


def killed(world: Any, fuse: Any) -> bool:
    """Whether the play was killed by the fuse; it went on to its end."""
    play = Play(world)
    trainer = world.start()
    with fuse.around(*EFFECTS):
        play.go_on(trainer, fuse)
    world.kill(trainer)
    trainer = world.start()
    play.go_on(trainer)
    check(play, fuse.name)
    trainer.close()
    return bool(fuse.is_blown)


class Behind:
    """A copy of the learner that is written when somebody waits for it, or looks a second time."""

    def __init__(self, write: Callable[[], None]) -> None:
        self._write, self._num_looks, self._is_written = write, 0, False

    @property
    def is_done(self) -> bool:
        self._num_looks += 1
        if self._num_looks > 1:
            self.wait()
        return self._is_written

    def wait(self) -> None:
        if not self._is_written:
            self._write()
            self._is_written = True


def test_a_kill_while_the_learner_goes_on_before_its_copy_is_written_changes_nothing_either(
    make_world: Any, make_fuse: Callable[[int], Any]
) -> None:
    class Policy(type(make_world().policy)):  # type: ignore[misc]
        def save(self, folder: Path) -> Behind:
            weights, moments = list(self.weights), self.moments
            return Behind(lambda: (folder / "state.json").write_text(json.dumps([weights, moments])))

    def world() -> Any:
        made = make_world()
        made.make_policy = Policy
        return made

    at = next(at for at in itertools.count(1, 11) if not killed(world(), make_fuse(at)))
    assert at > 200


def test_a_second_kill_while_recovering_changes_nothing_either(
    make_world: Any, make_fuse: Callable[[int], Any]
) -> None:
    for at in itertools.count(1):
        play = Play(make_world())
        world = play.world
        trainer = world.start()
        with make_fuse(1).around("trainer.keeping.publish"):
            play.go_on(trainer)
        world.kill(trainer)
        fuse = make_fuse(at)
        with fuse.around(*EFFECTS):
            world.kill(world.start())
        trainer = world.start()
        play.go_on(trainer)
        check(play, fuse.name)
        trainer.close()
        if not fuse.is_blown:
            break
    assert at > 10


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
