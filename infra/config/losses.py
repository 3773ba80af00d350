"""The trainer's loss, which one and how far a token may be pushed, and how sequences are laid out for it."""

from collections.abc import Mapping
from enum import StrEnum

from pydantic import Field, model_validator

from infra.config.base import Section


class LossKind(StrEnum):
    """See `trainer/learner/losses.py`."""

    GRPO = "grpo"
    DR_GRPO = "dr_grpo"
    GSPO = "gspo"
    CISPO = "cispo"
    LIKELIHOOD = "likelihood"


class Correction(StrEnum):
    """What is done about tokens that an older policy sampled, apart from the clip."""

    BYPASS = "bypass"
    TRUNCATE = "truncate"
    MASK = "mask"


class StaleNegatives(StrEnum):
    """What bounds a token with a negative advantage that is likelier now than when it was sampled."""

    DUAL_CLIP = "dual_clip"
    TAPER = "taper"


class Packing(StrEnum):
    """How samples stand in the rows of a forward pass: see `trainer/learner/packing.py`."""

    ROWS = "rows"
    PACKED = "packed"
    SHARED = "shared"


_OF_PAPERS: Mapping[str, Mapping[str, float | Correction]] = {
    LossKind.GSPO: {"clip_low": 3e-4, "clip_high": 4e-4, "correction": Correction.BYPASS},
    LossKind.CISPO: {"clip_high": 4.0, "correction": Correction.BYPASS},
}
"""Where that is not the fields' defaults. A turn's ratio is far closer to 1 than a token's."""
_AROUND_WHO_SERVED: Mapping[str, float] = {"clip_low": 0.2, "clip_high": 0.28}
"""DAPO's (arXiv 2503.14476), for ratios that have all in them that the policy moved since it served."""


class LossConfig(Section):
    """The policy loss."""

    kind: LossKind = LossKind.DR_GRPO
    clip_low: float = Field(
        0.025, gt=0.0, lt=1.0, description="unless given 0.2 with `bypass`, 3e-4 with gspo; cispo has none"
    )
    clip_high: float = Field(0.035, gt=0.0, description="unless given 0.28 with `bypass`, 4e-4 with gspo, 4 with cispo")
    max_importance_weight: float = Field(2.0, gt=1.0, description="of a token with a negative advantage")
    negatives: StaleNegatives = Field(StaleNegatives.DUAL_CLIP, description="`taper`: weight min(ratio, 1), never 0")
    correction: Correction = Field(
        Correction.TRUNCATE,
        description="`bypass`: the clip is against the served policy, and stops what has moved since; else against the "
        "policy as the update began, and the weight of that against the served one is truncated or masked; costs a "
        "forward pass of all but an update's first minibatch. gspo, cispo: `bypass` unless given",
    )
    min_correction: float = Field(0.5, gt=0.0, le=1.0, description="`mask`: tokens below train nothing")
    max_correction: float = Field(2.0, ge=1.0, description="`mask`: tokens above train nothing; `truncate`: at most")
    kl_coefficient: float = Field(
        0.0, ge=0.0, description="pull to stable, where an update begins; above 0 it costs a forward pass"
    )
    max_turn_tokens: int = Field(0, ge=0, description="dr_grpo divides by this a turn; 0: by the minibatch's tokens")
    hint_weight: float = Field(
        0.0,
        ge=0.0,
        description="pull of a corrected turn to what the policy says once it has read the correction; 0: none, above "
        "it a forward pass over corrected turns",
    )
    hint_feedback: str = Field(
        "correction", min_length=1, max_length=256, description="feedback that says: the next turn's prompt corrects me"
    )
    max_hint_gap: float = Field(
        2.0, gt=0.0, description="of a token, in nats; with a weight of 1 a nat pulls like an advantage of 1"
    )

    @property
    def hinted_by(self) -> str:
        """The name of feedback that makes a turn a corrected one; empty: none does."""
        return self.hint_feedback if self.hint_weight else ""

    @model_validator(mode="before")
    @classmethod
    def _with_defaults_of_its_kind(cls, given: object) -> object:
        if not isinstance(given, Mapping):
            return given
        found = {**_OF_PAPERS.get(given.get("kind", ""), {}), **given}
        return {**_AROUND_WHO_SERVED, **found} if found.get("correction") == Correction.BYPASS else found
