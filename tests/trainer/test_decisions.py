from typing import Any

import pytest

from ingest.records.events import Fate, FateKind
from trainer import decisions
from trainer.advantages.baselines import Baselines, Node
from trainer.decisions import Clock
from trainer.eligibility import Reason
from trainer.state import CandidateVersion, Making, Standing, State, Used

CLOCK = Clock(now=1000.0, log_keeps_from=100.0)


def expecting(mean: float) -> Baselines:
    return Baselines(nodes=(Node(("value",), mean, 8.0),))


STABLE = Standing(learner="s", baselines=expecting(0.1), seen={"t": ("1",)}, offsets={"rewards": {0: 10}})
TRIED = Standing(learner="c", baselines=expecting(0.2), seen={"t": ("2",)}, offsets={"rewards": {0: 20}})


def used(name: str, kind: FateKind = FateKind.TRAINED, reason: str = "", rewarded_at: float = 500.0) -> Used:
    return Used(trace_ids=(name,), kind=kind, reason=reason, rewarded_at=rewarded_at)


def on_trial(making: Making | None, **changes: Any) -> State:
    """Version 5, of `k` and of `held`, which was not to train, on trial against 4."""
    candidate = CandidateVersion(
        version=5, parent=4, trace_ids=("k",), spec="s", metrics={}, at=1.0, standing=TRIED, is_published=True,
        used=(used("k"), used("held", FateKind.HELD_OUT, "its session is held out")),
    )  # fmt: skip
    here = (
        {"learner": "m", "baselines": expecting(0.3), "seen": {}, "offsets": {"rewards": {0: 30}}}
        if making
        else dict(TRIED)
    )
    return State.model_validate(
        {"step": 7, "base": 4, "candidate": candidate, "fallback": STABLE, "making": making, **here, **changes}
    )


MAKING = Making(
    begun_at=600.0, num_turns=1, num_updates=1, used=(used("m"), used("lost", rewarded_at=50.0)), contexts=({},)
)


def told(state: State) -> dict[str, tuple[str, int | None]]:
    return {name: (fate.kind.value, fate.version) for fate in state.fates for name in fate.trace_ids}


K_TOLD = {"k": ("trained", 5), "held": ("held_out", None)}


def test_a_promotion_makes_the_candidate_stable_and_the_version_in_the_making_due() -> None:
    before = on_trial(MAKING)
    found = decisions.promoted(before, CLOCK)
    state = found.state
    due = MAKING.model_copy(update={"is_due": True})
    assert (state.base, state.candidate, state.making, state.fallback) == (5, None, due, TRIED)
    assert state.standing == before.standing and found.again == ()
    assert told(state) == K_TOLD and state.fated == ("k", "held")


def test_a_promotion_with_nothing_in_the_making_leaves_nothing_to_return_to() -> None:
    state = decisions.promoted(on_trial(None), CLOCK).state
    assert (state.fallback, state.standing, told(state)) == (None, TRIED, K_TOLD)


def test_what_a_version_in_the_making_used_without_training_is_told_with_the_promotion() -> None:
    making = Making(begun_at=0.0, used=(used("x", FateKind.REFUSED, "unscored"),))
    state = decisions.promoted(on_trial(making), CLOCK).state
    assert state.making is state.fallback is None
    assert told(state) == {**K_TOLD, "x": ("refused", None)} and state.offsets == {"rewards": {0: 30}}


def test_a_rejection_returns_to_stable_and_takes_again_what_came_after_the_candidates_own_turns() -> None:
    found = decisions.rejected(on_trial(MAKING), CLOCK)
    state = found.state
    assert state.standing == STABLE.model_copy(update={"offsets": TRIED.offsets})
    assert (state.base, state.candidate, state.making, state.fallback) == (4, None, None, None)
    assert found.again == ("m",)
    assert told(state) == {**K_TOLD, "lost": ("expired", None)}


def test_an_expiry_gives_the_candidates_turns_back_too() -> None:
    found = decisions.expired(on_trial(MAKING), CLOCK)
    assert found.state.standing == STABLE and found.again == ("k", "held", "m")
    assert told(found.state) == {"lost": ("expired", None)}


def test_a_trace_whose_reward_the_log_may_not_give_again_keeps_a_fate_that_is_not_training() -> None:
    held = used("held", FateKind.HELD_OUT, "its session is held out", rewarded_at=1.0)
    making = MAKING.model_copy(update={"used": (held,)})
    assert told(decisions.rejected(on_trial(making), CLOCK).state)["held"] == ("held_out", None)


@pytest.mark.parametrize("is_making", [True, False])
def test_another_stable_version_is_taken_from_the_store_and_what_was_in_the_making_from_the_log(
    is_making: bool,
) -> None:
    making = {"making": MAKING, "fallback": STABLE} if is_making else {}
    here = {**dict(TRIED), "offsets": {"rewards": {0: 20}}}
    found = decisions.left(State.model_validate({"base": 5, **here, **making}), 4, CLOCK)
    place = STABLE if is_making else TRIED
    assert found.state.standing == place.model_copy(update={"learner": None})
    assert (found.state.base, found.state.making, found.state.fallback) == (4, None, None)
    assert found.again == (("m",) if is_making else ())


def test_fates_that_are_owed_already_are_owed_on() -> None:
    owed = Fate(trace_ids=("before",), kind=FateKind.REFUSED, reason=Reason.STALE.value, at=1.0)
    state = on_trial(MAKING, fates=(owed,), fated=("before",))
    for decide in (decisions.promoted, decisions.rejected, decisions.expired):
        found = decide(state, CLOCK).state
        assert found.fates[0] == owed and found.fated[0] == "before"
