"""The controller over an in-memory log, with engines that only remember what they were told."""

import threading
from pathlib import Path

import pytest
from rollouts import Hand, World
from told import telling

from infra.config import EngineSlot, GuardrailConfig, RampStep, RolloutConfig
from infra.errors import LogError, NewerError, StoreError, UnreleasedError
from infra.telemetry import metrics
from ingest.log import topics
from ingest.log.memory import InMemoryLog
from ingest.records.events import FEEDBACK_AT, Arm, Assignment, ReleaseKind, TrialState, Version
from ingest.store.versions import VersionStore
from serving.rollout.controller import Rollout
from serving.rollout.evidence import Baseline
from serving.rollout.moves import freeze, thaw
from serving.rollout.writing import FencedError, Writer


def test_a_version_goes_on_trial_only_on_candidate_engines(world: World) -> None:
    world.to_canary()
    assert (world.hands["s"].version, world.hands["c"].version) == (0, 1)
    assert world.served.engines == {"s": 0, "c": 1}
    assert world.served.share == 0.3


def test_no_trial_begins_before_the_champion_is_known(world: World) -> None:
    world.champion(num=9)
    world.publish(1, parent=0)
    world.ticks()
    assert world.served.state is None
    world.champion(num=1)
    world.ticks()
    assert world.served.state is TrialState.CANARY


def test_stable_requests_on_the_candidate_engine_are_finished_before_it_changes_weights(world: World) -> None:
    world.hands["c"].in_flight = 2
    world.champion()
    world.publish(1, parent=0)
    world.ticks(4)
    assert (world.served.state, world.hands["c"].loads) == (TrialState.EVALUATING, [])
    assert world.served.share == 0.0
    world.hands["c"].in_flight = 0
    world.ticks(1)
    assert world.hands["c"].loads == [1]


def test_a_better_candidate_is_promoted_and_swapped_into_every_engine_but_those_held_back(world: World) -> None:
    world.to_canary()
    world.to_promotion()
    assert world.served.promoted == (1,)
    assert (world.hands["s"].version, world.hands["c"].version) == (1, 0)
    last = [r for r in world.released if r.state is TrialState.PROMOTED][-1]
    assert last.numbers["log_e.reward"] >= last.numbers["log_threshold"]
    announced = [r for r in world.released if r.kind is ReleaseKind.ANNOUNCED]
    assert {name for r in announced for name in r.engines} == {"s", "c"}


def test_what_feedback_taught_is_served_once_the_last_engine_serves_it_and_that_is_told_once(world: World) -> None:
    with telling() as told:
        world.restarted()
        world.to_canary({FEEDBACK_AT: world.now - 300.0})
        world.trial_sessions(20, stable=0.5, candidate=0.9)
        world.ticks()
        world.trial_sessions(140, stable=0.5, candidate=0.9)
        world.hands["s"].is_up = False
        world.ticks()
        assert world.served.promoted == (1,) and told.points(metrics.FEEDBACK_TO_SERVING) == {}
        world.hands["s"].is_up, world.now = True, world.now + 100.0
        world.ticks()
        taken = told.value(metrics.FEEDBACK_TO_SERVING)
        assert (taken.count, taken.sum) == (1, 400.0)
        assert told.value(metrics.RELEASES, state="promoted") == 1


def test_of_many_engines_some_are_swapped_at_a_time_and_announced_together(world: World) -> None:
    together = threading.Barrier(2)  # breaks where one is loaded alone
    for n in range(31):
        slot = EngineSlot(id=f"s{n}", arm="stable", port=10 + n, control_port=50 + n)
        world.hands[f"s{n}"] = Hand(slot, together=together)
    world.restarted()
    world.to_canary()
    world.hands["s"].together = together
    world.to_promotion()
    assert {hand.version for name, hand in world.hands.items() if name != "c"} == {1}
    announced = [r for r in world.released if r.kind is ReleaseKind.ANNOUNCED and "c" not in r.engines]
    assert [len(r.engines) for r in announced] == [2] * 16
    assert len({name for r in announced for name in r.engines}) == 32


def test_baselines_come_back_from_a_release_whatever_guardrails_are_called() -> None:
    baselines = {"reward": Baseline(0.5, 0.25), "acme.rate": Baseline(0.25, 0.125)}
    assert thaw(freeze(baselines)) == baselines


def test_an_engine_that_refuses_a_version_keeps_no_other_from_it(world: World) -> None:
    world.to_canary()
    world.hands["s"].refuses.add(1)
    for n in (1, 2):
        world.hands[f"s{n}"] = Hand(EngineSlot(id=f"s{n}", arm="stable", port=9 + n, control_port=70 + n))
    world.restarted()
    world.to_promotion()
    assert [world.hands[name].version for name in ("s", "s1", "s2")] == [0, 1, 1]
    assert all("s" not in r.engines for r in world.released if r.kind is ReleaseKind.ANNOUNCED)


