"""Histories of batches, restarts and alarms: what a turn is worth, and that training goes on."""

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ingest.log import topics
from ingest.log.memory import InMemoryLog
from ingest.log.protocol import TopicSpec
from ingest.records.events import TrialState
from trainer.alarms import AlarmKind
from trainer.learner.batching import Minibatch
from trainer.learner.update import UpdateMetrics

World = Any  # tests/trainer/conftest.py; importlib mode keeps it from being imported


BATCHES = ((1, 1, 1, 1), (2, 1, 1), (2, 2), (1, 3), (4,))
"""How many turns each session of a batch has."""


def told_by(world: World) -> list[dict[int, float]]:
    """For each update from now on, the advantage of each trained token; updates move the policy by turns."""
    told: list[dict[int, float]] = []

    class Policy(type(world.policy)):  # type: ignore[misc]
        def update(self, minibatches: Sequence[Minibatch]) -> UpdateMetrics:
            parts = [part for minibatch in minibatches for part in minibatch]
            told.append(
                {int(t): float(x) for one in parts for t, x in zip(one.targets_N, one.advantages_N, strict=True)}
            )
            self.metrics = {"ess": 1.0 / (1.0 + 0.01 * (1 + len(self.weights) % 7))}
            found: UpdateMetrics = super().update(minibatches)
            return found

    world.make_policy = Policy
    return told


def lived(world: World, seed: int, restarts: bool) -> tuple[list[dict[int, float]], Any]:
    """A history of sessions and decisions: its advantages, and the state at its end. Restarts come after any tick.

    There is one partition, and one batch for each decision: else a restart may change which turns are a batch.
    """
    world.log = InMemoryLog()
    world.log.create([TopicSpec(topic.name, 1, None) for topic in topics.ALL])
    told, drawn, killed = told_by(world), random.Random(seed), random.Random(seed + 1)
    world.bootstrap()
    trainer, stable = world.start(), 0
    for number in range(10):
        for session, num_turns in enumerate(drawn.choice(BATCHES)):
            values = [drawn.random() for _ in range(num_turns)]
            token, tenant = 1000 * number + 100 * session + 10, drawn.choice(["default", "acme"])
            world.reward(f"s{number}-{session}", values, token=token, tenant=tenant, version=stable)
        end = drawn.choice([TrialState.PROMOTED, TrialState.PROMOTED, TrialState.REJECTED])
        for tick in range(20):
            trainer.tick()
            if restarts and tick < 8 and killed.random() < 0.5:
                world.kill(trainer)
                trainer = world.start()
        candidate = trainer.state.candidate
        if candidate is not None:
            stable = candidate.version if end is TrialState.PROMOTED else stable
            world.decide(candidate.version, end, stable=stable)
    for _ in range(20):
        trainer.tick()
    trainer.close()
    return told, trainer.state


@pytest.mark.parametrize("seed", range(6))
def test_restarts_at_any_step_change_no_advantage_and_no_baseline(make_world: Callable[..., World], seed: int) -> None:
    (told, state), (again, state_again) = (lived(make_world(), seed, restarts) for restarts in (False, True))
    assert len(told) > 5 and any(any(batch.values()) for batch in told)
    assert len({node.key for node in state.baselines.nodes}) > 3 and any(node.moved for node in state.baselines.nodes)
    assert again == told
    assert (state_again.baselines, state_again.seen) == (state.baselines, state.seen)


BAD: dict[AlarmKind, dict[str, Any]] = {
    AlarmKind.NOT_FINITE: {"is_skipped": True},
    AlarmKind.MISMATCH: {"kl": 0.3},
    AlarmKind.ESS: {"ess": 0.1},
    AlarmKind.ENTROPY: {"entropy": 0.4},
    AlarmKind.GRADIENT: {"grad_norm": 11.0},
    AlarmKind.REWARD: {},
}
"""What an update says that leaves a bound; a KL shows in later steps alone, and this learner has one."""


@pytest.mark.parametrize("kind", list(BAD))
@pytest.mark.parametrize("on_trial", [False, True])
def test_each_alarm_stops_its_update_says_why_and_training_goes_on(
    make_world: Callable[..., World], caplog: pytest.LogCaptureFixture, kind: AlarmKind, on_trial: bool
) -> None:
    world = make_world(alarms={"min_updates": 2}, min_version_turns=1)
    world.bootstrap()
    trainer, usual, stable = world.start(), {"entropy": 1.0}, 0
    world.policy.metrics = usual

    def go(name: str, rewards: Sequence[float]) -> list[str]:
        made = [world.reward(f"{name}{n}", [value], token=1000 + n, version=stable) for n, value in enumerate(rewards)]
        for _ in range(8):
            trainer.tick()
        return [one.trace_ids[0] for one in made]

    def promote() -> None:
        nonlocal stable
        stable = world.published()[-1].version
        world.decide(stable, TrialState.PROMOTED, stable=stable)
        for _ in range(4):
            trainer.tick()

    plain = (0.4, 0.5, 0.6, 0.5)
    for name in "abc":
        go(name, plain)
        if name != "c" or not on_trial:
            promote()
    before, baselines, num = list(world.policy.weights), trainer.state.baselines, len(world.published())
    assert num == 3
    world.policy.metrics = usual | BAD[kind]
    caplog.clear()
    bad = go("x", (1.0, 1.0, 1.0, 1.0) if kind is AlarmKind.REWARD else plain)
    (said,) = {one.getMessage() for one in caplog.records if "is undone" in one.getMessage()}
    bound = {
        AlarmKind.NOT_FINITE: "max_skipped", AlarmKind.MISMATCH: "max_mismatch", AlarmKind.ESS: "min_ess",
        AlarmKind.ENTROPY: "max_entropy_change", AlarmKind.GRADIENT: "max_gradient_rise",
        AlarmKind.REWARD: "max_reward_jump",
    }[kind]  # fmt: skip
    assert f"trainer.alarms.{bound}" in said
    assert (world.policy.weights, trainer.state.baselines, len(world.published())) == (before, baselines, num)

    world.policy.metrics = usual
    if on_trial:
        assert not world.fates().keys() & set(bad)  # they wait, for the trial may be what is wrong
        promote()
    else:
        assert {fate.reason for name in bad for fate in world.fates()[name]} == {"its update was discarded"}
    if not on_trial or kind is AlarmKind.REWARD:
        go("y", plain)
    for _ in range(8):
        trainer.tick()
    trainer.close()
    assert len(world.published()) == num + 1
