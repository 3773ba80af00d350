"""What a checkpoint says beside the learner's own files: where training stands, and what is owed."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from ingest.log.protocol import Positions
from ingest.records.events import Fate
from trainer.alarms import Health


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CandidateVersion(_Frozen):
    """A version trained from `parent`, published or about to be, whose trial is not decided.

    `context` is the trace context of the training step, as headers: a restart publishes in the same trace. `settings`
    are those that it was trained with, whatever the configuration says by the time it is published.
    """

    version: int
    parent: int
    trace_ids: tuple[str, ...]
    spec: str
    metrics: dict[str, float]
    at: float
    is_published: bool = False
    context: dict[str, str] = {}
    settings: dict[str, Any] = {}


class Fallback(_Frozen):
    """What a rejection returns to. `learner` is `None` where that is the parent's weights in the store."""

    learner: str | None
    baselines: dict[str, float]
    seen: dict[str, tuple[str, ...]] = {}


class State(_Frozen):
    """A checkpoint.

    `base` is the stable version the learner stands on and `learner` names its folder (`None`: the store's weights of
    `base`, fresh optimiser); while there is a `candidate`, `learner` is the candidate's. `fates` are decided but not
    yet confirmed by the log. `fated` are the last traces that were given one, and `seen` the sketches of the prompts
    that trained last, by tenant: without them a restart would weigh the same turns otherwise. `health` is what alarms
    compare the next update with.
    """

    step: int = 0
    base: int | None = None
    learner: str | None = None
    baselines: dict[str, float] = {}
    seen: dict[str, tuple[str, ...]] = {}
    candidate: CandidateVersion | None = None
    fallback: Fallback | None = None
    offsets: dict[str, dict[int, int]] = {}
    fates: tuple[Fate, ...] = ()
    fated: tuple[str, ...] = ()
    mean_reward: float | None = None
    health: Health = Health()

    @property
    def positions(self) -> Positions:
        return {(topic, part): offset for topic, parts in self.offsets.items() for part, offset in parts.items()}


def as_offsets(positions: Positions) -> dict[str, dict[int, int]]:
    """Positions in the form `State` keeps them."""
    offsets: dict[str, dict[int, int]] = {}
    for (topic, partition), offset in positions.items():
        offsets.setdefault(topic, {})[partition] = offset
    return offsets


def remember(fated: tuple[str, ...], more: Mapping[str, object], most: int) -> tuple[str, ...]:
    """The last `most` traces that were given a fate."""
    return (*fated, *more)[-most:]
