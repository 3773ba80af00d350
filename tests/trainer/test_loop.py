import shutil
from pathlib import Path
from typing import Any

import pytest

from infra.errors import StoreError, TransitionError
from ingest.log import topics
from ingest.log.memory import InMemorySubscription
from ingest.log.protocol import Message
from ingest.log.reader import replay
from ingest.records import codec
from ingest.records.events import (
    FEEDBACK_AT,
    FEEDBACK_FROM,
    FEEDBACK_TO,
    SESSIONS_FROM,
    SESSIONS_TO,
    ChatMessage,
    Fate,
    FateKind,
    Mode,
    ReleaseKind,
    TrialState,
)
from ingest.sessions.contamination import build
from trainer import phases
from trainer.advantages.baselines import Baselines
from trainer.checkpoint import Checkpoints
from trainer.loop import SETTLE_S, Trainer
from trainer.phases import Phase
from trainer.state import State

World = Any  # tests/trainer/conftest.py; importlib mode keeps it from being imported


def run(trainer: Trainer, ticks: int = 8) -> None:
    for _ in range(ticks):
        trainer.tick()


def test_nothing_is_trained_before_there_is_a_stable_version(world: World) -> None:
    trainer = world.start()
    world.fill("a")
    run(trainer)
    assert trainer.phase is Phase.WAITING and world.store.versions() == [0]
    world.bootstrap()
    run(trainer)
    assert world.store.versions() == [0, 1]


@pytest.mark.parametrize(("weight", "hinted"), [(0.0, []), (1.0, [(1, 1, 1, 5, 1, 1, 1, 5, 5)])])
def test_a_correction_reaches_the_learner_only_where_it_is_to_teach(
    make_world: Any, weight: float, hinted: list[tuple[int, ...]]
) -> None:
    world = make_world(loss={"hint_weight": weight})
    world.bootstrap()
    world.reward("s", [0.1, 0.9], corrected=[0])
    world.reward("t", [0.2, 0.8])
    run(world.start())
    assert len(world.policy.weights) == 8 and world.policy.hinted == hinted


def test_a_batch_trains_every_turn_once_and_publishes_a_child_of_stable(world: World) -> None:
    world.bootstrap()
    rewards = world.fill("a")
    trainer = world.start()
    run(trainer)
    (version,) = world.published()
    assert version == world.store.read(1) and (version.parent, trainer.state.candidate.version) == (0, 1)
    assert version.parent_digest == world.store.read(0).digest
    assert sorted(world.weights(1)) == world.tokens("a")
    assert sorted(version.lineage["trace_ids"]) == sorted(r.turns[0].trace_id for r in rewards)
    assert (version.lineage["spec"], version.lineage["num_turns"]) == ("default/1", 4)
    assert version.metrics["mean_reward"] == pytest.approx(0.15)
    assert {"kl", "grad_norm", "loss", "ess", "clip_fraction", "mismatch_k1", "lr_scale"} <= version.metrics.keys()
    assert (version.metrics["staleness"], version.metrics["staleness_max"]) == (0.0, 0.0)


def test_a_manifest_says_with_which_settings_it_was_learnt_and_not_where(world: World, make_world: Any) -> None:
    made = []
    for one in (world, make_world(), make_world(loss={"kind": "gspo"})):
        one.bootstrap()
        one.fill("a")
        run(one.start())
        (version,) = one.published()
        made.append(version.lineage)
    assert made[0]["settings"]["loss"]["kind"] == "dr_grpo" and made[2]["settings"]["loss"]["kind"] == "gspo"
    assert "checkpoint_dir" not in made[0]["settings"]
    assert made[0]["settings_digest"] == made[1]["settings_digest"] != made[2]["settings_digest"]


