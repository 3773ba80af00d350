"""Which prompts the lane asks again: hand-worked propensities, what is left out, budgets."""

from math import sqrt
from typing import Any

import pytest

from infra.config import LaneConfig
from ingest.records.events import Arm, Assignment, Group, Part, Reward, Source, TurnKind, TurnReward
from serving.rollout.lane.picking import FLOOR, Draw, Picks, coin, propensity

ALL = LaneConfig(share=1.0, group_size=4)


def reward(name: str = "k-0", value: float = 0.5, **fields: Any) -> Reward:
    """Of a session of one turn, which a scorer that needs no user gave `value` and a user 1."""
    alone = (Part(name="brevity", weight=2.0, value=value),)
    parts = (*alone, Part(name="thumb", weight=1.0, value=1.0))
    given: dict[str, Any] = {
        "reward_id": f"r-{name}", "trajectory_id": f"j-{name}", "session_id": f"s-{name}", "tenant": "acme",
        "user": f"u-{name}", "assignment": Assignment(), "held_out": False, "opened_at": 0.0, "trace_ids": (name,),
        "versions": (3,), "spec": "x@1", "components": (), "value": 0.5, "has_signal": True, "guardrails": {},
        "turns": (TurnReward(trace_id=name, value=0.5, parts=parts, alone=alone),),
        "source": Source(partition=0, offset=0), "at": 100.0,
    }  # fmt: skip
    return Reward.model_validate(given | fields)


def turn(name: str = "k-0", **fields: Any) -> TurnReward:
    return TurnReward.model_validate({"trace_id": name, "value": 1.0} | fields)


@pytest.mark.parametrize(
    ("outcome", "expected", "of_share"),
    [
        (0.5, 0.5, 1.0),  # p = 1/2: the most uncertain
        (1.0, 0.5, sqrt(3) / 2),  # p = 3/4: 2 sqrt(3/16)
        (0.0, 0.5, sqrt(3) / 2),
        (0.0, 0.9, 2 * sqrt(0.45 * 0.55)),  # a prompt that came to nothing where most succeed
        (1.0, 0.9, 2 * sqrt(0.95 * 0.05)),  # one that did as most do
        (1.0, 1.0, FLOOR),
        (0.0, 0.0, FLOOR),
    ],
)
def test_the_more_uncertain_a_prompt_is_the_more_likely_it_is_drawn(
    outcome: float, expected: float, of_share: float
) -> None:
    assert propensity(outcome, expected, 0.1) == pytest.approx(0.1 * of_share)


def test_a_tenants_outcomes_are_expected_of_its_later_prompts_and_of_no_other_tenants() -> None:
    picks = Picks(ALL)
    for n in range(3):
        picks.offer(reward(f"k-{n}", 1.0), 3)
    picks.offer(reward("other", 1.0, tenant="other"), 3)
    # means before: 1/2, 3/4, 5/6
    expected = [propensity(1.0, mean, 1.0) for mean in (1 / 2, 3 / 4, 5 / 6)]
    found = {one.trace_id: one.propensity for one in picks._waiting}
    drawn = [q for n, q in enumerate(expected) if coin(f"k-{n}") < q]
    assert [found[name] for name in found if name != "other"] == pytest.approx(drawn)
    assert picks._expected["acme"].value == pytest.approx(7 / 8)
    assert picks._expected["other"].value == pytest.approx(3 / 4)


def test_a_share_of_the_prompts_is_drawn_the_same_by_everybody() -> None:
    config = LaneConfig(share=0.25)
    draws = [[Picks(config).offer(reward(f"k-{n}"), 3) for n in range(2000)] for _ in range(2)]
    assert draws[0] == draws[1]
    assert 0.22 < draws[0].count(Draw.DRAWN) / 2000 < 0.28


