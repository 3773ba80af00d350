"""That engines serve what the log says: proven one by one, and all at once where it is urgent."""

import threading

import pytest
from rollouts import Hand, World

from infra.config import EngineSlot
from ingest.records.events import ReleaseKind, TrialState
from serving.rollout import disagreement
from serving.rollout.commands import Command, Do
from serving.rollout.disagreement import Disagreement


@pytest.fixture
def watched(world: World) -> World:
    """Version 1 was promoted, on many engines."""
    for n in range(3):
        world.hands[f"s{n}"] = Hand(EngineSlot(id=f"s{n}", arm="stable", port=10 + n, control_port=50 + n))
    world.restarted()
    world.to_canary()
    world.to_promotion()
    return world


def announced(world: World, version: int) -> set[str]:
    found = (one.engines for one in world.released if one.kind is ReleaseKind.ANNOUNCED)
    return {name for engines in found for name, number in engines.items() if number == version}


def test_an_engine_that_does_not_answer_with_its_new_version_is_not_announced_until_it_does(world: World) -> None:
    world.to_canary()
    world.hands["s"].is_dumb = True
    world.to_promotion()
    assert (world.hands["s"].version, "s" in announced(world, 1)) == (1, False)
    loads = list(world.hands["s"].loads)
    world.hands["s"].is_dumb = False
    world.ticks(1)
    assert "s" in announced(world, 1)
    assert world.hands["s"].loads == loads, "it is asked again, not swapped again"


def test_an_engine_that_says_it_serves_something_else_is_swapped_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.to_canary()
    hand = world.hands["s"]

    def load(version: int, epoch: int) -> dict[str, float]:
        took = Hand.load(hand, version, epoch)
        hand.version = 0
        return took

    monkeypatch.setattr(hand, "load", load)
    world.to_promotion()
    assert "s" not in announced(world, 1)
    monkeypatch.undo()
    world.ticks(1)
    assert (hand.version, "s" in announced(world, 1)) == (1, True)


def test_a_rollback_swaps_all_engines_at_the_same_time(watched: World) -> None:
    together = threading.Barrier(4)  # breaks where they are loaded some at a time
    for hand in watched.hands.values():
        hand.together = together
    watched.order(Do.ROLLBACK)
    assert {hand.version for hand in watched.hands.values()} == {0}


def test_an_engine_that_hangs_keeps_no_other_from_a_rollback(watched: World) -> None:
    done = threading.Event()
    answers = Hand.status

    def hang() -> None:
        assert done.wait(10.0), "the others wait for it"
        return

    watched.ticks(1)
    watched.hands["s0"].status = hang  # type: ignore[method-assign,assignment]
    loads = {name: Hand.load.__get__(hand) for name, hand in watched.hands.items()}

    def load(version: int, epoch: int) -> dict[str, float]:
        took = loads["s1"](version, epoch)
        done.set()
        return dict(took)

    watched.hands["s1"].load = load  # type: ignore[method-assign]
    watched.order(Do.ROLLBACK)
    assert watched.hands["s1"].version == 0
    watched.hands["s0"].status = answers.__get__(watched.hands["s0"])  # type: ignore[method-assign]


def test_a_command_is_heard_between_the_parts_of_a_promotion(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(3):
        world.hands[f"s{n}"] = Hand(EngineSlot(id=f"s{n}", arm="stable", port=10 + n, control_port=50 + n))
    world.restarted()
    world.to_canary()
    asked = []

    def load(version: int, epoch: int) -> dict[str, float]:
        if not asked and version == 1:
            asked.append(world.rollout.desk.ask(Command(do=Do.ROLLBACK, author="ann", reason="stop")))
        return Hand.load(world.hands["s"], version, epoch)

    monkeypatch.setattr(world.hands["s"], "load", load)
    world.to_promotion()
    assert world.served.stable == 0
    assert [hand.loads for name, hand in world.hands.items() if name.startswith("s") and name != "s"] == [[], [], []]


def test_a_rollback_does_not_wait_for_a_load_that_takes_long(watched: World) -> None:
    begun, may_end = threading.Event(), threading.Event()
    hand = watched.hands["s0"]

    def load(version: int, epoch: int) -> dict[str, float]:
        begun.set()
        assert may_end.wait(10.0)
        return Hand.load(hand, version, epoch)

    watched.ticks(1)
    hand.load, hand.version = load, 0  # type: ignore[method-assign]
    ticking = threading.Thread(target=watched.rollout.tick)
    ticking.start()
    assert begun.wait(10.0)
    asked = watched.rollout.desk.ask(Command(do=Do.ROLLBACK, author="ann", reason="stop"))
    ticking.join(10.0)
    assert not ticking.is_alive(), "the load keeps the controller"
    hand.version = 1
    taken = threading.Thread(target=watched.rollout.tick)
    taken.start()
    asked.result(timeout=10.0)
    may_end.set()
    taken.join(10.0)
    watched.ticks(2)
    assert {one.version for one in watched.hands.values()} == {0}


def test_every_load_says_whose_it_is(watched: World) -> None:
    assert set(watched.hands["s0"].epochs) == {watched.served.epoch}


def test_who_serves_something_else_than_the_log_says_is_seen(watched: World) -> None:
    watched.ticks(1)
    assert watched.rollout.disagreements == {}
    watched.hands["s0"].refuses.add(1)
    watched.hands["s0"].version = 0
    watched.hands["s1"].is_up = False
    watched.ticks(2)
    found = watched.rollout.disagreements
    assert {name: (one.holds, one.given) for name, one in found.items()} == {"s0": (0, 1), "s1": (None, 1)}
    assert watched.served.state is TrialState.PROMOTED


def test_a_disagreement_lasts_since_it_was_first_seen_and_ends_when_it_is_made_good() -> None:
    first = disagreement.compare({}, {"a": 5, "b": 6}, {"a": 6, "b": 6}, now=10.0)
    assert first == {"a": Disagreement("a", 5, 6, 10.0)}
    later = disagreement.compare(first, {"a": 5, "b": None}, {"a": 6, "b": 6}, now=20.0)
    assert later["a"].since == 10.0
    assert later["a"].told(25.0) == "a has 5, the log gives it 6, since 15 s"
    assert later["b"].told(25.0) == "b does not answer, the log gives it 6, since 5 s"
    other = disagreement.compare(later, {"a": 5, "b": 6}, {"a": 7, "b": 6}, now=30.0)
    assert {name: one.since for name, one in other.items()} == {"a": 30.0}