def test_a_worse_candidate_is_rejected_and_its_engine_returns_to_stable(world: World) -> None:
    world.to_canary()
    world.trial_sessions(60, stable=0.5, candidate=0.0)
    world.ticks()
    assert world.served.state is TrialState.REJECTED
    assert world.served.stable == 0
    assert [hand.version for hand in world.hands.values()] == [0, 0]
    assert world.hands["s"].loads == []
    assert "served worse" in [r for r in world.released if r.state is TrialState.REJECTED][-1].reason


def test_a_version_that_does_not_load_is_rejected_with_the_engines_reason(world: World) -> None:
    world.hands["c"].refuses.add(1)
    world.champion()
    world.publish(1, parent=0)
    world.ticks()
    assert world.served.state is TrialState.REJECTED
    assert "holds a NaN" in world.released[-1].reason
    assert world.hands["c"].version == 0


def test_a_trial_without_data_expires_and_nothing_is_promoted(world: World) -> None:
    world.to_canary()
    world.now += 501
    world.ticks()
    assert world.served.state is TrialState.EXPIRED
    assert (world.served.stable, world.served.promoted) == (0, ())


def test_a_restarted_controller_stands_where_the_last_one_stood(world: World) -> None:
    world.to_canary()
    world.trial_sessions(4, stable=0.5, candidate=0.9)
    world.ticks(1)
    before = world.rollout.standing
    world.restarted()
    world.ticks(1)
    assert world.rollout.standing == before
    assert world.served.epoch == 3


def test_the_same_reward_read_twice_counts_once(world: World) -> None:
    world.to_canary()
    world.trial_sessions(4, stable=0.5, candidate=0.9)
    for message in list(world.log.replay(topics.REWARDS.name)):
        world.log.append(message.topic, message.key, message.value, message.headers)
    world.ticks(1)
    assert world.rollout.standing is not None
    assert world.rollout.standing.numbers["units.candidate"] == 2


def test_sessions_that_another_arms_weights_served_do_not_count(world: World) -> None:
    world.to_canary()
    world.session(Assignment(arm=Arm.CANDIDATE, trial=1, propensity=0.3), 0, 1.0)
    world.session(Assignment(arm=Arm.STABLE, trial=1, propensity=0.7), 1, 1.0)
    world.ticks(1)
    assert world.rollout.standing is not None
    numbers = world.rollout.standing.numbers
    assert (numbers["units.candidate"], numbers["units.stable"], numbers["units.excluded"]) == (0, 0, 1)
    assert set(world.rollout.evidence.watches[1].units) == {"session-22"}  # as if it were promoted


def test_the_share_climbs_its_ramp(world: World) -> None:
    world.to_canary()
    world.trial_sessions(6, stable=0.5, candidate=0.5)
    world.ticks()
    assert world.served.share == 0.5
    assert world.served.state is TrialState.CANARY


def test_an_older_controller_stops_when_a_newer_one_claims_the_log(world: World) -> None:
    old = world.rollout
    world.restarted()
    with pytest.raises(FencedError, match="epoch 3 writes releases now"):
        old.tick()


@pytest.mark.parametrize("topic", [topics.RELEASES, topics.VERSIONS, topics.REWARDS], ids=lambda topic: topic.name)
def test_a_controller_that_is_too_old_for_a_record_decides_nothing_more(world: World, topic: topics.Topic) -> None:
    world.to_canary()
    world.log.append(topic.name, "", b"{}", {"schema": f"{topic.record.SCHEMA}/{topic.record.VERSION + 1}"})
    before = list(world.log.replay(topics.RELEASES.name))
    for _ in range(2):
        with pytest.raises(NewerError, match=f"^{topic.name}/.*upgrade the reader; without it nothing here can go on$"):
            world.ticks(5)
    assert list(world.log.replay(topics.RELEASES.name)) == before
    with pytest.raises(NewerError):
        world.restarted().tick()


def test_an_engine_that_came_back_with_old_weights_is_brought_to_what_the_log_says(world: World) -> None:
    world.to_canary()
    world.hands["c"].version = 0
    world.ticks(1)
    assert world.hands["c"].version == 1


def test_a_child_of_a_version_that_is_no_longer_stable_is_never_tried(world: World) -> None:
    world.publish(1, parent=0)
    world.publish(2, parent=1)
    world.champion()
    world.hands["c"].refuses.add(1)
    world.ticks(5)
    assert 2 in world.served.trials
    assert world.served.state is TrialState.EXPIRED
    assert 2 not in world.hands["c"].loads
    assert world.served.engines == {"s": 0, "c": 0}, "a version that is passed over moves no engine"


def test_an_engine_that_the_configuration_gains_serves_and_one_that_it_loses_is_forgotten(world: World) -> None:
    world.hands["s-1"] = Hand(EngineSlot(id="s-1", arm="stable", port=5, control_port=6))
    world.restarted()
    world.ticks(2)
    assert world.served.engines == {"s": 0, "s-1": 0, "c": 0}
    assert world.released[-1].reason == "engines that joined: s-1"
    num = len(world.released)
    world.ticks(3)
    assert len(world.released) == num, "it is said once"
    del world.hands["s-1"]
    world.restarted()
    world.ticks(2)
    assert world.served.engines == {"s": 0, "c": 0}
    assert world.released[-1].reason == "engines that left: s-1"


