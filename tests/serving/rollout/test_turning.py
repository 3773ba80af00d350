"""A controller whose arms take turns on the same engines, with users whose sessions take some seconds."""

from itertools import pairwise
from pathlib import Path

import httpx
import pytest
from street import BLOCK_S, Street

from infra.config import GuardrailConfig, Placement
from ingest.records.events import Arm, Mode, ReleaseKind, TrialState
from serving.rollout.commands import Do
from serving.rollout.operators.books import tell
from serving.rollout.operators.history import Filters, history


@pytest.mark.parametrize("num_engines", [1, 3])
def test_a_better_version_is_promoted_on_the_blocks_of_one_pool(tmp_path: Path, num_engines: int) -> None:
    street = Street(tmp_path, num_engines)
    street.to_trial()
    street.live(3000, street.is_over)
    assert street.state is TrialState.PROMOTED, street.rollout.standing
    assert {hand.version for hand in street.hands.values()} == {1}
    promoted = next(release for release in street.released if release.state is TrialState.PROMOTED)
    assert "blocks" in promoted.reason
    assert promoted.numbers["whole.candidate"] > 0.5 and promoted.numbers["log_e.whole"] > 0.0
    assert promoted.numbers["units.candidate"] + promoted.numbers["units.stable"] < promoted.numbers["sessions"] / 5


def test_blocks_are_three_times_as_long_as_the_sessions_of_stable_before_the_trial(tmp_path: Path) -> None:
    street = Street(tmp_path)
    street.lengths |= {0: 12.0, 1: 12.0}
    street.to_trial()
    began = next(release for release in street.released if release.state is TrialState.CANARY)
    assert began.numbers["block_s"] > 2 * BLOCK_S and f"blocks of {began.numbers['block_s']:.0f} s" in began.reason
    street.live(400, street.is_over)
    starts = [release.at for release in street.released if release.block is not None]
    assert len(starts) > 5 and all(next_at - at >= began.numbers["block_s"] for at, next_at in pairwise(starts))
    street.live(6000, street.is_over)
    promoted = next(release for release in street.released if release.state is TrialState.PROMOTED)
    assert promoted.numbers["whole.stable"] > 0.5
    assert promoted.numbers["block_s"] == began.numbers["block_s"], "its watch goes on in blocks of that length"


def test_blocks_are_never_shorter_than_is_configured(tmp_path: Path) -> None:
    street = Street(tmp_path)
    street.to_trial()
    began = next(release for release in street.released if release.state is TrialState.CANARY)
    assert began.numbers["block_s"] == BLOCK_S


def test_a_worse_version_is_rejected_and_stable_serves_at_once(tmp_path: Path) -> None:
    street = Street(tmp_path)
    street.rates[1] = 0.05
    street.to_trial()
    street.live(3000, street.is_over)
    assert street.state is TrialState.REJECTED
    assert "users are served worse" in street.released[-2].reason + street.released[-1].reason
    assert street.hands["e0"].version == 0


def test_a_better_version_whose_sessions_outlast_their_blocks_more_often_is_not_promoted(tmp_path: Path) -> None:
    street = Street(tmp_path, max_units=200)
    street.lengths[1] = 12.0
    street.to_trial()
    street.live(6000, street.is_over)
    assert street.state is TrialState.REJECTED
    (rejected,) = [release for release in street.released if release.state is TrialState.REJECTED]
    assert "whole is hurt" in rejected.reason


def test_every_engine_serves_the_arm_of_the_block_for_as_long_as_it_goes_on(tmp_path: Path) -> None:
    street = Street(tmp_path, num_engines=3)
    street.to_trial()
    seen = set()
    for _ in range(300):
        street.live(1, street.is_over)
        served = street.rollout.served
        if served.block is not None and served.turn is not None:
            seen.add(served.turn)
            assert {hand.version for hand in street.hands.values()} == set(served.engines.values())
    assert seen == {Arm.STABLE, Arm.CANDIDATE}


def test_checks_before_users_have_an_engine_of_the_pool_and_users_the_others(tmp_path: Path) -> None:
    street = Street(tmp_path, num_engines=2)
    street.hands["e1"].in_flight = 1
    street.live(120)
    street.publish(1, parent=0)
    street.live(5, lambda: street.state is TrialState.EVALUATING)
    assert street.rollout.served.engines == {"e0": 0, "e1": 1}
    assert street.hands["e1"].version == 0, "it is drained first"
    street.hands["e1"].in_flight = 0
    street.live(5, lambda: street.state is TrialState.CANARY)
    assert (street.state, street.hands["e0"].loads) == (
        TrialState.CANARY,
        [],
    ) or street.rollout.served.block is not None


