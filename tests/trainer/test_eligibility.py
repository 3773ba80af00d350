from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ingest.records.events import (
    Arm,
    Assignment,
    ChatMessage,
    FateKind,
    Part,
    Reward,
    TrialState,
    TurnKind,
    VersionSpan,
    session_key,
)
from ingest.sessions.contamination import build
from ingest.store.releases import Served
from trainer.eligibility import SOLE_PART, EligibleTurn, Held, Ineligible, Reason, Trainable, eligibility_of, screen

RewardOf = Callable[..., Reward]
SPAN = VersionSpan(version=0, start=0, end=2)


def only(reward: Reward) -> EligibleTurn | Ineligible:
    (found,) = screen(reward, reward.trajectory).values()
    return found


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
        ({}, {}, float("nan"), Reason.UNSCORED),
        ({}, {}, 1.5, Reason.UNSCORED),
    ],
)
def test_a_trace_that_cannot_train_says_why(
    reward_of: RewardOf, turn: dict[str, Any], segment: dict[str, Any], value: float | None, reason: Reason
) -> None:
    found = only(reward_of("s", [value], turn_changes={0: turn}, segment_changes={0: segment}))
    assert found == Ineligible(reason) and found.fate is FateKind.REFUSED


def test_a_held_out_session_is_held_out_and_not_refused(reward_of: RewardOf) -> None:
    found = only(reward_of("s", [None], held_out=True))
    assert isinstance(found, Ineligible) and found.fate is FateKind.HELD_OUT


@pytest.mark.parametrize("is_marked", [True, False])
def test_a_replay_never_trains_even_where_nothing_marked_it_held_out(reward_of: RewardOf, is_marked: bool) -> None:
    made = reward_of("s", [1.0, 0.0], held_out=is_marked)
    given = Assignment(arm=Arm.CANDIDATE, trial=1, propensity=0.5, replay_of="k-0")
    assert made.trajectory is not None
    kept = made.model_copy(update={"assignment": given})
    whole = made.trajectory.model_copy(update={"assignment": given})
    for reward, trajectory in ((kept, made.trajectory), (made, whole), (kept, None)):
        found = screen(reward, trajectory)
        assert found == dict.fromkeys(made.trace_ids, Ineligible(Reason.REPLAY))
        assert {one.fate for one in found.values() if isinstance(one, Ineligible)} == {FateKind.HELD_OUT}


def test_text_of_an_evaluation_task_is_refused_with_its_file_and_so_is_what_goes_on_from_it(
    reward_of: RewardOf,
) -> None:
    task = "how many apples has she left when she gives three of her seven apples away"
    asked = (ChatMessage(role="user", text=f"Please tell me {task}?"),)
    first = f"{session_key('s')}-0"
    turns = {0: {"messages": asked}, 1: {"parent": first}}
    reward = reward_of("s", [1.0, 1.0, 1.0], turn_changes=turns)
    *hits, other = screen(reward, reward.trajectory, build([("gsm.jsonl", [task])], overlap=0.5)).values()
    for hit in hits:
        assert isinstance(hit, Ineligible)
        assert (hit.fate, hit.told) == (FateKind.REFUSED, "contaminated: gsm.jsonl")
    assert isinstance(other, EligibleTurn)
    held = reward_of("s", [1.0], turn_changes={0: {"messages": asked}}, held_out=True)
    (found,) = screen(held, held.trajectory, build([("gsm.jsonl", [task])], overlap=0.5)).values()
    assert isinstance(found, Ineligible) and found.fate is FateKind.HELD_OUT


@pytest.mark.parametrize("finish_reason", ["length", "abort", "error", "stop"])
def test_malformed_output_with_tokens_is_a_sample(reward_of: RewardOf, finish_reason: str) -> None:
    found = only(reward_of("s", [0.0], turn_changes={0: {"finish_reason": finish_reason, "reply": ""}}))
    assert isinstance(found, EligibleTurn) and found.reward == 0.0


def test_a_summary_trains(reward_of: RewardOf) -> None:
    assert isinstance(only(reward_of("s", [1.0], turn_changes={0: {"kind": TurnKind.SUMMARY}})), EligibleTurn)


def test_a_turn_brings_the_parts_of_its_reward(reward_of: RewardOf) -> None:
    found = only(reward_of("s", [0.5], parts=[{"thumb": (1.0, 0.0), "recall": (1.0, 1.0)}]))
    assert isinstance(found, EligibleTurn) and found.reward == 0.5
    assert found.parts == (Part(name="thumb", weight=1.0, value=0.0), Part(name="recall", weight=1.0, value=1.0))


def test_a_value_without_parts_is_the_only_part(reward_of: RewardOf) -> None:
    found = only(reward_of("s", [0.25]))
    assert isinstance(found, EligibleTurn) and found.parts == (Part(name=SOLE_PART, weight=1.0, value=0.25),)


def test_a_segment_is_measured_in_its_whole_chain_and_not_in_what_is_stored_of_it(reward_of: RewardOf) -> None:
    reward = reward_of("s", [1.0])
    (chain,) = reward.trajectory.chains
    leaning = chain.model_copy(update={"token_ids": chain.token_ids[3:], "base": 0, "shared": 3})
    (segment,) = chain.segments
    first = chain.model_copy(update={"segments": ()})

    def screened(end: int) -> EligibleTurn | Ineligible:
        moved = segment.model_copy(update={"start": end - 2, "end": end})
        chains = (first, leaning.model_copy(update={"segments": (moved,)}))
        trajectory = reward.trajectory.model_copy(update={"chains": chains})
        return only(reward.model_copy(update={"trajectory": trajectory}))

    assert isinstance(screened(5), EligibleTurn) and screened(6) == Ineligible(Reason.MISALIGNED)


def eligible(*versions: int) -> EligibleTurn:
    return EligibleTurn("t", TurnKind.MAIN, 0.7, (), versions)


SERVED = Served(epoch=1, last=9, lineage=(0, 2, 5), trials={3: TrialState.REJECTED})


@pytest.mark.parametrize(
    ("versions", "max_staleness", "expected"),
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
    versions: tuple[int, ...], max_staleness: int, expected: object
) -> None:
    assert eligibility_of(eligible(*versions), SERVED, None, max_staleness) == expected


def test_what_the_candidate_sampled_trains_what_goes_on_from_it_and_is_held_by_everything_else() -> None:
    on_trial = replace(SERVED, candidate=7, state=TrialState.CANARY)
    for versions in ((7,), (5, 7)):
        assert eligibility_of(eligible(*versions), on_trial, 7, 1) == Trainable(0.7)
        assert eligibility_of(eligible(*versions), on_trial, None, 1) == Held(7)
    assert eligibility_of(eligible(7), SERVED, 7, 1) == Trainable(0.7)  # published, and not on trial yet
    assert eligibility_of(eligible(0, 7), on_trial, 7, 1) == Ineligible(Reason.STALE)
