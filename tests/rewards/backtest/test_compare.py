"""What two specs make of the same sessions, worked by hand."""

from collections.abc import Callable
from typing import Any

import pytest

from ingest.records.events import Component, Feedback, Reward, Trajectory, Turn, TurnKind
from rewards.backtest.compare import NUM_MOVERS, Comparing, Comparison, Shift, What
from rewards.backtest.rescore import Again, Rescoring
from rewards.spec import RewardSpec, Scoring, build

MakeTurn = Callable[..., Turn]
MakeTrajectory = Callable[..., Trajectory]
MakeThumb = Callable[..., Feedback]

THUMB = {"name": "thumb", "scorer": "feedback", "params": {"names": ["thumb"]}}
BRIEF = {"name": "brief", "scorer": "reply", "params": {"max_words": 3}}


def spec(*components: dict[str, Any], **fields: Any) -> Scoring:
    return build(RewardSpec.model_validate({"name": "test", "components": components} | fields))


def compared(old: Scoring, new: Scoring, *trajectories: Trajectory) -> Comparison:
    found = Comparing(new.id, [part.name for part in new.spec.components])
    for one, other in zip(Rescoring(old).score(trajectories), Rescoring(new).score(trajectories), strict=True):
        found.add(one, other)
    return found.result()


def shift(found: Comparison, name: str) -> Shift:
    return next(one for one in found.shifts if one.name == name)


@pytest.fixture
def liked(make_turn: MakeTurn, make_trajectory: MakeTrajectory, make_thumb: MakeThumb) -> Trajectory:
    """t0 is liked and long; t1 is short, and nobody says anything of it."""
    return make_trajectory(make_turn(0), make_turn(1, reply="short"), feedback=(make_thumb(1.0, "t0"),))


def test_a_component_that_is_added_moves_what_it_scores_and_gives_values_to_what_had_none(liked: Trajectory) -> None:
    found = compared(spec(THUMB), spec(THUMB, BRIEF | {"weight": 3.0}), liked)
    turns, sessions, brief = (shift(found, name) for name in ("turns", "sessions", "brief"))
    # t0: 1 -> (1 + 3 x 0) / 4; t1: none -> 1; the session: 1 -> (0.25 + 1) / 2
    assert (turns.num_both, turns.num_changed, turns.gained, turns.lost) == (1, 1, 1, 0)
    assert turns.mean_change == pytest.approx(-0.75)
    assert (sessions.num_both, sessions.mean_change) == (1, pytest.approx(0.625 - 1.0))
    assert (brief.old, brief.scorers_old, brief.scorers_new) == (None, (), ("reply@1",))
    assert brief.new is not None
    assert (brief.new.num, brief.new.mean) == (2, 0.5)


def test_the_component_that_moved_a_value_most_is_named(liked: Trajectory) -> None:
    found = compared(spec(THUMB), spec(THUMB, BRIEF | {"weight": 3.0}), liked)
    (session,), (turn,) = found.sessions, found.turns
    # of the session's value thumb makes 1 before and (0.25 + 0) / 2 now, brief nothing before and (0 + 1) / 2 now
    assert (session.session_id, session.old, session.new) == ("s", 1.0, 0.625)
    assert (session.by, session.by_change) == ("thumb", pytest.approx(-0.875))
    assert (turn.trace_id, turn.old, turn.new, turn.by) == ("t0", 1.0, 0.25, "thumb")


def test_a_component_that_is_gone_is_told_after_those_that_stayed(liked: Trajectory) -> None:
    found = compared(spec(BRIEF, THUMB), spec(THUMB), liked)
    components = [one for one in found.shifts if one.what is What.COMPONENT]
    assert [one.name for one in components] == ["thumb", "brief"]
    assert (components[1].lost, components[1].scorers_new) == (2, ())
    assert shift(found, "turns").lost == 1


def test_why_there_is_no_score_is_counted_on_both_sides(liked: Trajectory) -> None:
    other = THUMB | {"params": {"names": ["thumb", "stars"]}}
    thumb = shift(compared(spec(THUMB), spec(other), liked), "thumb")
    assert thumb.unscored_old == thumb.unscored_new == {"no feedback": 1}
    assert (thumb.num_both, thumb.num_changed) == (1, 0)


def test_a_session_that_nobody_said_anything_of_has_no_value_to_compare(make_trajectory: MakeTrajectory) -> None:
    found = compared(spec(THUMB, silence=0.2), spec(THUMB, silence=0.9), make_trajectory())
    assert (shift(found, "sessions").old, shift(found, "sessions").new, found.sessions) == (None, None, ())


def test_what_a_crashed_scorer_said_is_not_repeated(liked: Trajectory) -> None:
    (again,) = Rescoring(spec(THUMB)).score([liked])
    crash = Component(name="thumb", scorer="x@1", trace_id="t0", value=None, unscored="crashed: ValueError: my secret")
    made: Reward = again.reward.model_copy(update={"components": (crash,)})
    found = Comparing("new@1", ["thumb"])
    found.add(Again(made), Again(made))
    assert shift(found.result(), "thumb").unscored_new == {"crashed": 1}


def test_only_the_twenty_that_moved_most_are_kept_the_farthest_first(
    make_turn: MakeTurn, make_trajectory: MakeTrajectory, make_thumb: MakeThumb
) -> None:
    def of(number: int) -> Trajectory:
        said = (make_thumb(number / 30, f"t{number}"),)
        return make_trajectory(make_turn(number), feedback=said, session_id=f"s{number}")

    # brief scores 0: a value v becomes v / 2, so the better ones move farther
    found = compared(spec(THUMB), spec(THUMB, BRIEF), *map(of, range(30)))
    assert [one.session_id for one in found.sessions] == [f"s{n}" for n in range(29, 29 - NUM_MOVERS, -1)]


@pytest.mark.parametrize(
    ("kind", "credit", "num_turns", "num_sessions"),
    [
        (TurnKind.SUMMARY, "turn", 1, 1),  # the summary's value is not whole, the session's is
        (TurnKind.MAIN, "turn", 1, 0),  # the other way about
        (TurnKind.SUMMARY, "chain", 0, 0),  # what it would say reaches the main turn
    ],
)
def test_a_value_that_lacks_what_no_engine_was_asked_for_is_not_compared(
    kind: TurnKind, credit: str, num_turns: int, num_sessions: int, make_turn: MakeTurn,
    make_trajectory: MakeTrajectory, make_thumb: MakeThumb, make_patient: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    patient = make_patient()
    patient.kinds = frozenset({kind})
    monkeypatch.setattr("rewards.plugins.find", lambda name: (lambda: patient) if name == "patient" else feedback)
    asking = {"name": "asked", "scorer": "patient", "credit": credit}
    turns = make_turn(0), make_turn(1, kind=TurnKind.SUMMARY)
    held = make_trajectory(*turns, feedback=(make_thumb(1.0, "t0"), make_thumb(1.0, "t1")))
    found = compared(spec(THUMB), spec(THUMB, asking), held)
    assert shift(found, "turns").num_both == num_turns
    assert found.num_turns_lacking == 2 - num_turns
    assert (shift(found, "sessions").num_both, found.num_not_whole) == (num_sessions, 1 - num_sessions)
    assert shift(found, "asked").unscored_new == {"not asked: --engines": 1}


def feedback(**params: Any) -> Any:
    from rewards.scorers import FeedbackScorer

    return FeedbackScorer(**params)
