"""What telemetry hears of the rollout: the state of the trial and of what is served, whenever somebody reads it."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from infra import telemetry
from infra.telemetry import metrics, names
from infra.telemetry.instruments import Labels
from ingest.records.events import Arm, Mode, TrialState
from ingest.store.releases import Served
from serving.rollout.evidence import Standing
from serving.rollout.evidence.lines import by_outcome

IDLE = "idle"
Points = Iterable[tuple[float, Labels]]


class Controller(Protocol):
    """What is looked at, from another thread: each is replaced as a whole."""

    @property
    def served(self) -> Served: ...

    @property
    def standing(self) -> Standing | None: ...


def observe(rollout: Controller) -> None:
    """Tell of `rollout` from now on."""
    telemetry.observe(metrics.STABLE_VERSION, lambda: _one(rollout.served.stable))
    telemetry.observe(metrics.ASSIGNED_VERSION, lambda: _by(rollout.served.engines, names.ENGINE))
    telemetry.observe(metrics.TRIAL_STATE, lambda: _states(rollout.served.state))
    telemetry.observe(metrics.TRIAL_CANDIDATE, lambda: _one(rollout.served.on_trial))
    telemetry.observe(metrics.TRIAL_SHARE, lambda: rollout.served.share)
    telemetry.observe(metrics.HOLDBACK_VERSION, lambda: _one(rollout.served.holdback))
    telemetry.observe(metrics.MODE, lambda: _modes(rollout.served.mode))
    telemetry.observe(metrics.RELEASE_LAST, lambda: rollout.served.last)
    telemetry.observe(metrics.TRIAL_LOG_E, lambda: _by(by_outcome(_of_canary(rollout), "log_e."), names.OUTCOME))
    telemetry.observe(metrics.TRIAL_LOG_HARM, lambda: _by(by_outcome(numbers_of(rollout), "log_harm."), names.OUTCOME))
    telemetry.observe(metrics.TRIAL_LOG_THRESHOLD, lambda: _one(_of_canary(rollout).get("log_threshold")))
    telemetry.observe(metrics.TRIAL_LOG_MISMATCH, lambda: _one(numbers_of(rollout).get("log_mismatch")))
    telemetry.observe(metrics.TRIAL_USERS_NEEDED, lambda: _one(_of_canary(rollout).get("users_needed.promote")))
    telemetry.observe(metrics.TRIAL_AGE, lambda: _one(numbers_of(rollout).get("age_s")))
    telemetry.observe(metrics.TRIAL_UNITS, lambda: _units(numbers_of(rollout)))
    telemetry.observe(metrics.TRIAL_OUTCOME, lambda: _means(numbers_of(rollout)))


def numbers_of(rollout: Controller) -> dict[str, float]:
    """What the gate or the watch stands on; nothing while sessions are not split."""
    served = rollout.served
    is_split = served.state is TrialState.CANARY or served.holdback is not None
    return rollout.standing.numbers if rollout.standing is not None and is_split else {}


def _of_canary(rollout: Controller) -> dict[str, float]:
    """What leads to a promotion: a watch does not."""
    return numbers_of(rollout) if rollout.served.state is TrialState.CANARY else {}


def _one(value: float | None) -> Points:
    return [] if value is None else [(value, {})]


def _by(found: Mapping[str, float], label: str) -> Points:
    return [(value, {label: name}) for name, value in found.items()]


def _modes(now: Mode) -> Points:
    return [(int(one is now), {names.MODE: one.value}) for one in Mode]


def _states(now: TrialState | None) -> Points:
    told = IDLE if now is None else now.value
    return [(int(told == one), {names.STATE: one}) for one in (IDLE, *(state.value for state in TrialState))]


def _units(numbers: dict[str, float]) -> Points:
    return [(numbers[name], {names.ARM: arm.value}) for arm in Arm if (name := f"units.{arm}") in numbers]


def _means(numbers: dict[str, float]) -> Points:
    return [
        (numbers[f"{name}.{arm}"], {names.OUTCOME: name, names.ARM: arm.value})
        for name in by_outcome(numbers, "log_harm.")
        for arm in Arm
        if f"{name}.{arm}" in numbers
    ]
