"""What the trainer is doing, as a table."""

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
    Phase.COLLECTING: frozenset({Phase.UPDATING}),
    Phase.UPDATING: frozenset({Phase.TRIAL, Phase.COLLECTING}),
    Phase.TRIAL: frozenset({Phase.COLLECTING}),
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
