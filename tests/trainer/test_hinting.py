from collections.abc import Callable
from typing import Any

import pytest
from inboxes import items_of

from ingest.records.events import Chain, ChatMessage, Feedback, Reward, TurnKind
from ingest.sessions.contamination import build
from trainer.eligibility import EligibleTurn, screen
from trainer.hinting import corrected
from trainer.offline.reading import Line, Screening

RewardOf = Callable[..., Reward]


def given(reward: Reward, turn: int | None, name: str = "correction") -> Reward:
    """With feedback that names a turn, or, without one, the session."""
    trajectory = reward.trajectory
    assert trajectory is not None
    about = {"session_id": "s"} if turn is None else {"trace_id": reward.trace_ids[turn]}
    said = Feedback(feedback_id="f", tenant="default", name=name, value=-1.0, at=1.0, **about)
    return reward.model_copy(update={"trajectory": trajectory.model_copy(update={"feedback": (said,)})})


def marked(reward: Reward, hinted_by: str = "correction", **screening: Any) -> list[int]:
    """Which turns are corrected."""
    found = corrected(screen(reward, reward.trajectory, **screening), reward.trajectory, hinted_by)
    turns = [found[name] for name in reward.trace_ids]
    return [number for number, turn in enumerate(turns) if isinstance(turn, EligibleTurn) and turn.is_corrected]


def test_a_turn_is_corrected_where_feedback_names_it_and_the_next_one_is_there(reward_of: RewardOf) -> None:
    assert marked(given(reward_of("s", [0.0, 1.0, 1.0]), 0)) == [0]
    assert marked(given(reward_of("s", [0.0, None]), 0)) == [0], "nobody need score what the user said next"
    assert marked(given(reward_of("s", [0.0, 1.0]), 1)) == [], "nothing comes next"
    assert marked(given(reward_of("s", [0.0, 1.0]), None)) == [], "no turn is named"
    assert marked(given(reward_of("s", [0.0, 1.0]), 0, name="thumb")) == []
    assert marked(given(reward_of("s", [0.0, 1.0]), 0), hinted_by="") == []
    for reason in ("length", "abort"):
        cut_off = reward_of("s", [0.0, 1.0], turn_changes={0: {"finish_reason": reason}})
        assert marked(given(cut_off, 0)) == [], "its last token is one of its words"


@pytest.mark.parametrize(
    "next_turn",
    [
        *({"is_altered": True}, {"is_reply_altered": True}),
        *({"kind": TurnKind.SUMMARY}, {"kind": TurnKind.SIDE}, {"status": 500}),
    ],
)
def test_a_prompt_that_is_not_to_be_learnt_from_corrects_nothing(
    reward_of: RewardOf, next_turn: dict[str, Any]
) -> None:
    assert marked(given(reward_of("s", [0.0, 1.0], turn_changes={1: next_turn}), 0)) == []


@pytest.mark.parametrize("fields", [{"held_out": True}, {"turn_changes": {0: {"is_reply_altered": True}}}])
def test_a_turn_that_never_trains_is_not_corrected(reward_of: RewardOf, fields: dict[str, Any]) -> None:
    assert marked(given(reward_of("s", [0.0, 1.0], **fields), 0)) == []
    assert marked(given(reward_of("s", [None, 1.0]), 0)) == []


def test_a_task_of_an_evaluation_is_no_hint(reward_of: RewardOf) -> None:
    task = "how many apples has she left when she gives three of her seven apples away"
    said = (ChatMessage(role="user", text=f"No, tell me {task}?"),)
    reward = given(reward_of("s", [0.0, 1.0], turn_changes={1: {"messages": said}}), 0)
    assert marked(reward, tasks=build([("gsm.jsonl", [task])], overlap=0.5)) == [] and marked(reward) == [0]


def test_what_comes_next_in_another_chain_corrects_nothing(reward_of: RewardOf) -> None:
    reward = given(reward_of("s", [0.0, 1.0]), 0)
    trajectory = reward.trajectory
    assert trajectory is not None
    (chain,) = trajectory.chains
    one, then = chain.segments
    other = Chain(token_ids=chain.token_ids[5:], segments=(then.model_copy(update={"start": 3, "end": 5}),))
    chains = (Chain(token_ids=chain.token_ids[:5], segments=(one,)), other)
    apart = reward.model_copy(update={"trajectory": trajectory.model_copy(update={"chains": chains})})
    (item,) = items_of(apart)
    assert marked(apart) == [] and len(item.eligible) == 2


def test_turns_from_the_log_and_from_files_are_marked_only_where_hints_are_asked_for(reward_of: RewardOf) -> None:
    reward = given(reward_of("s", [0.0, 1.0]), 0)
    for hinted_by, expected in (("", [False, False]), ("correction", [True, False])):
        screening = Screening(None, False, hinted_by=hinted_by)
        lines = (one.item(Line(reward, "file:1", 0), 0) for one in (screening, screening.anew()))
        for item in (*items_of(reward, hinted_by=hinted_by), *lines):
            assert [turn.is_corrected for turn in item.eligible] == expected
