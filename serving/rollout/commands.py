"""What operators can ask of the rollout, over its port: `POST /command` with the control credential."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from ingest.records.events import Frozen


class Do(StrEnum):
    """What to do."""

    PAUSE = "pause"  # no trial begins and nothing is promoted; harm is acted on still
    RESUME = "resume"  # ends pause, pin and freeze
    PROMOTE = "promote"  # what the gate has passed and waits for approval
    REJECT = "reject"  # the candidate that is on trial
    ROLLBACK = "rollback"  # to the version before, or an older one
    PIN = "pin"  # stable stays what it is, and no trial runs
    FREEZE = "freeze"  # nothing changes but by an operator, and nobody learns


class Command(Frozen):
    """The body of `POST /command`. `version` is what to return to, or the candidate or stable version meant."""

    do: Do
    author: Annotated[str, Field(min_length=1, max_length=200)]
    reason: Annotated[str, Field(min_length=1, max_length=1000)]
    version: int | None = Field(None, ge=0)


class Done(Frozen):
    """The answer (200): the release that was written, and what it does in one sentence."""

    release: int
    told: str


class Refused(Frozen):
    """The answer to what is not done: 409 where the state forbids it, 400 for the body, 401 for the credential."""

    error: str