def test_what_was_usual_is_known_after_a_restart_also_of_a_step_that_was_undone(world: World) -> None:
    world.bootstrap()
    world.fill("a")
    trainer = world.start()
    world.policy.metrics = {"ess": 0.1, "grad_norm": 3.0}
    run(trainer)
    world.kill(trainer)
    trainer = world.start()
    assert (trainer.state.health.grad_norm.num, trainer.state.health.grad_norm.mean) == (1, 3.0)
    world.fill("b")
    run(trainer)
    assert (trainer.state.health.grad_norm.num, trainer.state.health.grad_norm.mean) == (2, 2.0)


def test_a_manifest_notes_when_its_sessions_began_and_its_feedback_was_given(world: World) -> None:
    world.bootstrap()
    world.fill("a", sessions=2, opened_at=40.0)
    world.fill("b", sessions=1, opened_at=10.0, feedback_at=(70.0, 61.0))
    world.fill("c", sessions=1, opened_at=30.0, feedback_at=(65.0,))
    world.reward("held", [0.5], held_out=True, opened_at=1.0)
    run(world.start())
    (version,) = world.published()
    noted = [version.metrics[name] for name in (SESSIONS_FROM, SESSIONS_TO, FEEDBACK_FROM, FEEDBACK_AT, FEEDBACK_TO)]
    assert noted == [10.0, 40.0, 61.0, 65.0, 70.0]


def test_the_record_is_appended_after_the_manifest_can_be_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.bootstrap()
    world.fill("a")
    append, seen = world.log.append, []

    def spy(topic: str, *rest: Any) -> None:
        if topic == topics.VERSIONS.name:
            seen.append(world.store.read(1).version)
        append(topic, *rest)

    monkeypatch.setattr(world.log, "append", spy)
    run(world.start())
    assert seen == [1]


def test_a_checkpoint_of_before_baselines_were_nodes_is_gone_on_from(world: World) -> None:
    """Worth 8 turns of 0.4, and then the batch's four of 0.15."""
    before = State.model_validate({"baselines": {"main:default": 0.9, "main:value:default": 0.4}})
    Checkpoints(Path(world.config.trainer.checkpoint_dir)).commit(before)
    world.bootstrap()
    world.fill("a")
    trainer = world.start()
    run(trainer)
    means = {node.key: node.mean for node in trainer.state.baselines.nodes}
    kept, new = 8.0 * 0.96**4, 1 + 0.96 + 0.96**2 + 0.96**3
    assert means["value", "main", "default"] == pytest.approx((0.4 * kept + 0.15 * new) / (kept + new))
    assert means["value",] == pytest.approx(0.15) and len(means) == 5


def test_a_version_says_the_mean_of_each_part(world: World) -> None:
    world.bootstrap()
    for n in range(4):
        world.reward(f"s{n}", [n / 10], parts=[{"thumb": (1.0, n / 10), "tone": (0.0, 0.5)}])
    run(world.start())
    metrics = world.store.read(1).metrics
    assert metrics["mean_reward"] == metrics["reward.thumb"] == pytest.approx(0.15)
    assert metrics["reward.tone"] == 0.5


def test_too_few_turns_make_no_version(world: World) -> None:
    world.bootstrap()
    world.fill("a", sessions=3)
    trainer = world.start()
    run(trainer)
    assert trainer.phase is Phase.COLLECTING and world.store.versions() == [0] and world.fates() == {}


def test_no_version_is_published_while_a_trial_runs_and_rewards_are_still_collected(world: World) -> None:
    world.bootstrap()
    world.fill("a")
    trainer = world.start()
    run(trainer)
    world.fill("b")
    world.decide(1, TrialState.CANARY)
    run(trainer)
    assert world.store.versions() == [0, 1]
    world.decide(1, TrialState.PROMOTED, stable=1)
    run(trainer)
    assert world.store.versions() == [0, 1, 2]


def test_nothing_is_published_while_somebody_elses_trial_runs(world: World) -> None:
    world.bootstrap()
    world.decide(7, TrialState.CANARY)
    world.fill("a")
    trainer = world.start()
    run(trainer)
    assert world.store.versions() == [0]
    world.decide(7, TrialState.EXPIRED)
    run(trainer)
    assert world.store.versions() == [0, 1]


