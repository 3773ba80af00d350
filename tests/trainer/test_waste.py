"""Nothing wasted: what the learner does while a version is on trial, and what the decision makes of it."""

import random
from typing import Any

import pytest
from lineages import check, check_ended

from ingest.log.memory import InMemorySubscription
from ingest.records.events import Fate, FateKind, Mode, Reward, TrialState
from ingest.store import releases
from trainer.advantages.baselines import Baselines
from trainer.loop import MAX_ITEMS_HELD, SETTLE_S, Trainer
from trainer.phases import Phase

World = Any  # tests/trainer/conftest.py; importlib mode keeps it from being imported


def run(trainer: Trainer, ticks: int = 8) -> None:
    for _ in range(ticks):
        trainer.tick()


def on_trial(world: World, version: int = 1) -> Trainer:
    """Version 1 is on trial, trained on `a`."""
    world.bootstrap()
    world.fill("a")
    trainer: Trainer = world.start()
    run(trainer)
    world.decide(version, TrialState.CANARY)
    return trainer


def test_what_arrives_during_a_trial_trains_the_next_version_from_the_one_on_trial(world: World) -> None:
    trainer = on_trial(world)
    world.fill("b")
    world.fill("c", version=1)
    run(trainer)
    assert sorted(world.policy.weights) == world.tokens("a") + world.tokens("b") + world.tokens("c")
    assert world.store.versions() == [0, 1] and world.fates() == {}
    status = trainer.status
    assert (status["phase"], status["candidate"], status["turns_in_making"]) == (Phase.COLLECTING, 1, 8)


def test_a_promotion_publishes_what_was_made_meanwhile_at_once_as_a_child_of_stable(world: World) -> None:
    trainer = on_trial(world)
    rewards = world.fill("b") + world.fill("c", version=1)
    run(trainer)
    updates = world.policy.moments
    world.decide(1, TrialState.PROMOTED, stable=1)
    run(trainer, 1)
    assert world.store.versions() == [0, 1, 2] and world.store.read(2).parent == 1
    assert world.store.read(2).lineage["num_turns"] == 8 and world.policy.moments == updates
    assert world.store.read(2).metrics["updates"] == 2.0
    world.decide(2, TrialState.PROMOTED, stable=2)
    run(trainer)
    assert {world.fate(reward).version for reward in rewards} == {2}


def test_a_promotion_publishes_what_was_made_meanwhile_though_more_waits_on_the_log(world: World) -> None:
    """Else nothing would be served where users say more than the learner trains."""
    trainer = on_trial(world)
    world.fill("b")
    run(trainer)
    world.fill("c", version=1)
    world.fill("d", version=1)
    world.decide(1, TrialState.PROMOTED, stable=1)
    run(trainer)
    assert world.store.versions() == [0, 1, 2] and sorted(world.weights(2)) == world.tokens("a") + world.tokens("b")
    world.decide(2, TrialState.CANARY, stable=1)
    run(trainer)
    assert trainer.status["turns_in_making"] == 8