def test_one_engine_says_that_users_are_the_first_to_meet_a_candidate(tmp_path: Path) -> None:
    street = Street(tmp_path)
    street.hands["e0"].in_flight = 5  # its users never go away
    street.to_trial()
    began = next(release for release in street.released if release.state is TrialState.CANARY)
    assert "users are the first to meet it" in began.reason and "of blocks" in began.reason


def test_a_version_that_cannot_be_loaded_in_its_block_is_rejected(tmp_path: Path) -> None:
    street = Street(tmp_path)
    street.to_trial()
    street.hands["e0"].refuses.add(1)
    street.live(200, street.is_over)
    assert street.state is TrialState.REJECTED
    assert any("could not be served in its block" in release.reason for release in street.released)


def test_a_controller_that_starts_in_the_middle_of_a_block_goes_on_with_it(tmp_path: Path) -> None:
    street = Street(tmp_path)
    street.to_trial()
    street.live(100, lambda: street.rollout.served.block == 2)
    street.live(3)
    before = street.rollout.served.block
    street.restarted()
    assert street.rollout.served.block == before
    street.rollout.tick()
    assert street.rollout.served.block == before
    street.live(3000, street.is_over)
    assert street.state is TrialState.PROMOTED


def test_a_version_that_turns_bad_is_taken_back_on_blocks_of_the_version_before(tmp_path: Path) -> None:
    street = Street(tmp_path)
    street.to_trial()
    street.live(3000, street.is_over)
    assert (street.state, street.rollout.served.holdback) == (TrialState.PROMOTED, 0)
    street.rates[1] = 0.05
    street.live(9000, lambda: street.state is TrialState.ROLLED_BACK)
    assert street.state is TrialState.ROLLED_BACK, street.rollout.standing
    assert (street.rollout.served.stable, street.hands["e0"].version) == (0, 0)


def test_a_freeze_in_a_candidates_block_gives_everyone_stable(tmp_path: Path) -> None:
    street = Street(tmp_path)
    street.to_trial()
    street.live(300, lambda: street.rollout.served.turn is Arm.CANDIDATE)
    street.order(Do.FREEZE)
    street.live(40)
    assert street.rollout.served.mode is Mode.FROZEN and street.state is TrialState.CANARY
    assert (street.rollout.served.block, street.hands["e0"].version) == (None, 0)
    street.order(Do.RESUME)
    street.live(3000, street.is_over)
    assert street.state is TrialState.PROMOTED


def test_blocks_go_on_while_a_trial_is_paused_or_waits_for_approval(tmp_path: Path) -> None:
    street = Street(tmp_path)
    street.config = street.config.model_copy(update={"approval": True})
    street.restarted()
    street.to_trial()
    street.live(1500)
    before = street.rollout.served.block
    assert street.rollout.standing is not None and street.rollout.standing.verdict == "pass"
    street.order(Do.PAUSE)
    street.live(50)
    assert street.rollout.served.block is not None and before is not None and street.rollout.served.block > before


def test_a_day_of_blocks_costs_the_release_log_a_few_megabytes(tmp_path: Path) -> None:
    street = Street(tmp_path)
    street.rates = {0: 0.5, 1: 0.5}
    street.to_trial()
    street.live(300)
    blocks = [release for release in street.released if release.kind in (ReleaseKind.BLOCK, ReleaseKind.ANNOUNCED)]
    total = sum(len(release.model_dump_json()) for release in blocks)
    num = sum(release.block is not None for release in blocks)
    assert num >= 20 and total / num < 1500