def test_nobody_learns_while_everything_is_frozen_and_the_status_says_so(world: World) -> None:
    world.bootstrap()
    world.turn(Mode.FROZEN)
    world.fill("a")
    trainer = world.start()
    run(trainer)
    assert (trainer.phase, world.store.versions(), trainer.status["mode"]) == (Phase.COLLECTING, [0], "frozen")
    world.turn(Mode.OPEN)
    run(trainer)
    assert (world.store.versions(), trainer.status["mode"]) == ([0, 1], "open")


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_version_that_was_made_when_everything_froze_is_published_once_it_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch, is_restarted: bool
) -> None:
    world.bootstrap()
    world.fill("a")
    trainer = world.start()
    update = world.policy.update
    monkeypatch.setattr(world.policy, "update", lambda given: (update(given), world.turn(Mode.FROZEN))[0])
    run(trainer)
    if is_restarted:
        trainer.close()
        trainer = world.start()
        run(trainer)
    assert (world.store.versions(), world.fates()) == ([0], {})
    world.turn(Mode.OPEN)
    run(trainer)
    assert (world.store.versions(), sorted(world.weights(1))) == ([0, 1], world.tokens("a"))


def test_training_goes_on_from_a_promoted_version(world: World) -> None:
    world.bootstrap()
    world.fill("a")
    trainer = world.start()
    run(trainer)
    world.decide(1, TrialState.PROMOTED, stable=1)
    world.fill("b", version=1)
    run(trainer)
    assert world.store.read(2).parent == 1 and world.policy.moments == 2
    assert sorted(world.weights(2)) == world.tokens("a") + world.tokens("b")


@pytest.mark.parametrize("end", [TrialState.REJECTED, TrialState.ROLLED_BACK])
def test_a_rejection_returns_weights_optimiser_and_baselines_to_stable(world: World, end: TrialState) -> None:
    world.bootstrap()
    trainer = world.start()
    world.fill("a")
    run(trainer)
    world.decide(1, TrialState.PROMOTED, stable=1)
    run(trainer)
    stable = (list(world.policy.weights), world.policy.moments, trainer.state.baselines)
    world.fill("b", version=1)
    run(trainer)
    assert world.policy.weights != stable[0] and trainer.state.baselines != stable[2]
    world.decide(2, end, stable=1)
    run(trainer)
    assert (world.policy.weights, world.policy.moments, trainer.state.baselines) == stable
    world.fill("c", version=1)
    run(trainer)
    assert world.store.read(3).parent == 1 and sorted(world.weights(3)) == world.tokens("a") + world.tokens("c")


def test_a_rejection_of_the_first_version_returns_to_the_stores_weights(world: World) -> None:
    world.bootstrap()
    world.fill("a")
    trainer = world.start()
    run(trainer)
    world.decide(1, TrialState.REJECTED)
    run(trainer)
    assert (world.policy.weights, world.policy.moments, trainer.state.baselines) == ([], 0, Baselines())


def test_a_rollback_after_promotion_moves_the_learner_to_the_older_version(world: World) -> None:
    world.bootstrap()
    world.fill("a")
    trainer = world.start()
    run(trainer)
    world.decide(1, TrialState.PROMOTED, stable=1)
    run(trainer)
    world.decide(1, TrialState.ROLLED_BACK, stable=0)
    run(trainer)
    assert trainer.state.base == 0 and world.policy.weights == []


def test_a_release_of_a_fenced_writer_is_no_decision(world: World) -> None:
    world.bootstrap()
    world.fill("a")
    trainer = world.start()
    run(trainer)
    world.release(ReleaseKind.CLAIM, epoch=2)
    world.release(candidate=1, state=TrialState.PROMOTED, stable=1, epoch=1)
    run(trainer)
    assert trainer.state.candidate.version == 1


