from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ingest.events import FateKind, Reward, TrialState, TurnKind, VersionSpan
from ingest.releases import Served
from trainer.eligibility import Candidate, Held, Ineligible, Reason, Trainable, judge, screen

RewardOf = Callable[..., Reward]
SPAN = VersionSpan(version=0, start=0, end=2)


def only(reward: Reward) -> Candidate | Ineligible:
    (verdict,) = screen(reward).values()
    return verdict


@pytest.mark.parametrize(
    ("turn", "segment", "value", "reason"),
    [
        ({"kind": TurnKind.SIDE}, {}, 1.0, Reason.SIDE),
        ({"status": 500}, {}, 1.0, Reason.STATUS),
        ({}, {"trace_id": "another"}, 1.0, Reason.EMPTY),
        ({}, {"logprobs": (), "spans": ()}, 1.0, Reason.EMPTY),
        ({}, {"spans": ()}, 1.0, Reason.UNKNOWN_WEIGHTS),
        ({}, {"end": 99}, 1.0, Reason.MISALIGNED),
        ({}, {"start": 0}, 1.0, Reason.MISALIGNED),
        ({}, {"logprobs": (-1.0, -float("inf"))}, 1.0, Reason.NOT_FINITE),
        ({}, {}, None, Reason.UNSCORED),
    ],
)
def test_a_trace_that_cannot_train_says_why(
    reward_of: RewardOf, turn: dict[str, Any], segment: dict[str, Any], value: float | None, reason: Reason
) -> None:
    verdict = only(reward_of("s", [value], turn_changes={0: turn}, segment_changes={0: segment}))
    assert verdict == Ineligible(reason) and verdict.fate is FateKind.REFUSED


def test_a_held_out_session_is_held_out_and_not_refused(reward_of: RewardOf) -> None:
    verdict = only(reward_of("s", [None], held_out=True))
    assert isinstance(verdict, Ineligible) and verdict.fate is FateKind.HELD_OUT


@pytest.mark.parametrize("finish_reason", ["length", "abort", "error", "stop"])
def test_malformed_output_with_tokens_is_a_sample(reward_of: RewardOf, finish_reason: str) -> None:
    verdict = only(reward_of("s", [0.0], turn_changes={0: {"finish_reason": finish_reason, "reply": ""}}))
    assert isinstance(verdict, Candidate) and verdict.reward == 0.0


def test_a_summary_trains(reward_of: RewardOf) -> None:
    assert isinstance(only(reward_of("s", [1.0], turn_changes={0: {"kind": TurnKind.SUMMARY}})), Candidate)


def candidate(*versions: int) -> Candidate:
    return Candidate("t", TurnKind.MAIN, 0.7, versions)


SERVED = Served(epoch=1, last=9, lineage=(0, 2, 5), trials={3: TrialState.REJECTED})


@pytest.mark.parametrize(
    ("versions", "max_staleness", "verdict"),
    [
        ((5,), 0, Trainable(0.7)),
        ((2,), 1, Trainable(0.7)),
        ((2,), 0, Ineligible(Reason.STALE)),
        ((0,), 1, Ineligible(Reason.STALE)),
        ((0,), 2, Trainable(0.7)),
        ((0, 5), 1, Ineligible(Reason.STALE)),
        ((3,), 9, Ineligible(Reason.REJECTED_WEIGHTS)),
        ((5, 3), 9, Ineligible(Reason.REJECTED_WEIGHTS)),
        ((7,), 9, Ineligible(Reason.REJECTED_WEIGHTS)),
    ],
)
def test_age_is_counted_in_promotions_and_the_worst_token_decides(
    versions: tuple[int, ...], max_staleness: int, verdict: object
) -> None:
    assert judge(candidate(*versions), SERVED, None, max_staleness) == verdict


def test_a_turn_of_the_candidate_on_trial_is_held() -> None:
    assert judge(candidate(7), SERVED, 7, 1) == Held(7)
    assert judge(candidate(5, 7), SERVED, 7, 1) == Held(7)
    on_trial = replace(SERVED, candidate=7, state=TrialState.CANARY)
    assert judge(candidate(7), on_trial, None, 1) == Held(7)
