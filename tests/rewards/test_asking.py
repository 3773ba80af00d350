"""Asking batch scorers, on a clock that skips every wait; the thread around it, with events."""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ingest.records.events import Reward, Trajectory, Turn
from rewards.asking import Background, score, score_all
from rewards.evaluate import Question
from rewards.scorers import Outcome, Scored, Services, Unscored
from rewards.spec import RewardSpec, Scoring

MakeTurn = Callable[..., Turn]
MakeTrajectory = Callable[..., Trajectory]
Loop = asyncio.AbstractEventLoop


def scoring(*scorers: Any) -> Scoring:
    """A spec with components `c0`, `c1`, ... of these scorers."""
    components = [{"name": f"c{n}", "scorer": "x"} for n in range(len(scorers))]
    return Scoring(RewardSpec.model_validate({"name": "test", "components": components}), scorers, (), "test@0")


def said(reward: Reward, component: str = "c0") -> list[float | str | None]:
    return [c.unscored if c.value is None else c.value for c in reward.components if c.name == component]


def test_batches_are_filled_and_only_so_many_are_asked_at_a_time(
    loop: Loop, make_turn: MakeTurn, make_trajectory: MakeTrajectory, make_patient: Any
) -> None:
    scorer = make_patient(takes_s=1.0, batch=2, concurrency=2)
    made = loop.run_until_complete(
        score(scoring(scorer), make_trajectory(*(make_turn(n) for n in range(7))), Services())
    )
    assert [len(batch) for _, batch in scorer.asked] == [2, 2, 2, 1]
    assert (scorer.most_at_a_time, loop.time()) == (2, pytest.approx(2.0))
    assert said(made) == [1.0] * 7


def test_a_slow_scorer_delays_no_other(
    loop: Loop, make_turn: MakeTurn, make_trajectory: MakeTrajectory, make_patient: Any
) -> None:
    slow, quick = make_patient(takes_s=4.0, batch=1), make_patient(batch=1)
    trajectory = make_trajectory(*(make_turn(n) for n in range(5)))
    made = loop.run_until_complete(score(scoring(slow, quick), trajectory, Services()))
    assert [at for at, _ in quick.asked] == [0.0] * 5
    assert [at for at, _ in slow.asked] == pytest.approx([0.0, 4.0, 8.0, 12.0, 16.0])
    assert said(made, "c0") == said(made, "c1") == [1.0] * 5


def test_a_scorer_says_at_once_where_there_is_nothing_to_ask(
    loop: Loop, make_turn: MakeTurn, make_trajectory: MakeTrajectory, make_patient: Any
) -> None:
    scorer = make_patient()
    trajectory = make_trajectory(make_turn(0, reply="nothing"), make_turn(1))
    assert said(loop.run_until_complete(score(scoring(scorer), trajectory, Services()))) == ["nothing to ask", 1.0]
    assert scorer.asked == [(0.0, ["t1"])]