def test_every_trace_of_a_batch_has_exactly_one_fate_with_its_reason(world: World) -> None:
    world.bootstrap()
    mixed = world.reward("m", [1.0, None, 0.0], turn_changes={2: {"status": 500}})
    held_out = world.reward("h", [1.0], held_out=True)
    rejected = world.reward("r", [1.0], version=9)
    rewards = [mixed, held_out, rejected, *world.fill("a")]
    trainer = world.start()
    run(trainer)
    world.time += SETTLE_S
    run(trainer)
    assert world.fates() == {}  # a trial that expires would give them back
    world.decide(1, TrialState.PROMOTED, stable=1)
    run(trainer)
    world.time += world.config.trainer.late_feedback_s
    run(trainer)
    assert set(world.fates()) == {turn.trace_id for reward in rewards[:6] for turn in reward.turns}
    assert world.fate(mixed, 0).version == 1
    assert [world.fate(mixed, n).reason for n in (1, 2)] == ["unscored", "the request failed"]
    assert world.fate(held_out).kind is FateKind.HELD_OUT
    assert world.fate(rejected).reason == "weights of a rejected candidate"


def test_rewards_in_which_nothing_trains_do_not_wait_for_a_batch(world: World) -> None:
    world.bootstrap()
    reward = world.reward("h", [1.0], held_out=True)
    trainer = world.start()
    run(trainer)
    assert world.fates() == {}
    world.time += SETTLE_S
    run(trainer)
    assert world.fate(reward).kind is FateKind.HELD_OUT


def test_a_turn_of_the_candidate_has_its_fate_once_it_is_decided_and_then_is_trained_or_refused(
    make_world: Any,
) -> None:
    for end, stable, kind in (
        (TrialState.PROMOTED, 1, FateKind.TRAINED),
        (TrialState.REJECTED, 0, FateKind.REFUSED),
    ):
        world = make_world()
        world.bootstrap()
        world.fill("a")
        trainer = world.start()
        run(trainer)
        world.decide(1, TrialState.CANARY)
        reward = world.reward("canary", [1.0], version=1)
        world.fill("b")
        world.time += SETTLE_S
        run(trainer)
        assert reward.turns[0].trace_id not in world.fates()
        world.decide(1, end, stable=stable)
        run(trainer)
        world.time += SETTLE_S
        run(trainer)
        world.decide(2, TrialState.PROMOTED, stable=2)
        run(trainer)
        assert world.fate(reward).kind is kind


def test_a_turn_older_than_the_bound_is_refused_as_stale(make_world: Any) -> None:
    world = make_world(max_staleness=0)
    world.bootstrap()
    world.fill("a")
    trainer = world.start()
    run(trainer)
    old = world.fill("b")
    world.decide(1, TrialState.PROMOTED, stable=1)
    run(trainer)
    world.time += SETTLE_S
    run(trainer)
    assert {world.fate(reward).reason for reward in old} == {"stale"} and world.store.versions() == [0, 1]


def test_an_inbox_full_of_stale_turns_does_not_stop_training(make_world: Any) -> None:
    world = make_world(max_staleness=0)
    world.bootstrap()
    world.fill("a")
    trainer = world.start()
    run(trainer)
    world.decide(1, TrialState.CANARY)
    world.reward("fresh", [0.5], version=1)
    for number in range(40):
        world.reward(f"old{number}", [0.5])
        run(trainer, 1)
    world.decide(1, TrialState.PROMOTED, stable=1)
    world.fill("b", version=1)
    run(trainer, 20)
    assert world.store.versions() == [0, 1, 2]


def test_a_reward_that_comes_again_after_its_batch_trains_nothing(world: World) -> None:
    world.bootstrap()
    world.fill("a")
    trainer = world.start()
    run(trainer)
    world.decide(1, TrialState.PROMOTED, stable=1)
    world.fill("a", version=1)
    run(trainer)
    assert world.store.versions() == [0, 1]
    world.kill(trainer)
    run(world.start())
    assert world.store.versions() == [0, 1]