def test_the_story_of_a_trial_in_blocks_is_told_by_the_evidence_it_was_decided_on(tmp_path: Path) -> None:
    street = Street(tmp_path)
    street.to_trial()
    street.live(3000, street.is_over)
    promoted = next(release for release in street.released if release.state is TrialState.PROMOTED)
    told = tell(street.log, 1, None, street.released, street.config, street.now)
    seen = [point for point in told.points if not point.is_watch and point.at <= promoted.at]
    assert seen[-1].log_e == pytest.approx(promoted.numbers["log_e.reward"], abs=0.5)
    assert seen[-1].num_units == promoted.numbers["units.candidate"] + promoted.numbers["units.stable"]
    assert [stage.state for stage in told.stages] == [TrialState.EVALUATING, TrialState.CANARY, TrialState.PROMOTED]
    assert all(len(stage.steps) < 5 for stage in told.stages), "blocks are no steps"


def test_history_tells_of_blocks_only_when_it_is_asked_for_everything(tmp_path: Path) -> None:
    street = Street(tmp_path)
    street.to_trial()
    street.live(60)
    told = {is_all: history(street.released, Filters(is_all=is_all, limit=500)) for is_all in (False, True)}
    assert not [entry for entry in told[False].entries if entry.release.kind is ReleaseKind.BLOCK]
    whats = [entry.what for entry in told[True].entries if entry.release.kind is ReleaseKind.BLOCK]
    assert "block 0 begins" in whats and "engines swap" in whats


PLACEMENTS = [(Placement.SPLIT, 2), (Placement.SWITCHBACK, 1), (Placement.SWITCHBACK, 2)]


@pytest.mark.parametrize(("placement", "num_engines"), PLACEMENTS)
@pytest.mark.parametrize(
    ("reward", "polite", "ends", "told"),
    [
        (0.9, 0.9, TrialState.PROMOTED, "is promoted"),
        (0.4, 0.9, TrialState.EXPIRED, " within 60 s"),
        (0.05, 0.9, TrialState.REJECTED, "users are served worse"),
        (0.9, 0.3, TrialState.REJECTED, "guardrail polite is hurt"),
    ],
    ids=["better", "no better, and no time", "worse", "better, and rude"],
)
def test_a_version_ends_as_it_must_whichever_way_its_arm_is_placed(
    tmp_path: Path, placement: Placement, num_engines: int, reward: float, polite: float, ends: TrialState, told: str
) -> None:
    rail = GuardrailConfig(name="polite", margin=0.3)
    max_s = 60.0 if ends is TrialState.EXPIRED else 5000.0
    street = Street(tmp_path, num_engines, placement, guardrails=(rail,), max_s=max_s)
    street.rates, street.polite[1] = {0: 0.4, 1: reward}, polite
    street.to_trial()
    street.live(6000, street.is_over)
    assert street.state is ends, street.rollout.standing
    assert told in next(release.reason for release in street.released if release.state is ends)


def test_frozen_before_users_meet_it_a_candidate_keeps_the_engine_that_no_user_has(tmp_path: Path) -> None:
    street = Street(tmp_path, num_engines=2)
    street.live(120)
    mine = street.hands["e1"] if "e1" in street.rollout._moves.candidates else street.hands["e0"]
    mine.in_flight = 1  # it is not drained: the trial stays where it is
    street.publish(1, parent=0)
    street.live(10, lambda: street.state is TrialState.EVALUATING)
    street.order(Do.FREEZE)
    street.live(5)
    served = street.rollout.served
    assert (served.mode, served.state) == (Mode.FROZEN, TrialState.EVALUATING)
    assert {name for name, version in served.engines.items() if version == 1} == {mine.slot.id}


def test_paused_one_engine_serves_nobody_a_version_that_is_not_on_trial_yet(tmp_path: Path) -> None:
    street = Street(tmp_path)
    street.live(120)

    def dies() -> None:
        raise httpx.ConnectError("it died")

    street.hands["e0"].probe = dies  # type: ignore[method-assign]
    street.publish(1, parent=0)
    street.live(60, lambda: street.hands["e0"].version == 1)
    street.order(Do.PAUSE)
    street.live(5)
    assert street.state is TrialState.EVALUATING
    assert street.hands["e0"].version == 0


def test_a_version_that_an_engine_refuses_is_rejected_also_when_the_gate_has_passed_it(tmp_path: Path) -> None:
    street = Street(tmp_path, num_engines=2)
    street.config = street.config.model_copy(update={"approval": True})
    street.restarted()
    street.to_trial()
    street.live(3000, lambda: street.rollout.standing is not None and street.rollout.standing.verdict == "pass")
    street.hands["e0"].refuses = {1}
    street.live(300, street.is_over)
    assert street.state is TrialState.REJECTED