def test_an_engine_gained_during_a_trial_serves_its_arm_and_the_trial_goes_on(world: World) -> None:
    world.to_canary()
    before = world.served
    world.hands["s-1"] = Hand(EngineSlot(id="s-1", arm="stable", port=5, control_port=6))
    world.hands["c-1"] = Hand(EngineSlot(id="c-1", arm="candidate", port=7, control_port=8))
    world.restarted()
    world.ticks(2)
    now = world.served
    assert now.engines == {"s": 0, "s-1": 0, "c": 1, "c-1": 1}
    assert (now.state, now.share, now.salt) == (before.state, before.share, before.salt)
    assert world.hands["c-1"].version == 1


def test_a_controller_without_a_first_release_says_what_to_do(tmp_path: Path) -> None:
    log = InMemoryLog()
    log.create(topics.specs(1, 60.0))
    rollout = Rollout(log, VersionStore(str(tmp_path)), {}, RolloutConfig(), tmp_path / "evidence.json")
    with pytest.raises(UnreleasedError, match="waits for `onstream bootstrap`"):
        rollout.start()


def test_a_decision_tells_how_few_users_could_have_brought_it_about(world: World) -> None:
    world.to_canary()
    for num in (20, 140):
        world.trial_sessions(num, stable=0.5, candidate=0.9)
        world.ticks()
    last = [r for r in world.released if r.state is TrialState.PROMOTED][-1]
    assert last.numbers["users_needed.promote"] >= 2.0 and "cannot promote it" in last.reason
    assert last.numbers["users"] == 160.0 and last.numbers["tenant_share"] == 1.0


def test_the_ramp_climbs_by_the_sessions_that_count(world: World) -> None:
    ramp = (RampStep(share=0.3, until_units=10), RampStep(share=0.5))
    gate = world.config.gate.model_copy(update={"max_tenant_share": 0.5, "ramp": ramp})
    world.config = world.config.model_copy(update={"gate": gate})
    world.restarted()
    world.to_canary()
    for tenant in "abc":
        world.trial_sessions(1, stable=0.5, candidate=0.5, tenant=tenant)
    world.trial_sessions(50, stable=0.5, candidate=0.5, tenant="a")
    world.ticks()
    assert world.rollout.standing is not None
    # of three tenants the first may have twice as many as the others, and one more: 2 / 3 is twice an equal share
    assert (world.rollout.standing.num_units, world.rollout.standing.numbers["units.capped"]) == (7, 46.0)
    assert world.served.share == 0.3


def ended(world: World) -> str:
    """How the trial of version 1 ended."""
    return next(one.reason for one in world.released if one.candidate == 1 and one.state is TrialState.EXPIRED)


def test_while_nothing_is_scored_nothing_is_promoted_and_the_end_says_so(world: World) -> None:
    world.to_canary()
    world.now += 501
    world.ticks()
    assert "starved: 0 sessions" in ended(world)


def test_a_guardrail_that_no_session_has_lets_nothing_pass_and_the_end_names_it(world: World) -> None:
    rails = (GuardrailConfig(name="polite", margin=0.1),)
    gate = world.config.gate.model_copy(update={"guardrails": rails})
    world.config = world.config.model_copy(update={"gate": gate})
    world.restarted()
    world.to_canary()
    world.to_promotion()
    assert (world.served.state, world.served.promoted) == (TrialState.CANARY, ())
    assert world.rollout.standing is not None and "polite" in world.rollout.standing.reason
    world.now += 501
    world.ticks()
    assert "polite" in ended(world)


def test_a_start_that_fails_leaves_the_evidence_as_it_was_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.to_canary()
    world.trial_sessions(20, stable=0.5, candidate=0.5)
    world.ticks()
    world.rollout.close()
    before = (world.folder / "evidence.json").read_bytes()
    monkeypatch.setattr(Writer, "claim", _away)
    rollout = Rollout(world.log, world.store, world.hands, world.config, world.folder / "evidence.json")  # type: ignore[arg-type]
    with pytest.raises(LogError):
        rollout.start()
    rollout.close()
    assert (world.folder / "evidence.json").read_bytes() == before


def _away(*_: object) -> None:
    raise LogError("event log: no broker answers")


def test_a_store_that_is_away_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.champion()
    world.publish(1, parent=0)
    with monkeypatch.context() as patched:
        patched.setattr(world.store, "read", _unreadable)
        world.ticks(4)
        assert world.served.state is TrialState.EVALUATING
    world.ticks()
    assert world.served.state is TrialState.CANARY


def _unreadable(_version: int) -> Version:
    raise StoreError("the store is away")


def test_a_version_that_no_engine_comes_to_serve_expires(world: World) -> None:
    world.champion()
    world.publish(1, parent=0)
    world.hands["c"].is_up = False
    world.ticks(4)
    assert world.served.state is TrialState.EVALUATING
    world.now += 501
    world.ticks()
    assert world.served.trials == {1: TrialState.EXPIRED}
    assert "did not serve it" in [one for one in world.released if one.state is TrialState.EXPIRED][-1].reason
