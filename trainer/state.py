"""What a checkpoint says beside the learner's own files: where training stands, and what is owed.

The learner stands on up to three places, each a `Standing`:

    fallback             stable: what a rejection returns to. None where the learner stands on stable itself
    candidate.standing   the version on trial, as it was published
    the state's own      here: stable, the candidate, or the version in the making that goes on from one of them

What trained in the candidate or in the version in the making is `Used`: its fate is told with the decision, and not at
all where that gives the turns back to the log. So a trace has one fate, however often it trained in vain.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

from ingest.log.protocol import Positions
from ingest.records.events import Fate, FateKind
from ingest.store.releases import Known
from trainer.advantages.baselines import Baselines
from trainer.alarms import Health

MAX_FATED = 65_536
"""Traces remembered, so that a reward that comes again trains nothing: an outage's worth of repetitions, 3 MB. What
comes later about others is known to come again by its revision, or by where it lies (`trainer.inbox`)."""

MAX_WAITING = 65_536
"""Traces that may wait for late feedback to score them, in the checkpoint too: 4 MB. Beyond, the oldest are refused."""

Offsets = dict[str, dict[int, int]]
"""Positions as JSON keeps them: topic, partition, offset."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Used(_Frozen):
    """Traces that ended alike in a version that is not decided. Their first reward was made at `rewarded_at`."""

    trace_ids: tuple[str, ...]
    kind: FateKind
    reason: str = ""
    rewarded_at: float = 0.0

    def fate(self, version: int, at: float) -> Fate:
        """As it is told once `version` is decided."""
        is_trained = self.kind is FateKind.TRAINED
        reason = f"trained in version {version}" if is_trained else self.reason
        return Fate(
            trace_ids=self.trace_ids, kind=self.kind, version=version if is_trained else None, reason=reason, at=at
        )


class Standing(_Frozen):
    """A place the learner can stand on: `learner` is `None` for the parent's weights in the store."""

    learner: str | None
    baselines: Baselines
    seen: dict[str, tuple[str, ...]] = {}
    offsets: Offsets = {}


class CandidateVersion(_Frozen):
    """A version trained from `parent`, published or about to be, whose trial is not decided.

    `context` is the trace context of its last training step, as headers, and `contexts` those of the steps before: a
    restart publishes in the same trace. `settings` are those that it was made with.
    """

    version: int
    parent: int
    trace_ids: tuple[str, ...]
    spec: str
    metrics: dict[str, float]
    at: float
    standing: Standing
    used: tuple[Used, ...] = ()
    is_published: bool = False
    context: dict[str, str] = {}
    contexts: tuple[dict[str, str], ...] = ()
    settings: dict[str, Any] = {}


class Making(_Frozen):
    """A version in the making: what it has used so far, and how healthy its last step was.

    `alarm` is why a step was undone that would have been its next; with `is_due` the version that it goes on from was
    promoted since. `metrics` are over all of its `num_updates`.
    """

    begun_at: float
    used: tuple[Used, ...] = ()
    num_traces: int = 0
    num_updates: int = 0
    num_turns: int = 0
    specs: tuple[str, ...] = ()
    metrics: dict[str, float] = {}
    ess: float = 1.0
    stable_kl: float | None = None
    alarm: str | None = None
    is_due: bool = False
    contexts: tuple[dict[str, str], ...] = ()

    def using(self, used: tuple["Used", ...]) -> "Making":
        """With more that it used."""
        num_traces = self.num_traces + len(names_of(used))
        return self.model_copy(update={"used": (*self.used, *used), "num_traces": num_traces})

    @property
    def trained(self) -> tuple[str, ...]:
        """The traces that train in it, in the order in which they did."""
        return tuple(name for one in self.used if one.kind is FateKind.TRAINED for name in one.trace_ids)