def test_an_outage_that_ends_within_the_window_costs_nothing(
    loop: Loop, make_trajectory: MakeTrajectory, make_patient: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    scorer = make_patient(window_s=60.0)
    scorer.is_away = True
    loop.call_later(30.0, setattr, scorer, "is_away", False)
    made = loop.run_until_complete(score(scoring(scorer), make_trajectory(), Services()))
    assert said(made) == [1.0]
    assert 30.0 <= loop.time() < 48.0
    away, back = caplog.messages
    assert away == "component c0: its scorer is unavailable, trying again: no engine answered"
    assert back.startswith("component c0: its scorer is back after")


def test_an_outage_that_outlasts_the_window_is_unscored_with_its_reason(
    loop: Loop, make_turn: MakeTurn, make_trajectory: MakeTrajectory, make_patient: Any
) -> None:
    scorer = make_patient(window_s=60.0, batch=1)
    scorer.is_away = True
    trajectory = make_trajectory(*(make_turn(n) for n in range(9)))
    made = loop.run_until_complete(score(scoring(scorer), trajectory, Services()))
    assert said(made) == ["no answer within 60 s: no engine answered"] * 9
    assert loop.time() == pytest.approx(60.0)
    assert (made.value, made.has_signal) == (0.5, False)


def test_a_call_that_takes_too_long_is_ended_and_counts_as_an_outage(
    loop: Loop, make_trajectory: MakeTrajectory, make_patient: Any
) -> None:
    scorer = make_patient(takes_s=7.0, timeout_s=5.0, window_s=20.0)
    made = loop.run_until_complete(score(scoring(scorer), make_trajectory(), Services()))
    assert said(made) == ["no answer within 20 s: no answer within 5 s"]
    assert len(scorer.asked) == 4
    assert scorer.num_at_a_time == 0


class Odd:
    """Answers with whatever it was given, or raises it."""

    name, version = "odd", "1"

    def __init__(self, cost: Any, answer: Any) -> None:
        self.cost, self._answer = cost, answer

    def applies(self, trajectory: Trajectory, turn: Turn) -> Any:
        return self._answer if isinstance(self._answer, float) else None

    async def score_batch(self, batch: Sequence[tuple[Trajectory, Turn]], services: Services) -> Any:
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (KeyError("missing"), "crashed: KeyError"),
        (TimeoutError("mine"), "crashed: TimeoutError"),
        (asyncio.CancelledError(), "crashed: CancelledError"),
        ([Scored(1.0)], "crashed: must return 2 of Scored or Unscored, got list"),
        ([Scored(1.0), 0.5], "crashed: must return 2 of Scored or Unscored, got list"),
        (None, "crashed: must return 2 of Scored or Unscored, got NoneType"),
        (0.5, "crashed: `applies` must return Unscored or None, got float"),
    ],
)
def test_what_is_no_answer_is_unscored_and_not_asked_again(
    answer: Any,
    told: str,
    loop: Loop,
    make_turn: MakeTurn,
    make_trajectory: MakeTrajectory,
    make_patient: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    scorer = Odd(make_patient().cost, answer)
    made = loop.run_until_complete(score(scoring(scorer), make_trajectory(make_turn(0), make_turn(1)), Services()))
    assert set(said(made)) == {told}
    assert "scorer odd crashed on trace t1" in caplog.text
    assert loop.time() == 0.0


def test_many_trajectories_share_batches(loop: Loop, make_trajectory: MakeTrajectory, make_patient: Any) -> None:
    scorer = make_patient(batch=4)
    scorer.replies = {"t0": Scored(0.25)}
    trajectories = [make_trajectory(trajectory_id=f"j{n}") for n in range(4)]
    rewards = loop.run_until_complete(score_all(scoring(scorer), trajectories, Services(), at=7.0))
    assert [(made.trajectory_id, made.value, made.at) for made in rewards] == [(f"j{n}", 0.25, 7.0) for n in range(4)]
    assert len(scorer.asked) == 1


class Held:
    """Answers when it is let go; `begun` counts calls, in the thread that asks."""

    name, version = "held", "1"

    def __init__(self, cost: Any) -> None:
        self.cost = cost
        self.asked: list[str] = []
        self.begun, self.let_go = threading.Semaphore(0), threading.Semaphore(0)

    def applies(self, trajectory: Trajectory, turn: Turn) -> Unscored | None:
        return None

    async def score_batch(self, batch: Sequence[tuple[Trajectory, Turn]], services: Services) -> Sequence[Outcome]:
        self.asked += [turn.trace_id for _, turn in batch]
        self.begun.release()
        await asyncio.to_thread(self.let_go.acquire)
        return [Scored(1.0) for _ in batch]


def test_the_thread_answers_behind_its_askers_back_and_leaves_out_what_was_dropped(
    make_turn: MakeTurn, make_trajectory: MakeTrajectory, make_patient: Any
) -> None:
    scorer = Held(make_patient(batch=1).cost)
    first, dropped, last = (Question("c0", scorer, make_trajectory(), make_turn(n)) for n in range(3))
    with Background(Services()) as asking:
        asking.ask([first, dropped, last])
        assert scorer.begun.acquire(timeout=10.0)
        assert list(asking.answers()) == []
        asking.drop([dropped])
        scorer.let_go.release()
        assert scorer.begun.acquire(timeout=10.0)
        assert list(asking.answers()) == [(first, Scored(1.0))]
        scorer.let_go.release()
    assert scorer.asked == ["t0", "t2"]


class Endless(Held):
    async def score_batch(self, batch: Sequence[tuple[Trajectory, Turn]], services: Services) -> Sequence[Outcome]:
        self.begun.release()
        await asyncio.Event().wait()
        return []


def test_leaving_ends_a_call_in_progress(
    make_turn: MakeTurn, make_trajectory: MakeTrajectory, make_patient: Any
) -> None:
    scorer = Endless(make_patient(timeout_s=1e9, window_s=1e9).cost)
    with Background(Services()) as asking:
        asking.ask([Question("c0", scorer, make_trajectory(), make_turn())])
        assert scorer.begun.acquire(timeout=10.0)
    assert not [thread for thread in threading.enumerate() if thread.name == "asking"]
