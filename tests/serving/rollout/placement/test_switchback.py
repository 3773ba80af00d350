"""When a block begins, when engines swap, and when nothing happens."""

from infra.config import EngineSlot
from ingest.records.events import Release, ReleaseKind, TrialState
from ingest.store import releases
from ingest.store.releases import Served
from serving.rollout.placement import switchback
from serving.rollout.placement.blocks import Blocks, toss
from serving.rollout.placement.switchback import Step, Turns

NAMES = ("a", "b")
TURNS = Turns(stable=0, beside=1, share=0.5, salt="salt")
BLOCK_S = 10.0


class Pool:
    """Engines that swap as they are told, unless they are slow; and the log that tells them."""

    def __init__(self) -> None:
        self.served, self.blocks, self.now, self.is_slow = Served(), Blocks(), 1000.0, False
        self.steps: list[tuple[float, Step]] = []
        self.take(Step(dict.fromkeys(NAMES, 0), None))

    def take(self, step: Step) -> None:
        release = Release(
            release=self.served.last + 1, epoch=1, kind=ReleaseKind.BLOCK, stable=0, candidate=1,
            state=TrialState.CANARY, share=0.5, engines=step.engines, block=step.block, reason="a block", at=self.now,
        )  # fmt: skip
        self.served = releases.advance(self.served, release)
        self.blocks.take(self.served, release)

    def tick(self, after_s: float = 1.0) -> Step | None:
        self.now += after_s
        step = switchback.step(
            self.blocks, NAMES, self.served.engines, TURNS, self.now, BLOCK_S, lambda: not self.is_slow
        )
        if step is not None:
            self.steps.append((self.now, step))
            self.take(step)
        return step

    def until(self, begins: bool) -> Step:
        """Tick until a block begins, or until engines swap after one."""
        while True:
            step = self.tick()
            if step is not None and (step.block is not None) is begins and (begins or self.blocks.closed):
                return step


def test_every_block_serves_the_arm_of_its_coin_on_every_engine() -> None:
    pool = Pool()
    for _ in range(300):
        pool.tick()
    begun = [step for _, step in pool.steps if step.block is not None]
    assert [step.block for step in begun] == list(range(len(begun)))
    for step in begun:
        assert step.block is not None
        assert step.engines == dict.fromkeys(NAMES, 1 if toss("salt", step.block) < 0.5 else 0)
    assert len({step.engines["a"] for step in begun}) == 2


def test_a_block_lasts_as_long_as_was_said_whichever_arm_it_has() -> None:
    pool = Pool()
    for _ in range(300):
        pool.tick()
    assert {block.closed_at - block.opened_at for block in pool.blocks.closed} == {BLOCK_S}


def test_no_block_goes_on_while_engines_swap() -> None:
    pool = Pool()
    pool.until(begins=False)
    pool.is_slow = True
    assert (pool.blocks.open, pool.tick(), pool.tick()) == (None, None, None)
    pool.is_slow = False
    step = pool.tick()
    assert step is not None and step.block == pool.blocks.closed[-1].number + 1


def test_a_block_that_goes_on_ends_where_its_engines_stopped_to_hold_its_version() -> None:
    pool = Pool()
    pool.until(begins=True)
    pool.is_slow = True
    ended = pool.tick(BLOCK_S)
    assert ended is not None and ended.block is None


def test_a_clock_that_goes_back_ends_a_block_and_stops_none() -> None:
    pool = Pool()
    pool.until(begins=True)
    assert pool.tick() is None
    assert pool.tick(-3600.0) is not None


def test_an_engine_that_joins_begins_with_the_next_block() -> None:
    pool = Pool()
    pool.until(begins=True)
    more = switchback.step(pool.blocks, ("a", "b", "c"), pool.served.engines, TURNS, pool.now, BLOCK_S, lambda: True)
    assert more is not None and (more.block, more.engines.keys()) == (None, {"a", "b", "c"})


def slot(name: str, arm: str) -> EngineSlot:
    return EngineSlot.model_validate({"id": name, "arm": arm, "port": 1, "control_port": 2})


def test_checks_take_the_engines_meant_for_them_or_the_last_one() -> None:
    a, b, c = slot("a", "stable"), slot("b", "stable"), slot("c", "candidate")
    assert switchback.apart((a, b, c)) == (c,)
    assert switchback.apart((a, b)) == (b,)
    assert switchback.apart((a,)) == (a,)
    assert switchback.apart((c,)) == (c,), "an arm that no other engine has is the whole pool's"
