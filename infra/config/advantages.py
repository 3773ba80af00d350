"""What a turn's reward is measured against, and how much its trajectory counts."""

from enum import StrEnum

from pydantic import Field, model_validator

from infra.config.base import AnyShare, Section, Share


class TrajectoryWeight(StrEnum):
    """What of a trajectory's turns adds up to 1: see `trainer/advantages/batch.py`."""

    NONE = "none"
    TURNS = "turns"
    TOKENS = "tokens"


class BaselineConfig(Section):
    """The rewards to expect, by tenant, task, tools and kind of turn: see `trainer/advantages/baselines.py`."""

    half_life_nats: float = Field(0.06, gt=0.0, description="how far the policy moves until old turns count half")
    min_kept: AnyShare = Field(0.875, description="of what a key knew, once the policy moved: at least this")
    max_kept: Share = Field(0.96, description="and at most this with each turn: a key remembers 1 / (1 - it) of them")
    pseudo_turns: float = Field(8.0, gt=0.0, description="a key is shrunk to its parent as if by this many turns")
    max_keys: int = Field(4096, ge=1, description="those that count least are forgotten first")

    @model_validator(mode="after")
    def _ordered(self) -> "BaselineConfig":
        if self.min_kept > self.max_kept:
            raise ValueError(f"min_kept must be at most max_kept, got {self.min_kept:g} and {self.max_kept:g}")
        return self
