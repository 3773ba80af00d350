"""The reward spec: which scorers make the reward, what silence is worth, and what guards against the reward itself.

    name: thumbs
    components:                       # summed into the reward, each in [0, 1], by weight
      - {name: thumb, scorer: feedback, weight: 1.0, params: {names: [thumb]}}
      - {name: solved, scorer: feedback, params: {names: [outcome]}, credit: chain}      # reaches all that led to it
      - {name: faithfulness, scorer: faithfulness, weight: 0, factor: true}              # multiplies the other parts
      - {name: brevity, scorer: reply, params: {max_words: 90}, anneal: {start: 3, end: 10}}     # gone by version 10
    silence: 0.5                      # a session's value when no component scored any of its turns
    silent_turns: unscored            # or a number: the reward of a turn that no component scored
    guardrails:                       # behaviour rates in [0, 1] for the gate, higher is better, never in the reward
      - {name: completed, scorer: reply, params: {finish_reasons: [stop, length, tool_calls]}}

A spec in a file has the shipped default's guardrails besides its own, where it has nothing else of that name and
rewards nothing the same. A guardrail that scores as some component does is refused: what blocks a version must not be
what it was trained on.
How these become a reward is in `rewards.evaluate`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from infra.config import SCORED, Config
from infra.config.base import Rate
from infra.errors import ConfigError
from infra.explain import explain
from ingest.records.events import TurnKind, content_id
from rewards import plugins
from rewards.scorers import AnyScorer, BatchScorer, Scorer, kinds_of

_SHIPPED = resources.files("rewards").joinpath("default.yaml")

Label = Annotated[str, Field(min_length=1, max_length=64)]


def _share(given: object) -> float:
    """How much of the chain's mean: 0 for `turn`, 1 for `chain`, w for `{chain: w}`."""
    match given:
        case "turn":
            return 0.0
        case "chain":
            return 1.0
        case {"chain": int() | float() as share, **others} if not others and 0.0 < share < 1.0:
            return float(share)
    raise ValueError(f"must be `turn`, `chain`, or {{chain: w}} with w between 0 and 1, got {given!r}")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GuardrailSpec(_Part):
    """A behaviour rate: the mean of a scorer over a session's main turns."""

    name: Label
    scorer: str = Field(description="a built-in's name, an entry point, `module:Class` or `file.py:Class`")
    params: dict[str, Any] = Field({}, description="the scorer's keyword parameters")


class Anneal(_Part):
    """A weight that is full up to version `start`, exactly 0 from version `end` on, and linear between."""

    start: int = Field(ge=0)
    end: int

    @model_validator(mode="after")
    def _ends_later(self) -> "Anneal":
        if self.end <= self.start:
            raise ValueError(f"`end` must be a later version than `start`, {self.start}, got {self.end}")
        return self

    def strength(self, versions: Sequence[int]) -> float:
        """In [0, 1], for a turn that these versions sampled; 1 where none is known."""
        if not versions:
            return 1.0
        return min(1.0, max(0.0, (self.end - max(versions)) / (self.end - self.start)))


class ComponentSpec(GuardrailSpec):
    """A part of the reward."""

    weight: float = Field(1.0, ge=0.0, allow_inf_nan=False)
    credit: Annotated[float, BeforeValidator(_share)] = Field(0.0, description="the chain's share; see `_share`")
    factor: bool = Field(False, description="its value multiplies every part of the same turn")
    anneal: Anneal | None = None

    @model_validator(mode="after")
    def _does_something(self) -> "ComponentSpec":
        if self.weight == 0.0 and not self.factor:
            raise ValueError(f"{self.name}: `weight` must be above 0 where it is no factor, got 0")
        return self


class RewardSpec(_Part):
    """A reward spec as its file says it."""

    name: Label
    components: tuple[ComponentSpec, ...] = Field(min_length=1)
    silence: Rate = 0.5
    silent_turns: Literal["unscored"] | Rate = "unscored"
    guardrails: tuple[GuardrailSpec, ...] = ()

    @model_validator(mode="after")
    def _adds_up(self) -> "RewardSpec":
        names = [part.name for part in (*self.components, *self.guardrails)]
        if len(set(names)) != len(names):
            raise ValueError(f"names of components and guardrails must differ, got {names}")
        if not any(part.weight for part in self.components):
            raise ValueError(f"some component must have a weight above 0, got {names}")
        return self


