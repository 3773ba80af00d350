"""What stops an update from being published: bounds on its numbers, and on how they differ from the last ones.

| alarm | what it sees | bound, in `trainer.alarms` |
|---|---|---|
| not finite | steps whose loss or gradient was not finite | `max_skipped` |
| mismatch | before its first step the learner was not the policy that was served | `max_mismatch` |
| ess | few tokens carry the whole gradient | `min_ess` |
| kl | the update left the policy that was served | `max_kl` |
| entropy | the policy narrows, or comes apart | `max_entropy_change` |
| gradient | a step like none before it | `max_gradient_rise` |
| reward | rewards like none before them: a broken scorer, or a hack | `max_reward_jump` |

The first that is left is told, in this order: a mismatch explains few effective samples and a KL. verl's limits for
data of the same version are 0.3 for the ESS and 0.1 for the KL; twice that KL allows turns one promotion of age.

The last three look at the updates before, and speak once there are `min_updates`. Those include ones whose turns were
refused for it, so a level that is new to stay costs some batches and is then taken for granted; and none whose turns
come again (`trainer.steps`). Pure.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from infra.config import AlarmsConfig
from trainer.learner.update import UpdateMetrics

MEMORY = 10
"""Updates in a running mean: plain over the first ten, then each new one counts a tenth."""
LEAST_DEVIATION = 0.01
"""Of rewards' means in [0, 1]: what differs by less is the same, however steady it was."""


class AlarmKind(StrEnum):
    """Which bound was left."""

    NOT_FINITE = "not finite"
    MISMATCH = "mismatch"
    ESS = "ess"
    KL = "kl"
    ENTROPY = "entropy"
    GRADIENT = "gradient"
    REWARD = "reward"


@dataclass(frozen=True)
class Alarm:
    """Why an update must not be published; `told` is the sentence an operator reads."""

    kind: AlarmKind
    told: str


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Running(_Frozen):
    """A number's mean and variance over the last updates."""

    num: int = 0
    mean: float = 0.0
    variance: float = 0.0

    def after(self, value: float) -> "Running":
        """With one more; one that is not finite says nothing."""
        if not math.isfinite(value):
            return self
        weight, surprise = 1.0 / min(self.num + 1, MEMORY), value - self.mean
        variance = (1.0 - weight) * (self.variance + weight * surprise**2)
        return Running(num=self.num + 1, mean=self.mean + weight * surprise, variance=variance)


@dataclass(frozen=True)
class Measured:
    """An update: its rewards under `spec` with the standard error of their mean, and what the learner told."""

    spec: str
    reward: float
    reward_error: float
    update: UpdateMetrics


class Health(_Frozen):
    """What was usual over the last updates; rewards under one spec, those of another begin anew."""

    spec: str = ""
    reward: Running = Running()
    entropy: Running = Running()
    grad_norm: Running = Running()

    def after(self, seen: Measured) -> "Health":
        """With one update more, whatever became of it."""
        reward = self.reward if seen.spec == self.spec else Running()
        return Health(
            spec=seen.spec,
            reward=reward.after(seen.reward),
            entropy=self.entropy.after(seen.update.entropy),
            grad_norm=self.grad_norm.after(seen.update.grad_norm),
        )


def alarm(seen: Measured, health: Health, bounds: AlarmsConfig) -> Alarm | None:
    """The first bound that an update left; `None` when nothing speaks against it. `health` is from before it."""
    told = (*_alone(seen.update, bounds), *_unlike(seen, health, bounds))
    return Alarm(*told[0]) if told else None


_Told = tuple[AlarmKind, str]


def _alone(update: UpdateMetrics, bounds: AlarmsConfig) -> Iterator[_Told]:
    """By an update's own numbers. A bound is left by what is not a number, too."""
    num, skipped = update.num_steps, update.num_skipped
    if skipped == num or skipped > bounds.max_skipped * num:
        yield (
            AlarmKind.NOT_FINITE,
            f"{skipped} of {num} steps had a loss or gradient that is not finite, "
            f"must be at most {bounds.max_skipped:g} of them (trainer.alarms.max_skipped)",
        )
    if bounds.max_mismatch is not None and not abs(update.mismatch_k1) <= bounds.max_mismatch:
        yield (
            AlarmKind.MISMATCH,
            f"KL from the served policy to the learner before its first step {update.mismatch_k1:.3f} nats per token "
            f"(k3 {update.mismatch_k3:.3f}), must be at most {bounds.max_mismatch:g} (trainer.alarms.max_mismatch)",
        )
    if bounds.min_ess is not None and not update.ess >= bounds.min_ess:
        yield (
            AlarmKind.ESS,
            f"effective sample size {update.ess:.2f} of the tokens, must be at least {bounds.min_ess:g} "
            "(trainer.alarms.min_ess)",
        )
    if bounds.max_kl is not None and not abs(update.kl) <= bounds.max_kl:
        yield (
            AlarmKind.KL,
            f"KL to the served policy {update.kl:.3f} nats per token, must be at most {bounds.max_kl:g} "
            "(trainer.alarms.max_kl)",
        )


def _unlike(seen: Measured, health: Health, bounds: AlarmsConfig) -> Iterator[_Told]:
    """By how an update differs from those before."""
    entropy, gradient, update = health.entropy, health.grad_norm, seen.update
    if bounds.max_entropy_change is not None and entropy.num >= bounds.min_updates and entropy.mean > 0.0:
        change = update.entropy / entropy.mean - 1.0  # not a number where it was not measured, which is no alarm
        if abs(change) > bounds.max_entropy_change:
            yield (
                AlarmKind.ENTROPY,
                f"entropy {update.entropy:.3f} nats per token, {change:+.0%} of what it was ({entropy.mean:.3f}), must "
                f"be within {bounds.max_entropy_change:.0%} (trainer.alarms.max_entropy_change)",
            )
    if bounds.max_gradient_rise is not None and gradient.num >= bounds.min_updates and gradient.mean > 0.0:
        rise = update.grad_norm / gradient.mean
        if rise > bounds.max_gradient_rise:
            yield (
                AlarmKind.GRADIENT,
                f"gradient norm {update.grad_norm:.3g}, {rise:.1f} times what it was ({gradient.mean:.3g}), must be at "
                f"most {bounds.max_gradient_rise:g} times (trainer.alarms.max_gradient_rise)",
            )
    reward = health.reward
    if bounds.max_reward_jump is None or seen.spec != health.spec or reward.num < bounds.min_updates:
        return
    deviation = max(LEAST_DEVIATION, math.sqrt(reward.variance + seen.reward_error**2))
    jump = (seen.reward - reward.mean) / deviation
    if not abs(jump) <= bounds.max_reward_jump:
        yield (
            AlarmKind.REWARD,
            f"mean reward {seen.reward:.3f}, {jump:+.1f} deviations from what it was ({reward.mean:.3f}), must be "
            f"within {bounds.max_reward_jump:g} (trainer.alarms.max_reward_jump)",
        )