@pytest.mark.parametrize(
    ("fields", "draw"),
    [
        ({"held_out": True}, Draw.NEVER_TRAINS),
        ({"revision": 2}, Draw.NEVER_TRAINS),
        ({"assignment": None}, Draw.NEVER_TRAINS),
        ({"assignment": Assignment(trial=1, replay_of="k-9")}, Draw.NEVER_TRAINS),
        ({"assignment": Assignment(replay_of="k-9", group=Group(size=2, propensity=0.1))}, Draw.NEVER_TRAINS),
        ({"trace_ids": ("k-0", "k-1"), "turns": (turn("k-0"), turn("k-1"))}, Draw.NOT_RESETTABLE),
        ({"turns": (turn(kind=TurnKind.SUMMARY),)}, Draw.NOT_RESETTABLE),
        ({"versions": (2,)}, Draw.OTHER_VERSION),
        ({"versions": (2, 3)}, Draw.OTHER_VERSION),
        ({"assignment": Assignment(arm=Arm.CANDIDATE, trial=3)}, Draw.OTHER_VERSION),
        ({"turns": (turn(alone=()),)}, Draw.NEEDS_USER),
        ({"turns": (turn(),)}, Draw.NOT_RESETTABLE),
        ({"trace_ids": ("k-0", "k-1"), "turns": (turn("k-0"), turn("k-1", alone=()))}, Draw.NEEDS_USER),
    ],
)
def test_what_cannot_be_compared_or_must_not_train_is_not_asked_again(fields: dict[str, Any], draw: Draw) -> None:
    picks = Picks(ALL)
    assert picks.offer(reward(**fields), 3) is draw
    assert picks.take(3, 101.0) is None


def test_an_anchor_carries_what_needs_no_user_and_nothing_else() -> None:
    picks = Picks(ALL)
    assert picks.offer(reward(value=0.5), 3) is Draw.DRAWN
    anchor = picks.take(3, 101.0)
    assert anchor is not None and (dict(anchor.parts), anchor.spec) == ({"brevity": 0.5}, "x@1")


def test_of_a_session_of_several_turns_the_one_that_may_be_asked_again_is_drawn() -> None:
    picks = Picks(ALL)
    alone = (Part(name="brevity", weight=1.0, value=0.25),)
    turns = (turn("k-0"), turn("k-1", alone=alone), turn("k-2", kind=TurnKind.SUMMARY))
    assert picks.offer(reward(trace_ids=("k-0", "k-1", "side", "k-2"), turns=turns), 3) is Draw.DRAWN
    anchor = picks.take(3, 101.0)
    assert anchor is not None and (anchor.trace_id, dict(anchor.parts)) == ("k-1", {"brevity": 0.25})
    assert picks.take(3, 101.0) is None


def test_the_newest_is_asked_first_and_each_once() -> None:
    picks = Picks(ALL)
    for n in range(3):
        picks.offer(reward(f"k-{n}"), 3)
    taken = [picks.take(3, 101.0) for _ in range(4)]
    assert [one and one.trace_id for one in taken] == ["k-2", "k-1", "k-0", None]


def test_what_waited_too_long_or_was_answered_by_a_version_that_is_stable_no_more_is_let_go() -> None:
    picks = Picks(ALL.model_copy(update={"max_age_s": 50.0}))
    picks.offer(reward("old", at=100.0), 3)
    picks.offer(reward("new", at=140.0), 3)
    assert [one and one.trace_id for one in (picks.take(3, 160.0), picks.take(3, 160.0))] == ["new", None]
    picks.offer(reward("other", at=160.0), 3)
    assert picks.take(4, 160.0) is None


def test_no_more_is_asked_in_an_hour_than_the_budget_has() -> None:
    picks = Picks(ALL.model_copy(update={"replays_per_hour": 9, "max_age_s": 1e6}))
    for n in range(4):
        picks.offer(reward(f"k-{n}"), 3)
    assert picks.take(3, 100.0) and picks.take(3, 200.0)
    assert picks.take(3, 3699.0) is None
    assert picks.take(3, 3700.0) is not None


def test_a_user_with_many_prompts_leaves_room_for_others() -> None:
    picks = Picks(ALL.model_copy(update={"groups_per_user": 2}))
    picks.offer(reward("theirs"), 3)
    for n in range(5):
        picks.offer(reward(f"k-{n}", user="u"), 3)
    taken = [picks.take(3, 101.0) for _ in range(4)]
    assert [one and one.trace_id for one in taken] == ["k-4", "k-3", "theirs", None]
