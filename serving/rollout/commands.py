"""What operators can ask of the rollout, over its port: `POST /command` with the control credential."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from ingest.records.events import Frozen, Mode, TrialState
from ingest.store.releases import Served
from serving.rollout.evidence import Standing, Verdict


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


@dataclass(frozen=True)
class Held:
    """Where versions are: by engine that answers, what it serves or holds ready, and whether the store has one."""

    engines: Mapping[str, frozenset[int]]
    is_stored: Callable[[int], bool]

    def lacking(self, version: int) -> tuple[str, ...]:
        """Engines that could not load a version: they do not hold it, and the store has it not."""
        without = tuple(sorted(name for name, held in self.engines.items() if version not in held))
        return () if not without or self.is_stored(version) else without


@dataclass(frozen=True)
class Change:
    """What an accepted command does: each that is set, in this order. `told` is one sentence."""

    told: str
    ends_trial: bool = False
    promotes: bool = False
    back_to: int | None = None
    mode: Mode | None = None


def decide(command: Command, served: Served, standing: Standing | None, held: Held) -> Change | Refused:
    """What a command does to what is served, or why it would break a rule. Pure."""
    match command.do:
        case Do.PROMOTE:
            return _promote(command, served, standing)
        case Do.REJECT:
            return _reject(command, served)
        case Do.ROLLBACK:
            return _roll_back(command, served, held)
        case Do.PIN:
            return _pin(command, served)
        case Do.PAUSE if served.mode is Mode.OPEN:
            return Change("no trial begins and nothing is promoted until it is resumed", mode=Mode.PAUSED)
        case Do.FREEZE if served.mode is not Mode.FROZEN:
            return Change("what is served stays as it is and nobody learns until it is resumed", mode=Mode.FROZEN)
        case Do.RESUME if served.mode is not Mode.OPEN:
            return Change(f"it was {served.mode}, and goes on", mode=Mode.OPEN)
    return Refused(
        error=f"{command.do}: it is {served.mode}; resume ends that"
        if command.do is not Do.RESUME
        else "resume: nothing is paused, pinned or frozen"
    )


def _promote(command: Command, served: Served, standing: Standing | None) -> Change | Refused:
    if (wrong := _not_on_trial(command, served)) is not None:
        return wrong
    if served.mode in (Mode.PINNED, Mode.FROZEN):
        return Refused(error=f"promote: it is {served.mode}; resume first")
    if served.state is not TrialState.CANARY:
        return Refused(error=f"promote: version {served.candidate} is {served.state}: no users met it yet")
    if standing is None or standing.verdict is not Verdict.PASS:
        stands = "nothing is known yet" if standing is None else standing.reason
        return Refused(error=f"promote: the gate has not passed version {served.candidate}: {stands}")
    return Change(f"version {served.candidate} is promoted, as the gate allows", promotes=True)


def _reject(command: Command, served: Served) -> Change | Refused:
    if (wrong := _not_on_trial(command, served)) is not None:
        return wrong
    return Change(f"version {served.candidate} is rejected", ends_trial=True)


def _not_on_trial(command: Command, served: Served) -> Refused | None:
    if served.on_trial is None:
        return Refused(error=f"{command.do}: no version is on trial")
    if command.version not in (None, served.on_trial):
        return Refused(error=f"{command.do}: version {served.on_trial} is on trial, got {command.version}")
    return None


def _roll_back(command: Command, served: Served, held: Held) -> Change | Refused:
    earlier = served.lineage[:-1]
    if not earlier:
        return Refused(error=f"rollback: there is no version before {served.stable}")
    target = earlier[-1] if command.version is None else command.version
    if target not in earlier:
        known = ", ".join(map(str, earlier))
        return Refused(error=f"rollback: must be to a version that was stable before ({known}), got {target}")
    if lacking := held.lacking(target):
        return Refused(error=f"rollback: version {target} is not in the store, nor held by {', '.join(lacking)}")
    told = f"version {served.stable} is taken back, version {target} serves everyone"
    return Change(told, ends_trial=served.on_trial is not None, back_to=target)


def _pin(command: Command, served: Served) -> Change | Refused:
    if served.mode in (Mode.PINNED, Mode.FROZEN):
        return Refused(error=f"pin: it is {served.mode}; resume ends that")
    if command.version not in (None, served.stable):
        return Refused(error=f"pin: version {served.stable} is stable, got {command.version}: roll back to that first")
    told = f"version {served.stable} stays stable, and there is no trial until it is resumed"
    return Change(told, ends_trial=served.on_trial is not None, mode=Mode.PINNED)
