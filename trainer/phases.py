"""What the trainer is doing, as a table.

A trial alone is nothing to wait for: the learner goes on from the candidate. It waits once the version in the making
takes no more turns, where `trainer.train_during_trials` says so, and while a version that is not its own is on trial.
"""

from collections.abc import Mapping
from enum import StrEnum

from infra.errors import TransitionError


class Phase(StrEnum):
    """What the trainer is doing."""

    WAITING = "waiting for a stable version"
    COLLECTING = "collecting"
    UPDATING = "updating"
    TRIAL = "waiting for the trial's decision"


ALLOWED: Mapping[Phase, frozenset[Phase]] = {
    Phase.WAITING: frozenset({Phase.COLLECTING, Phase.TRIAL}),
    Phase.COLLECTING: frozenset({Phase.UPDATING, Phase.TRIAL}),
    Phase.UPDATING: frozenset({Phase.COLLECTING, Phase.TRIAL}),
    Phase.TRIAL: frozenset({Phase.COLLECTING, Phase.UPDATING}),
}


def step(now: Phase, then: Phase) -> Phase:
    """`then`, if the table has the step.

    Raises:
        TransitionError: the table has no such step.
    """
    if then not in ALLOWED[now]:
        allowed = ", ".join(sorted(ALLOWED[now]))
        raise TransitionError(f"a trainer that is {now} may go on to {allowed}, not {then}")
    return then
