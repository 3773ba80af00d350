"""What of a model trains."""

from pydantic import Field

from infra.config.base import Section


class LoraConfig(Section):
    """Adapters in place of all weights: see `trainer/learner/adapters.py`."""

    rank: int = Field(16, ge=1, description="of the two matrices that stand for a layer's change")
    alpha: float = Field(32.0, gt=0.0, description="their product counts alpha / rank times")
    targets: tuple[str, ...] = Field((), description="last names of the layers; empty: all linear ones but the head")