def test_what_waits_on_the_log_longer_than_that_keeps_it_has_a_fate(
    make_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version takes no more, its trial does not end, and the inbox holds less than what waits."""
    monkeypatch.setattr("trainer.loop.MAX_ITEMS_HELD", 3)
    world = make_world(max_version_turns=4)
    trainer = on_trial(world)
    world.fill("b")
    run(trainer, 1)
    waiting = [*world.fill("c", sessions=7), world.reward("silent", [None]), *world.fill("d", sessions=7)]
    world.time += 0.8 * world.config.log.retention_s
    run(trainer, 2)
    assert trainer.status["turns_in_making"] == 4 and world.fates() == {}
    world.time += 0.15 * world.config.log.retention_s
    for _ in range(4):
        world.time += SETTLE_S
        run(trainer, 2)
    assert {world.fate(reward).kind for reward in waiting} == {FateKind.EXPIRED, FateKind.REFUSED}
    assert sum(map(len, world.fates().values())) == len(waiting)


def test_a_rejection_gives_no_second_fate_to_turns_that_were_refused_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than fates are remembered, and reading goes back to before them."""
    monkeypatch.setattr("trainer.state.MAX_FATED", 8)
    monkeypatch.setattr("trainer.steps.MAX_WAITING", 2)
    trainer = on_trial(world)
    world.fill("b")
    run(trainer)
    for number in range(12):
        world.reward(f"silent{number}", [None])
        world.time += SETTLE_S
        run(trainer, 2)
    assert len(world.fates()) > 8
    world.decide(1, TrialState.REJECTED)
    for _ in range(6):
        world.time += SETTLE_S
        run(trainer, 3)
    assert {len(fates) for fates in world.fates().values()} == {1}


def test_feedback_that_came_in_time_scores_its_turn_though_the_trainer_reads_it_late(make_world: Any) -> None:
    world = make_world(max_version_turns=4, max_staleness=4)
    trainer = on_trial(world)
    silent = world.reward("silent", [None], token=9000)
    world.fill("b")
    run(trainer, 2)
    world.fill("c")
    run(trainer, 2)  # the version takes no more, and the inbox is full
    world.time += 3600.0
    world.reward("silent", [0.8], token=9000, revision=2)
    world.time += world.config.trainer.late_feedback_s
    run(trainer, 2)
    assert world.fates() == {}
    for version, name in enumerate("defg", 1):
        world.decide(version, TrialState.PROMOTED, stable=version)
        world.fill(name, version=version)
        run(trainer)
    assert world.fate(silent).kind is FateKind.TRAINED


@pytest.mark.parametrize(("least", "expected"), [(4, [0, 1, 2]), (5, [0, 1])])
def test_what_was_made_meanwhile_is_published_once_it_holds_what_a_version_must(
    make_world: Any, least: int, expected: list[int]
) -> None:
    world = make_world(min_version_turns=least)
    world.bootstrap()
    world.fill("a", sessions=8)
    trainer = world.start()
    run(trainer)
    world.decide(1, TrialState.CANARY)
    world.fill("b")
    run(trainer)
    world.decide(1, TrialState.PROMOTED, stable=1)
    run(trainer)
    assert world.store.versions() == expected


def test_a_rejection_takes_again_what_came_meanwhile_except_what_the_rejected_version_sampled(world: World) -> None:
    trainer = on_trial(world)
    stable, own = world.fill("b"), world.fill("c", version=1)
    run(trainer)
    world.decide(1, TrialState.REJECTED)
    run(trainer)
    assert world.store.read(2).parent == 0 and sorted(world.weights(2)) == world.tokens("b")
    world.decide(2, TrialState.PROMOTED, stable=2)
    run(trainer)
    world.time += SETTLE_S
    run(trainer)
    assert {world.fate(reward).version for reward in stable} == {2}
    assert {world.fate(reward).reason for reward in own} == {"weights of a rejected candidate"}


def test_the_turns_of_a_rejected_version_keep_their_fate_and_never_train_again(world: World) -> None:
    world.bootstrap()
    rewards = world.fill("a")
    trainer = world.start()
    run(trainer)
    world.decide(1, TrialState.REJECTED)
    run(trainer)
    world.fill("b")
    run(trainer)
    assert {world.fate(reward).version for reward in rewards} == {1}
    assert sorted(world.weights(2)) == world.tokens("b")


def test_the_turns_of_a_version_that_nobody_judged_are_taken_again(world: World) -> None:
    world.bootstrap()
    rewards = world.fill("a")
    trainer = world.start()
    run(trainer)
    rewards += world.fill("b")
    run(trainer)
    world.decide(1, TrialState.EXPIRED)
    run(trainer)
    assert world.fates() == {} and world.store.read(2).parent == 0
    assert sorted(world.weights(2)) == world.tokens("a") + world.tokens("b")
    world.decide(2, TrialState.PROMOTED, stable=2)
    run(trainer)
    assert {world.fate(reward).version for reward in rewards} == {2}


def test_two_rejections_in_a_row_waste_only_what_was_rejected(world: World) -> None:
    trainer = on_trial(world)
    for version, name in ((1, "b"), (2, "c")):
        world.fill(name)
        run(trainer)
        world.decide(version, TrialState.REJECTED)
        run(trainer)
    assert sorted(world.weights(2)) == world.tokens("b") and sorted(world.weights(3)) == world.tokens("c")


def test_after_a_rollback_what_was_in_the_making_is_taken_again_from_the_older_version(make_world: Any) -> None:
    world = make_world(min_version_turns=100)
    world.bootstrap()
    trainer = world.start()
    kept = world.fill("a")
    run(trainer)
    assert trainer.status["turns_in_making"] == 4 and world.store.versions() == [0]
    world.config = world.config.model_copy(
        update={"trainer": world.config.trainer.model_copy(update={"min_version_turns": 1})}
    )
    world.kill(trainer)
    trainer = world.start()
    run(trainer)
    world.decide(1, TrialState.PROMOTED, stable=1)
    run(trainer)
    stable, own = world.fill("b"), world.fill("c", version=1)
    run(trainer)
    world.decide(2, TrialState.EXPIRED, stable=1)
    world.decide(1, TrialState.ROLLED_BACK, stable=0)
    run(trainer)
    assert world.store.read(3).parent == 0 and sorted(world.weights(3)) == world.tokens("b")
    world.decide(3, TrialState.PROMOTED, stable=3)
    run(trainer)
    world.time += SETTLE_S
    run(trainer)
    assert {world.fate(one).version for one in kept} == {1} and {world.fate(one).version for one in stable} == {3}
    assert {world.fate(one).kind for one in own} == {FateKind.REFUSED}


def test_baselines_and_what_prompts_were_seen_return_with_the_learner(world: World) -> None:
    trainer = on_trial(world)
    before = (trainer.state.fallback.baselines, trainer.state.fallback.seen)
    world.fill("b")
    run(trainer)
    world.release(candidate=1, state=TrialState.REJECTED, mode=Mode.FROZEN)  # or it would begin anew at once
    trainer.tick()
    assert (trainer.state.baselines, trainer.state.seen) == before == (Baselines(), {})


def test_kl_is_measured_to_stable_whatever_the_learner_goes_on_from(world: World) -> None:
    trainer = on_trial(world)
    world.fill("b")
    run(trainer)
    assert world.policy.stable == []
    world.kill(trainer)
    trainer = world.start()
    assert world.policy.stable == [] and len(world.policy.weights) == 16
    world.decide(1, TrialState.PROMOTED, stable=1)
    run(trainer)
    assert sorted(world.policy.stable) == world.tokens("a") and len(world.policy.weights) == 16
    world.kill(trainer)
    world.start()
    assert sorted(world.policy.stable) == world.tokens("a") and len(world.policy.weights) == 16


def test_a_version_that_went_far_from_stable_takes_no_more_and_turns_wait_on_the_log(world: World) -> None:
    trainer = on_trial(world)
    world.policy.stable_kl = 9.0
    world.fill("b")
    run(trainer)
    held = world.fill("c") + world.fill("d")
    for _ in range(40):
        held.append(world.reward(f"x{len(held)}", [0.5]))
        run(trainer, 1)
    assert (trainer.status["phase"], trainer.status["turns_in_making"]) == (Phase.TRIAL, 4)
    assert trainer.status["closed"] == "it is far from stable"
    assert trainer._inbox.num_eligible <= 9 and trainer._inbox.num_unread() == 39
    world.policy.stable_kl = 0.0
    world.decide(1, TrialState.PROMOTED, stable=1)
    run(trainer, 1)
    assert sorted(world.weights(2)) == world.tokens("a") + world.tokens("b")
    run(trainer, 20)
    world.decide(2, TrialState.PROMOTED, stable=2)
    run(trainer, 20)
    assert world.store.read(3).lineage["num_turns"] == len(held) == 48


def test_while_no_step_is_taken_what_nothing_trains_in_is_bounded_in_memory_too(
    make_world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.loop.MAX_ITEMS_HELD", 10)
    assert MAX_ITEMS_HELD > 10
    world = make_world(train_during_trials=False)
    trainer = on_trial(world)
    for number in range(40):
        world.reward(f"x{number}", [0.5], held_out=True)
        run(trainer, 1)
    assert len(trainer._inbox.items) == 10
    world.time += SETTLE_S
    run(trainer)
    assert trainer.state.making.num_traces == 10  # used, and on the log until the decision


def test_few_turns_among_many_that_do_not_train_are_no_reason_to_stop_reading(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.loop.MAX_ITEMS_HELD", 10)
    trainer = on_trial(world)
    world.fill("b", sessions=1)
    for number in range(20):
        world.reward(f"x{number}", [0.5], held_out=True)
        run(trainer, 1)
    world.fill("c", sessions=3)
    run(trainer)
    assert trainer.status["turns_in_making"] == 4


def test_an_alarm_closes_a_version_that_holds_turns_and_wastes_none(world: World) -> None:
    trainer = on_trial(world)
    world.fill("b")
    run(trainer)
    world.policy.metrics = {"ess": 0.1}
    world.fill("c")
    run(trainer)
    assert trainer.status["closed"] == "an alarm undid a step"
    assert sorted(world.policy.weights) == world.tokens("a") + world.tokens("b")
    world.policy.metrics = {}
    world.kill(trainer)
    trainer = world.start()
    world.decide(1, TrialState.PROMOTED, stable=1)
    run(trainer)
    assert sorted(world.weights(2)) == world.tokens("a") + world.tokens("b")
    assert sorted(world.policy.weights) == world.tokens("a") + world.tokens("b") + world.tokens("c")


@pytest.mark.parametrize("is_still_bad", [False, True])
def test_an_alarm_on_the_first_turns_after_the_candidate_lets_them_wait_for_its_decision(
    world: World, is_still_bad: bool
) -> None:
    """The candidate may be what is wrong. On stable it is the turns."""
    trainer = on_trial(world)
    world.policy.metrics = {"ess": 0.1}
    bad = world.fill("b")
    run(trainer)
    assert (trainer.phase, trainer.status["closed"]) == (Phase.TRIAL, "an alarm undid a step")
    if not is_still_bad:
        world.policy.metrics = {}
    world.decide(1, TrialState.REJECTED)
    run(trainer)
    if is_still_bad:
        assert {world.fate(reward).reason for reward in bad} == {"its update was discarded"}
    else:
        assert sorted(world.weights(2)) == world.tokens("b")


def test_turns_that_an_alarm_undid_are_not_what_they_are_compared_with_when_they_come_again(world: World) -> None:
    trainer = on_trial(world)
    usual = trainer.state.health
    world.policy.metrics = {"ess": 0.1}
    world.fill("b")
    run(trainer)
    assert trainer.status["closed"] == "an alarm undid a step" and trainer.state.health == usual
    world.decide(1, TrialState.REJECTED)
    run(trainer)
    assert trainer.state.health != usual, "on stable it is the turns: they are refused, and were usual or not"


def test_a_version_is_as_old_as_the_first_turns_that_it_trained_on(make_world: Any) -> None:
    world = make_world(max_version_age_s=100.0)
    trainer = on_trial(world)
    world.fill("h", held_out=True)
    world.time += SETTLE_S
    run(trainer)
    world.time += 1000.0
    world.fill("b")
    run(trainer)
    assert (trainer.status["turns_in_making"], trainer.status["closed"]) == (4, None)


def test_where_the_learner_has_the_engines_cores_it_waits_and_then_takes_all_that_came(make_world: Any) -> None:
    world = make_world(train_during_trials=False)
    trainer = on_trial(world)
    for name in "bcd":
        world.fill(name)
    run(trainer)
    assert (trainer.phase, world.policy.moments) == (Phase.TRIAL, 1)
    world.decide(1, TrialState.PROMOTED, stable=1)
    run(trainer)
    assert world.store.versions() == [0, 1, 2] and world.store.read(2).lineage["num_turns"] == 12


@pytest.mark.parametrize("num_at_a_time", [2, 500])
def test_a_version_is_not_published_before_it_took_what_is_there(
    make_world: Any, monkeypatch: pytest.MonkeyPatch, num_at_a_time: int
) -> None:
    world = make_world(train_during_trials=False)
    trainer = on_trial(world)
    poll = InMemorySubscription.poll
    monkeypatch.setattr(InMemorySubscription, "poll", lambda one, wait_s, _most: poll(one, wait_s, num_at_a_time))
    for name in "bcd":
        world.fill(name)
    world.decide(1, TrialState.PROMOTED, stable=1)
    run(trainer, 16)
    assert world.store.versions() == [0, 1, 2] and world.store.read(2).lineage["num_turns"] == 12


def test_a_version_waits_until_it_holds_the_turns_that_it_must(make_world: Any) -> None:
    world = make_world(min_version_turns=8)
    world.bootstrap()
    trainer = world.start()
    world.fill("a")
    run(trainer)
    assert world.store.versions() == [0] and trainer.status["turns_in_making"] == 4
    world.fill("b")
    run(trainer)
    assert world.store.read(1).lineage["num_turns"] == 8


def test_a_turn_is_stale_by_when_it_is_consumed(make_world: Any) -> None:
    world = make_world(max_staleness=0)
    trainer = on_trial(world)
    early = world.fill("b")
    run(trainer)
    late = world.fill("c", sessions=3)
    run(trainer)
    world.decide(1, TrialState.PROMOTED, stable=1)
    run(trainer)
    world.fill("d", version=1)
    run(trainer)
    for version in (2, 3):
        world.decide(version, TrialState.PROMOTED, stable=version)
        run(trainer)
    assert {world.fate(reward).version for reward in early} == {2}
    assert {world.fate(reward).reason for reward in late} == {"stale"}


def test_a_revision_that_comes_after_its_turn_was_used_counts_where_the_turn_is_taken_again(world: World) -> None:
    trainer = on_trial(world)
    world.reward("late", [0.0], token=7)
    world.fill("b", sessions=3)
    run(trainer)
    world.reward("late", [0.9], token=7, revision=2)
    run(trainer)
    assert world.policy.weights.count(7) == 2
    world.decide(1, TrialState.REJECTED)
    run(trainer)
    assert world.weights(2).count(7) == 2
    assert world.store.read(2).metrics["mean_reward"] == pytest.approx((0.9 + 0.05 + 0.15 + 0.25) / 4)


def test_a_reward_that_comes_again_during_a_trial_trains_nothing_even_after_a_restart(world: World) -> None:
    trainer = on_trial(world)
    world.fill("b")
    run(trainer)
    world.kill(trainer)
    world.fill("a")
    world.fill("b")
    trainer = world.start()
    run(trainer)
    assert sorted(world.policy.weights) == world.tokens("a") + world.tokens("b")


def test_turns_that_were_there_before_the_first_stable_version_train_as_soon_as_there_is_one(world: World) -> None:
    trainer = world.start()
    world.fill("a", sessions=3)
    run(trainer)
    assert trainer.phase is Phase.WAITING
    world.bootstrap()
    world.reward("last", [0.5])
    run(trainer, 1)
    assert world.store.versions() == [0, 1] and trainer.phase is Phase.COLLECTING


def test_a_version_of_somebody_else_on_trial_is_waited_for(world: World) -> None:
    world.bootstrap()
    world.decide(7, TrialState.CANARY)
    world.fill("a")
    trainer = world.start()
    run(trainer)
    assert (trainer.phase, world.policy.moments) == (Phase.TRIAL, 0)
    world.decide(7, TrialState.REJECTED)
    run(trainer)
    assert world.store.versions() == [0, 1]


class History:
    """A random history: users come, versions are decided and rolled back, feedback is late, the process dies."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.random = world, random.Random(seed)
        self.rewards: list[Reward] = []
        self.lineage = [0]
        world.bootstrap()
        self.trainer: Trainer = world.start()

    @property
    def candidate(self) -> int | None:
        candidate = self.trainer.state.candidate
        return candidate.version if candidate and candidate.is_published else None

    def go(self, num: int) -> None:
        ways = (
            self.talk,
            self.talk,
            self.talk,
            self.revise,
            self.die,
            self.wait,
            self.decide,
            self.decide,
            self.roll_back,
        )
        for _ in range(num):
            self.random.choice(ways)()
            run(self.trainer, self.random.randint(0, 3))

    def talk(self) -> None:
        for _ in range(self.random.randint(1, 5)):
            number = len(self.rewards)
            arms = [self.lineage[-1], *([self.candidate] if self.candidate else [])]
            rewards = [self.random.choice([0.0, 0.5, 1.0, None]) for _ in range(self.random.randint(1, 3))]
            self.rewards.append(
                self.world.reward(
                    f"s{number}",
                    rewards,
                    token=1000 + 10 * number,
                    version=self.random.choice(arms),
                    held_out=self.random.random() < 0.1,
                )
            )

    def revise(self) -> None:
        """Feedback that came late scores every turn."""
        if self.rewards:
            number = self.random.randrange(len(self.rewards))
            before = self.rewards[number]
            assert before.trajectory is not None
            segments = before.trajectory.chains[0].segments
            self.world.reward(
                f"s{number}",
                [self.random.random() for _ in before.turns],
                token=1000 + 10 * number,
                version=segments[0].spans[0].version,
                held_out=before.trajectory.held_out,
                revision=2 + self.random.randint(0, 3),
            )

    def die(self) -> None:
        self.world.kill(self.trainer)
        self.trainer = self.world.start()

    def wait(self) -> None:
        self.world.time += SETTLE_S

    def decide(self, state: TrialState | None = None) -> None:
        candidate = self.candidate
        if candidate is None or releases.read(self.world.log).decision(candidate) != "undecided":
            return
        ends = (TrialState.PROMOTED, TrialState.PROMOTED, TrialState.REJECTED, TrialState.EXPIRED)
        state = state or self.random.choice(ends)
        if state is TrialState.PROMOTED:
            self.lineage.append(candidate)
        self.world.decide(candidate, state, stable=self.lineage[-1])

    def roll_back(self) -> None:
        """An operator ends a trial first."""
        if len(self.lineage) > 1 and self.random.random() < 0.3:
            self.decide(self.random.choice([TrialState.REJECTED, TrialState.EXPIRED]))
            self.world.decide(self.lineage.pop(), TrialState.ROLLED_BACK, stable=self.lineage[-1])

    def end(self) -> None:
        """Everything is promoted until nothing is left in flight."""
        self.world.time += self.world.config.trainer.late_feedback_s
        for number in range(6):
            self.rewards += [
                self.world.reward(
                    f"end{number}{n}", [n / 4], token=100_000 + 100 * number + 10 * n, version=self.lineage[-1]
                )
                for n in range(4)
            ]
            run(self.trainer, 4)
            self.decide(TrialState.PROMOTED)
            self.world.time += SETTLE_S
            run(self.trainer, 4)
        for left_s in (0.0, self.world.config.log.retention_s, SETTLE_S, SETTLE_S):
            self.world.time += left_s
            run(self.trainer, 4)
            self.decide(TrialState.PROMOTED)
            run(self.trainer, 4)


@pytest.mark.parametrize("first", range(0, 30, 10))
def test_whatever_happens_a_trace_has_one_fate_and_trains_once_in_the_lineage_that_stands(
    make_world: Any, first: int
) -> None:
    for seed in range(first, first + 10):
        history = History(make_world(max_staleness=2), seed)
        history.go(40)
        check(history.world, history.rewards, f"seed {seed}")
        history.end()
        found = check_ended(history.world, history.rewards, f"seed {seed}")
        check_reasons(history, found, seed)
        history.trainer.close()


def check_reasons(history: History, found: dict[str, Fate], seed: int) -> None:
    """Nothing that could train was left out for another reason than its weights, its age or its lack of a score."""
    left = [fate for fate in found.values() if fate.kind is FateKind.EXPIRED]
    assert len(left) < 4, seed  # no whole step
    held_out = {n for r in history.rewards if r.trajectory and r.trajectory.held_out for n in r.trace_ids}
    for name, fate in found.items():
        if fate.kind in (FateKind.TRAINED, FateKind.EXPIRED):
            continue
        if name in held_out:
            assert fate.kind is FateKind.HELD_OUT
        else:
            assert fate.reason in {"unscored", "stale", "weights of a rejected candidate"}, (seed, name, fate)