class State(_Frozen):
    """A checkpoint.

    `base` is the stable version the learner stands on, or goes on from, and `learner` names its folder (`None`: the
    store's weights of `base`, fresh optimiser). `loaded` is the version whose weights were taken from the store last:
    adapters are changes of them. `fates` are decided but not yet confirmed by the log. `fated` are the
    last traces that were given one, and `seen` the sketches of the prompts that trained last, by tenant: without them a
    restart would weigh the same turns otherwise. `began` is where each partition was first read, `passed` is
    where it had been read to before a decision led back. `moved` are traces without a fate that are owed to a later
    reward, and `waiting` those that no reward scored yet, by when they were rewarded (`trainer.inbox`).
    `health` is what alarms compare the next update with. `known` is what was read of the release log.
    """

    step: int = 0
    base: int | None = None
    learner: str | None = None
    loaded: int | None = None
    baselines: Baselines = Baselines()
    seen: dict[str, tuple[str, ...]] = {}
    offsets: Offsets = {}
    began: Offsets = {}
    passed: Offsets = {}
    making: Making | None = None
    candidate: CandidateVersion | None = None
    fallback: Standing | None = None
    fates: tuple[Fate, ...] = ()
    fated: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()
    waiting: dict[str, float] = {}
    mean_reward: float | None = None
    health: Health = Health()
    known: Known | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_one_batch(cls, given: Any) -> Any:
        """Before versions grew while one was on trial a candidate was where the learner stood, its fates were told, and
        no position was ever gone back to."""
        if not isinstance(given, dict) or not isinstance(candidate := given.get("candidate"), dict):
            return given
        if "standing" in candidate:
            return given
        here = {name: given[name] for name in ("learner", "baselines", "seen", "offsets") if name in given}
        fallback = {"offsets": given.get("offsets", {}), **(given.get("fallback") or {})}
        return {**given, "candidate": {**candidate, "standing": here}, "fallback": fallback}

    @property
    def positions(self) -> Positions:
        return {**as_positions(self.began), **as_positions(self.offsets)}

    @property
    def standing(self) -> Standing:
        """Here."""
        return Standing(learner=self.learner, baselines=self.baselines, seen=self.seen, offsets=self.offsets)

    @property
    def stable_learner(self) -> str | None:
        """The folder of the learner that stands on stable; `None`: the store has its weights."""
        return (self.fallback or self.standing).learner

    @property
    def learners(self) -> frozenset[str]:
        """The learner folders that it needs."""
        places = (self.standing, self.fallback, self.candidate.standing if self.candidate else None)
        return frozenset(place.learner for place in places if place and place.learner is not None)

    @property
    def used(self) -> tuple[Used, ...]:
        """What has been used and has no fate yet."""
        return (*(self.candidate.used if self.candidate else ()), *(self.making.used if self.making else ()))

    def owing(self, fates: Iterable[Fate]) -> "State":
        """With more fates to tell."""
        more = tuple(fates)
        names = dict.fromkeys(name for fate in more for name in fate.trace_ids)
        return self.model_copy(
            update={
                "fates": (*self.fates, *more),
                "fated": (*self.fated, *names)[-MAX_FATED:],
                "moved": tuple(name for name in self.moved if name not in names),
                "waiting": {name: at for name, at in self.waiting.items() if name not in names},
            },
        )


def furthest(one: Offsets, other: Offsets) -> Offsets:
    """The later of two positions in each partition."""
    found = {topic: dict(parts) for topic, parts in one.items()}
    for topic, parts in other.items():
        own = found.setdefault(topic, {})
        own.update({part: max(at, own.get(part, at)) for part, at in parts.items()})
    return found


def as_offsets(positions: Positions) -> Offsets:
    """Positions in the form `State` keeps them."""
    offsets: Offsets = {}
    for (topic, partition), offset in positions.items():
        offsets.setdefault(topic, {})[partition] = offset
    return offsets


def as_positions(offsets: Mapping[str, Mapping[int, int]]) -> Positions:
    """The way back."""
    return {(topic, part): offset for topic, parts in offsets.items() for part, offset in parts.items()}


def names_of(used: Iterable[Used]) -> tuple[str, ...]:
    """Their traces."""
    return tuple(name for one in used for name in one.trace_ids)
