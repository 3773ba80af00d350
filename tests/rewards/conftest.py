"""Trajectories, a scorer that waits, and a loop that does not, for the tests of this folder."""

import asyncio
import selectors
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from ingest.records.events import CloseReason, Feedback, Trajectory, Turn, TurnKind
from rewards.scorers import Cost, Outcome, Scored, Services, Unscored
from rewards.summary.likelihood import UnavailableError


def turn(n: int = 0, **fields: Any) -> Turn:
    """Turn `t<n>`, a main turn that finished with `stop`."""
    values: dict[str, Any] = {
        "trace_id": f"t{n}",
        "kind": TurnKind.MAIN,
        "context": "a question",
        "reply": "an answer of five words",
        "followup": None,
        "finish_reason": "stop",
        "status": 200,
        "num_tokens": 5,
        "versions": (1,),
        "at": float(n),
    }
    return Turn.model_validate(values | fields)


def trajectory(*turns: Turn, feedback: tuple[Feedback, ...] = (), **fields: Any) -> Trajectory:
    """A closed session `s` of these turns, or of one plain turn."""
    values: dict[str, Any] = {
        "trajectory_id": "trajectory",
        "session_id": "s",
        "tenant": "default",
        "assignment": None,
        "held_out": False,
        "closed": CloseReason.INACTIVE,
        "opened_at": 0.0,
        "closed_at": 100.0,
        "turns": turns or (turn(),),
        "chains": (),
        "feedback": feedback,
    }
    return Trajectory.model_validate(values | fields)


def thumb(value: float, trace_id: str | None = None, name: str = "thumb") -> Feedback:
    """Feedback about a turn, or about session `s`."""
    about = {"trace_id": trace_id} if trace_id else {"session_id": "s"}
    label = f"{name} {value} {trace_id}"
    return Feedback.model_validate(
        {"feedback_id": label, "tenant": "default", "name": name, "value": value, "at": 1.0} | about
    )


class _Skipping(selectors.DefaultSelector):
    """Where the loop would wait, its time has passed."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "everything waits for something that never comes"
        self.now += timeout
        return super().select(0)


class HurriedLoop(asyncio.SelectorEventLoop):
    """An event loop on a clock of its own, which begins at 0 and skips every wait."""

    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        return self._skipping.now


class Patient:
    """A batch scorer that takes `takes_s` and scores as `replies` say of a trace id, or else 1; away while `is_away`.

    Replies that say so have nothing to ask; `asked` are the batches of trace ids, with the loop's time at their begin.
    """

    name, version = "patient", "1"

    def __init__(self, takes_s: float = 0.0, **cost: Any) -> None:
        self.cost = Cost(**({"timeout_s": 5.0, "window_s": 60.0, "batch": 2} | cost))
        self.takes_s, self.is_away = takes_s, False
        self.replies: dict[str, Outcome] = {}
        self.asked: list[tuple[float, list[str]]] = []
        self.num_at_a_time = self.most_at_a_time = 0

    def applies(self, trajectory: Trajectory, turn: Turn) -> Unscored | None:
        return Unscored("nothing to ask") if turn.reply == "nothing" else None

    async def score_batch(self, batch: Sequence[tuple[Trajectory, Turn]], services: Services) -> Sequence[Outcome]:
        self.asked.append((asyncio.get_running_loop().time(), [turn.trace_id for _, turn in batch]))
        self.num_at_a_time += 1
        self.most_at_a_time = max(self.most_at_a_time, self.num_at_a_time)
        try:
            await asyncio.sleep(self.takes_s)
        finally:
            self.num_at_a_time -= 1
        if self.is_away:
            raise UnavailableError("no engine answered")
        return [self.replies.get(turn.trace_id, Scored(1.0)) for _, turn in batch]


@pytest.fixture
def loop() -> Iterator[HurriedLoop]:
    made = HurriedLoop()
    yield made
    made.close()


@pytest.fixture
def make_patient() -> type[Patient]:
    return Patient


@pytest.fixture
def make_turn() -> Callable[..., Turn]:
    return turn


@pytest.fixture
def make_trajectory() -> Callable[..., Trajectory]:
    return trajectory


@pytest.fixture
def make_thumb() -> Callable[..., Feedback]:
    return thumb