def test_a_restart_after_a_finished_update_publishes_and_sends_nothing_again(world: World) -> None:
    world.bootstrap()
    world.fill("a")
    trainer = world.start()
    run(trainer)
    world.decide(1, TrialState.PROMOTED, stable=1)
    run(trainer)
    before = (len(world.published()), len(list(world.log.replay(topics.FATES.name))))
    world.kill(trainer)
    run(world.start())
    assert (len(world.published()), len(list(world.log.replay(topics.FATES.name)))) == before == (1, 4)


def test_turns_expire_before_the_log_lets_go_of_their_reward(world: World) -> None:
    world.bootstrap()
    reward = world.reward("s", [1.0])
    trainer = world.start()
    run(trainer)
    world.time += 0.8 * world.config.log.retention_s
    run(trainer)
    assert world.fates() == {}
    world.time += 0.15 * world.config.log.retention_s
    run(trainer)
    assert world.fate(reward).kind is FateKind.EXPIRED


@pytest.mark.parametrize(("num", "trains"), [(3, True), (2, True), (1, False)])
def test_turns_that_have_waited_long_train_though_they_are_fewer_than_a_batch(
    world: World, num: int, trains: bool
) -> None:
    """Where users say little, a batch would take longer to fill than the log keeps them."""
    world.bootstrap()
    world.reward("silent", [None])
    trainer = world.start()
    run(trainer)
    world.time += world.config.trainer.max_batch_age_s
    world.fill("a", sessions=num)
    run(trainer)
    world.time += world.config.trainer.max_batch_age_s - 1.0
    run(trainer)
    assert world.published() == []
    world.time += 1.0
    run(trainer)
    assert len(world.published()) == trains
    if trains:
        assert sorted(world.weights(1)) == world.tokens("a", sessions=num)


