"""Trajectories for the tests of this folder."""

from collections.abc import Callable
from typing import Any

import pytest

from ingest.events import CloseReason, Feedback, Trajectory, Turn, TurnKind


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


@pytest.fixture
def make_turn() -> Callable[..., Turn]:
    return turn


@pytest.fixture
def make_trajectory() -> Callable[..., Trajectory]:
    return trajectory


@pytest.fixture
def make_thumb() -> Callable[..., Feedback]:
    return thumb
