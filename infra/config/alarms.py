"""What stops an update from being published, and how the learning rate follows the health of a step."""

from enum import StrEnum

from pydantic import Field

from infra.config.base import AnyShare, Section, Share


class LrByEss(StrEnum):
    """What a step's effective sample size does to its learning rate."""

    NONE = "none"
    SQRT = "sqrt"
    LINEAR = "linear"


class AlarmsConfig(Section):
    """Bounds: an update beyond one of them is not published, and what it did to the weights is undone. Null: none."""

    max_skipped: Share = Field(0.4, description="share of steps whose loss or gradient is not finite")
    min_ess: AnyShare | None = Field(
        0.3, description="effective sample size, a share of the tokens: below, a few tokens carry the whole gradient"
    )
    max_kl: float | None = Field(0.2, gt=0.0, description="from the served policy to the update, nats a token")
    max_mismatch: float | None = Field(
        0.2, gt=0.0, description="from the served policy to the learner before its first step, nats a token"
    )
    max_entropy_change: float | None = Field(
        0.5, gt=0.0, description="share by which entropy is below or above what it was over the last updates"
    )
    max_gradient_rise: float | None = Field(
        10.0, gt=1.0, description="times the gradient's norm is of what it was over the last updates"
    )
    max_reward_jump: float | None = Field(
        6.0, gt=0.0, description="deviations by which a batch's mean reward is above or below that of the last batches"
    )
    min_updates: int = Field(8, ge=2, description="updates before the alarms that look at the last ones speak")