def test_an_old_backlog_trains_in_whole_batches(make_world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world = make_world(batch_turns=8, minibatch_turns=2)
    world.bootstrap()
    for name in "abcd":
        world.fill(name)
    world.time += world.config.trainer.max_batch_age_s
    poll = InMemorySubscription.poll
    monkeypatch.setattr(InMemorySubscription, "poll", lambda one, wait_s, _most=0: poll(one, wait_s, 3))
    run(world.start(), 16)
    assert world.policy.moments == 2


def test_an_alarm_stops_the_publish_and_the_learner_goes_back(world: World) -> None:
    world.bootstrap()
    rewards = world.fill("a")
    trainer = world.start()
    world.policy.metrics = {"ess": 0.1}
    run(trainer)
    assert world.store.versions() == [0] and world.published() == []
    assert (world.policy.weights, trainer.state.baselines, trainer.phase) == ([], Baselines(), Phase.COLLECTING)
    assert {world.fate(reward).reason for reward in rewards} == {"its update was discarded"}
    world.policy.metrics = {}
    world.fill("b")
    run(trainer)
    assert sorted(world.weights(1)) == world.tokens("b")


def test_a_number_taken_in_the_store_is_not_used_again(world: World) -> None:
    world.bootstrap()
    folder = world.folder / "other"
    folder.mkdir()
    (folder / "model.safetensors").write_text("[7]")
    world.store.publish(4, folder, None, {}, {}, 0.0)
    world.fill("a")
    run(world.start())
    assert world.store.versions() == [0, 4, 5]


def test_status_shows_how_far_the_batch_is(world: World) -> None:
    world.bootstrap()
    world.fill("a", sessions=3)
    trainer = world.start()
    run(trainer)
    status = trainer.status
    assert (status["phase"], status["turns_collected"], status["turns_needed"]) == ("collecting", 3, 4)
    world.reward("last", [1.0])
    run(trainer)
    status = trainer.status
    assert (status["version"], status["candidate"], status["step"], status["turns_in_making"]) == (0, 1, 1, 0)
    assert status["mean_reward"] == pytest.approx(0.325)


def test_a_phase_the_table_does_not_have_is_refused() -> None:
    with pytest.raises(TransitionError, match="may go on to"):
        phases.step(Phase.UPDATING, Phase.WAITING)


def test_every_phase_can_be_left_and_reached() -> None:
    assert set(phases.ALLOWED) == set(Phase)
    assert all(phases.ALLOWED.values()) and set().union(*phases.ALLOWED.values()) == set(Phase) - {Phase.WAITING}


def test_a_store_that_has_the_number_with_other_content_is_an_error(world: World) -> None:
    world.bootstrap()
    world.fill("a")
    trainer = world.start()
    folder = world.folder / "other"
    folder.mkdir()
    (folder / "model.safetensors").write_text("[7]")
    real = world.policy.export

    def export(into: Path) -> None:
        world.store.publish(1, folder, None, {}, {}, 0.0)
        real(into)

    world.policy.export = export
    with pytest.raises(StoreError, match="version 1 exists"):
        run(trainer)


def test_late_feedback_on_a_turn_that_waits_trains_it_once_on_the_later_reward(world: World) -> None:
    world.bootstrap()
    trainer = world.start()
    late = world.reward("late", [0.0], token=7)
    run(trainer, 2)
    world.reward("late", [0.9], token=7, revision=2)
    world.fill("a", sessions=3)
    run(trainer)
    (version,) = world.published()
    assert sorted(world.weights(1)) == sorted([7, 7, *world.tokens("a", sessions=3)])
    world.decide(1, TrialState.PROMOTED, stable=1)
    run(trainer)
    assert version.metrics["mean_reward"] == pytest.approx((0.9 + 0.0 + 0.1 + 0.2) / 4)
    assert world.fate(late).kind is FateKind.TRAINED


def test_late_feedback_on_a_turn_that_has_trained_trains_nothing_again(world: World) -> None:
    world.bootstrap()
    rewards = world.fill("a")
    trainer = world.start()
    run(trainer)
    world.decide(1, TrialState.PROMOTED, stable=1)
    world.reward("a0", [1.0], token=9700, revision=2)
    world.fill("b", version=1)
    run(trainer)
    assert sorted(world.weights(2)) == world.tokens("a") + world.tokens("b")
    assert world.fate(rewards[0]).version == 1


@pytest.mark.parametrize("is_restarted", [False, True])
def test_late_feedback_trains_nothing_again_however_many_fates_were_told_since(
    world: World, is_restarted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.state.MAX_FATED", 2)
    world.bootstrap()
    rewards = world.fill("a")
    trainer = world.start()
    for number, name in enumerate("bcd", 1):
        run(trainer)
        world.decide(number, TrialState.PROMOTED, stable=number)
        world.fill(name, version=number)
    run(trainer)
    assert len(trainer.state.fated) == 2
    if is_restarted:
        world.kill(trainer)
        trainer = world.start()
    world.reward("a0", [1.0], token=9700, version=3, revision=2)
    world.decide(4, TrialState.PROMOTED, stable=4)
    world.fill("e", version=4)
    run(trainer)
    assert sorted(world.weights(5)) == sorted(token for name in "abcde" for token in world.tokens(name))
    assert world.fate(rewards[0]).version == 1


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_turn_without_a_score_waits_for_late_feedback_though_others_train_meanwhile(
    make_world: Any, is_restarted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other turn of its session has trained, so long ago that nobody remembers it."""
    monkeypatch.setattr("trainer.state.MAX_FATED", 2)
    world = make_world(max_staleness=2)
    world.bootstrap()
    half = world.reward("half", [0.5, None], token=7)
    world.fill("a", sessions=3)
    trainer = world.start()
    run(trainer)
    world.decide(1, TrialState.PROMOTED, stable=1)
    world.fill("b", version=1)
    run(trainer)
    assert world.fate(half, 0).version == 1 and half.trace_ids[1] not in world.fates()
    if is_restarted:
        world.kill(trainer)
        trainer = world.start()
    world.reward("half", [0.5, 0.9], token=7, revision=2)
    world.decide(2, TrialState.PROMOTED, stable=2)
    world.fill("c", sessions=3, version=2)
    run(trainer)
    expected = [7, 7, 8, 8, *world.tokens("a", 3), *world.tokens("b"), *world.tokens("c", 3)]
    assert sorted(world.weights(3)) == sorted(expected)
    world.decide(3, TrialState.PROMOTED, stable=3)
    world.time += world.config.trainer.late_feedback_s
    run(trainer)
    assert world.fate(half, 1).version == 3 and world.fate(half, 0).version == 1


def test_of_the_turns_that_wait_for_a_score_the_oldest_are_refused_where_they_are_too_many(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.steps.MAX_WAITING", 2)
    world.bootstrap()
    trainer = world.start()
    silent = []
    for _ in range(4):
        silent.append(world.reward(f"silent{len(silent)}", [None]))
        world.time += SETTLE_S
        run(trainer, 2)
    world.time += SETTLE_S
    run(trainer, 2)
    assert set(world.fates()) == {silent[0].trace_ids[0], silent[1].trace_ids[0]}
    assert list(trainer.state.waiting) == [reward.trace_ids[0] for reward in silent[2:]]


def test_an_unscored_turn_waits_for_late_feedback_before_it_is_refused(world: World) -> None:
    world.bootstrap()
    trainer = world.start()
    silent, spoken = world.reward("silent", [None]), world.reward("spoken", [None], token=7)
    world.time += SETTLE_S + 1
    run(trainer)
    assert world.fates() == {}
    world.reward("spoken", [1.0], token=7, revision=2)
    world.fill("a", sessions=3)
    world.time += world.config.trainer.late_feedback_s + SETTLE_S
    run(trainer)
    world.decide(1, TrialState.PROMOTED, stable=1)
    run(trainer)
    assert world.fate(silent).reason == "unscored"
    assert world.fate(spoken).kind is FateKind.TRAINED


def test_a_reward_whose_trajectory_the_log_keeps_no_longer_expires(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.bootstrap()
    monkeypatch.setattr(world.log, "fetch", lambda *_: None)
    reward = world.reward("s", [1.0])
    trainer = world.start()
    world.time += SETTLE_S
    run(trainer)
    assert (world.fate(reward).kind, world.fate(reward).reason) == (
        FateKind.EXPIRED,
        "the log keeps its trajectory no longer",
    )


def test_fates_of_one_session_that_are_alike_are_one_record(world: World) -> None:
    world.bootstrap()
    world.reward("s", [0.1, 0.2, 0.3, 0.4])
    trainer = world.start()
    run(trainer)
    world.decide(1, TrialState.PROMOTED, stable=1)
    run(trainer)
    assert [len(fate.trace_ids) for fate in replay(world.log, topics.FATES, Fate)] == [4]


def same_question(n: int) -> dict[int, dict[str, Any]]:
    text = f"Please write a long and friendly letter to customer number {n} about the delay of their order."
    return {0: {"messages": (ChatMessage(role="user", text=text),)}}


def test_a_version_says_what_one_user_could_be_of_it_and_how_often_it_was_asked_alike(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.bootstrap()
    for n in range(3):
        world.reward(f"s{n}", [n / 3], turn_changes=same_question(n))
    world.reward("other", [0.9])
    with caplog.at_level("INFO"):
        run(world.start())
    metrics = world.store.read(1).metrics
    assert (metrics["fair.users"], metrics["fair.user_cap"], metrics["fair.near_duplicates"]) == (4.0, 0.5, 3.0)
    assert metrics["fair.user_share"] <= 0.5 + 1e-9 and metrics["fair.effective_turns"] < 4.0
    assert "one user has at most" in caplog.text and "3 near duplicates are down-weighted" in caplog.text


def test_what_was_asked_in_earlier_batches_is_remembered_across_restarts_and_forgotten_with_a_rejection(
    world: World,
) -> None:
    world.bootstrap()
    for n in range(4):
        world.reward(f"a{n}", [n / 4], turn_changes=same_question(n))
    trainer = world.start()
    run(trainer)
    world.decide(1, TrialState.PROMOTED, stable=1)
    run(trainer)
    world.kill(trainer)
    for n in range(4):
        world.reward(f"b{n}", [n / 4], version=1, turn_changes=same_question(n) if n == 0 else {})
    trainer = world.start()
    run(trainer)
    assert world.store.read(2).metrics["fair.near_duplicates"] == 1.0
    seen = trainer.state.seen
    world.decide(2, TrialState.REJECTED, stable=1)
    run(trainer)
    assert len(seen["default"]) == 5 and len(trainer.state.seen["default"]) == 4


def test_a_held_out_session_never_trains_however_often_it_comes(world: World) -> None:
    """Again in a later batch, after a kill, and read from the beginning by a trainer that lost its checkpoint."""
    world.bootstrap()
    held = world.reward("h", [1.0, 0.0], held_out=True, token=9000)
    world.fill("a")
    trainer = world.start()
    run(trainer)
    world.decide(1, TrialState.PROMOTED, stable=1)
    world.kill(trainer)
    world.reward("h", [1.0, 0.0], held_out=True, version=1, token=9000)
    world.fill("b", version=1)
    trainer = world.start()
    run(trainer)
    world.decide(2, TrialState.PROMOTED, stable=2)
    world.kill(trainer)
    shutil.rmtree(world.config.trainer.checkpoint_dir)
    world.fill("c", version=2)
    trainer = world.start()
    run(trainer)
    assert len(world.published()) == 3
    assert not {9000, 9001} & {token for n in (1, 2, 3) for token in world.weights(n)}
    for turn in (0, 1):
        assert {fate.kind for fate in world.fates()[held.turns[turn].trace_id]} == {FateKind.HELD_OUT}


def test_text_of_an_evaluation_task_never_trains_and_its_fate_names_the_file(world: World) -> None:
    task = "Please write a long and friendly letter to customer number 7 about the delay of their order."
    world.tasks = build([("exam.txt", [task])], overlap=0.5)
    world.bootstrap()
    hit = world.reward("hit", [1.0], token=9000, turn_changes=same_question(7))
    world.fill("a")
    trainer = world.start()
    run(trainer)
    assert sorted(world.weights(1)) == world.tokens("a")
    world.decide(1, TrialState.PROMOTED, stable=1)
    run(trainer)
    assert (world.fate(hit).kind, world.fate(hit).reason) == (FateKind.REFUSED, "contaminated: exam.txt")


def test_a_reward_whose_user_was_erased_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def erased(*_: Any) -> Any:
        return Message("trajectories", 0, 0, "", b"", {codec.ERASED_HEADER: "user-anna"})

    world.bootstrap()
    monkeypatch.setattr(world.log, "fetch", erased)
    reward = world.reward("s", [1.0])
    trainer = world.start()
    world.time += SETTLE_S
    run(trainer)
    assert (world.fate(reward).kind, world.fate(reward).reason) == (FateKind.REFUSED, "erased")


@pytest.mark.parametrize(
    ("trains_altered", "altered", "trains"),
    [
        (False, {"is_altered": True}, False),
        (True, {"is_altered": True}, True),
        (True, {"is_altered": True, "is_reply_altered": True}, False),
    ],
)
def test_a_turn_with_something_redacted_trains_only_where_configured_and_never_on_a_redacted_reply(
    world: World, trains_altered: bool, altered: dict[str, bool], trains: bool
) -> None:
    world.config = world.config.model_copy(
        update={"privacy": world.config.privacy.model_copy(update={"train_altered": trains_altered})}
    )
    world.bootstrap()
    world.fill("a", sessions=3)
    reward = world.reward("s", [1.0], turn_changes={0: altered})
    world.fill("b", sessions=1)
    trainer = world.start()
    run(trainer)
    world.decide(1, TrialState.PROMOTED, stable=1)
    run(trainer)
    kind = FateKind.TRAINED if trains else FateKind.REFUSED
    assert world.fate(reward).kind is kind
    assert trains or world.fate(reward).reason == "something in it was redacted"