@dataclass(frozen=True)
class Scoring:
    """A spec with its scorers built. `id` is what rewards carry: the spec's name and a digest of all that scores."""

    spec: RewardSpec
    components: tuple[AnyScorer, ...]
    guardrails: tuple[Scorer, ...]
    id: str


def load(path: str) -> Scoring:
    """Read a spec file, or the shipped default when `path` is empty, and build its scorers.

    Raises:
        ConfigError: the file cannot be used, a scorer cannot be built, or a guardrail is part of the reward.
    """
    source: Path | Traversable = Path(path).absolute() if path else _SHIPPED
    try:
        spec = RewardSpec.model_validate(_read(source))
        return build(_with_shipped_guardrails(spec) if path else spec)
    except ValidationError as exc:
        lines = [f"  {explain(error, RewardSpec)}" for error in exc.errors()]
        raise ConfigError("\n".join([f"reward spec {source}:", *lines])) from exc
    except ConfigError as exc:
        raise ConfigError(f"reward spec {source}: {exc}") from exc


def _read(source: Path | Traversable) -> Any:
    try:
        return yaml.safe_load(source.read_text())
    except FileNotFoundError as exc:
        raise ConfigError("no such file") from exc
    except (OSError, yaml.YAMLError) as exc:
        raise ConfigError(f"not readable as YAML: {exc}") from exc


def _with_shipped_guardrails(spec: RewardSpec) -> RewardSpec:
    """A spec, and the guardrails of the shipped default that it neither has by another rule nor rewards."""
    names = {part.name for part in (*spec.components, *spec.guardrails)}
    rewarded = [plugins.make(part.scorer, part.params) for part in spec.components]
    more = tuple(
        part
        for part in RewardSpec.model_validate(_read(_SHIPPED)).guardrails
        if part.name not in names and plugins.make(part.scorer, part.params) not in rewarded
    )
    return spec.model_copy(update={"guardrails": spec.guardrails + more})


def of(config: Config) -> Scoring:
    """The reward spec that a configuration names.

    Raises:
        ConfigError: as `load` does, or the gate asks for a guardrail that the spec does not have.
    """
    scoring = load(config.rewards.spec)
    known = [*(guardrail.name for guardrail in scoring.spec.guardrails), SCORED]
    for asked in config.serving.rollout.gate.guardrails:
        if asked.required and asked.name not in known:
            raise ConfigError(
                f"serving.rollout.gate.guardrails: {asked.name!r} must be a guardrail of the reward spec "
                f"{scoring.spec.name!r}, which has {', '.join(known) or 'none'}; no version could ever be promoted"
            )
    return scoring


def build(spec: RewardSpec) -> Scoring:
    """Build a spec's scorers. Raises `ConfigError` as `load` does."""
    components = tuple(plugins.make(part.scorer, part.params) for part in spec.components)
    guardrails = tuple(_guardrail(part) for part in spec.guardrails)
    _check_disjoint(spec, components, guardrails)
    scorers = [[scorer.name, scorer.version, *sorted(kinds_of(scorer))] for scorer in (*components, *guardrails)]
    digest = content_id(spec.model_dump_json(), json.dumps(scorers))
    return Scoring(spec, components, guardrails, f"{spec.name}@{digest[:12]}")


def _guardrail(part: GuardrailSpec) -> Scorer:
    scorer = plugins.make(part.scorer, part.params)
    if isinstance(scorer, BatchScorer):
        raise ConfigError(f"guardrail {part.name!r}: must be told at once, but scorer {part.scorer!r} waits for others")
    if TurnKind.MAIN not in kinds_of(scorer):
        raise ConfigError(f"guardrail {part.name!r}: must score main turns, but scorer {part.scorer!r} never does")
    return scorer


def _check_disjoint(spec: RewardSpec, components: Sequence[AnyScorer], guardrails: Sequence[Scorer]) -> None:
    for guardrail, guarding in zip(spec.guardrails, guardrails, strict=True):
        for component, rewarding in zip(spec.components, components, strict=True):
            is_same = (guardrail.scorer, guardrail.params) == (component.scorer, component.params)
            if is_same or guarding == rewarding:
                raise ConfigError(
                    f"guardrail {guardrail.name!r}: must not be part of the reward, but scores as component "
                    f"{component.name!r} does"
                )
