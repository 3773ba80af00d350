"""The reward spec: which scorers make the reward, what silence is worth, and what guards against the reward itself.

    name: thumbs
    components:                       # summed into the reward, each in [0, 1], by weight
      - {name: thumb, scorer: feedback, weight: 1.0, params: {names: [thumb]}}
    silence: 0.5                      # a session's value when no component scored any of its turns
    silent_turns: unscored            # or a number: the reward of a turn that no component scored
    guardrails:                       # behaviour rates in [0, 1] for the gate, higher is better, never in the reward
      - {name: completed, scorer: reply, params: {finish_reasons: [stop, length]}}

A guardrail that scores as some component does is refused: what blocks a version must not be what it was trained on.
"""

import json
import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from infra.config import Config
from infra.errors import ConfigError
from ingest.events import Component, Reward, Trajectory, Turn, TurnKind, TurnReward, content_id
from rewards import plugins
from rewards.scorers import Outcome, Scored, Scorer, Unscored

logger = logging.getLogger(__name__)

Rate = Annotated[float, Field(ge=0.0, le=1.0)]
Label = Annotated[str, Field(min_length=1, max_length=64)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GuardrailSpec(_Part):
    """A behaviour rate: the mean of a scorer over a session's main turns."""

    name: Label
    scorer: str = Field(description="a built-in's name, an entry point, `module:Class` or `file.py:Class`")
    params: dict[str, Any] = Field({}, description="the scorer's keyword parameters")


class ComponentSpec(GuardrailSpec):
    """A part of the reward."""

    weight: float = Field(1.0, gt=0.0)


class RewardSpec(_Part):
    """A reward spec as its file says it."""

    name: Label
    components: tuple[ComponentSpec, ...] = Field(min_length=1)
    silence: Rate = 0.5
    silent_turns: Literal["unscored"] | Rate = "unscored"
    guardrails: tuple[GuardrailSpec, ...] = ()

    @model_validator(mode="after")
    def _names_differ(self) -> "RewardSpec":
        names = [part.name for part in (*self.components, *self.guardrails)]
        if len(set(names)) != len(names):
            raise ValueError(f"names of components and guardrails must differ, got {names}")
        return self


@dataclass(frozen=True)
class Scoring:
    """A spec with its scorers built. `id` is what rewards carry: the spec's name and a digest of all that scores."""

    spec: RewardSpec
    components: tuple[Scorer, ...]
    guardrails: tuple[Scorer, ...]
    id: str


def load(path: str) -> Scoring:
    """Read a spec file, or the shipped default when `path` is empty, and build its scorers.

    Raises:
        ConfigError: the file cannot be used, a scorer cannot be built, or a guardrail is part of the reward.
    """
    source = Path(path).absolute() if path else resources.files("rewards").joinpath("default.yaml")
    try:
        raw = yaml.safe_load(source.read_text())
    except FileNotFoundError as exc:
        raise ConfigError(f"reward spec {source}: no such file") from exc
    except (OSError, yaml.YAMLError) as exc:
        raise ConfigError(f"reward spec {source}: not readable as YAML: {exc}") from exc
    try:
        return build(RewardSpec.model_validate(raw))
    except ValidationError as exc:
        lines = [f"  {'.'.join(str(part) for part in error['loc'])}: {error['msg']}" for error in exc.errors()]
        raise ConfigError("\n".join([f"reward spec {source}:", *lines])) from exc
    except ConfigError as exc:
        raise ConfigError(f"reward spec {source}: {exc}") from exc


def of(config: Config) -> Scoring:
    """The reward spec that a configuration names.

    Raises:
        ConfigError: as `load` does, or the gate asks for a guardrail that the spec does not have.
    """
    scoring = load(config.rewards.spec)
    known = [guardrail.name for guardrail in scoring.spec.guardrails]
    for asked in config.serving.rollout.gate.guardrails:
        if asked.name not in known:
            raise ConfigError(
                f"serving.rollout.gate.guardrails: {asked.name!r} must be a guardrail of the reward spec "
                f"{scoring.spec.name!r}, which has {', '.join(known) or 'none'}; no version could ever be promoted"
            )
    return scoring


def build(spec: RewardSpec) -> Scoring:
    """Build a spec's scorers. Raises `ConfigError` as `load` does."""
    components = tuple(plugins.make(part.scorer, part.params) for part in spec.components)
    guardrails = tuple(plugins.make(part.scorer, part.params) for part in spec.guardrails)
    _check_disjoint(spec, components, guardrails)
    versions = [[scorer.name, scorer.version] for scorer in (*components, *guardrails)]
    digest = content_id(spec.model_dump_json(), json.dumps(versions))
    return Scoring(spec, components, guardrails, f"{spec.name}@{digest[:12]}")


def _check_disjoint(spec: RewardSpec, components: Sequence[Scorer], guardrails: Sequence[Scorer]) -> None:
    for guardrail, guarding in zip(spec.guardrails, guardrails, strict=True):
        for component, rewarding in zip(spec.components, components, strict=True):
            is_same = (guardrail.scorer, guardrail.params) == (component.scorer, component.params)
            if is_same or guarding == rewarding:
                raise ConfigError(
                    f"guardrail {guardrail.name!r}: must not be part of the reward, but scores as component "
                    f"{component.name!r} does"
                )


def evaluate(scoring: Scoring, trajectory: Trajectory, at: float) -> Reward:
    """The reward of a trajectory, made at `at`, in Unix seconds.

    A turn's reward is the weighted mean of the components that scored it. The session's value is the mean over its
    scored main turns. Side turns are served, never trained: they get neither.
    """
    turns = [turn for turn in trajectory.turns if turn.kind is not TurnKind.SIDE]
    components = [part for turn in turns for part in _score_turn(scoring, trajectory, turn)]
    weights = {part.name: part.weight for part in scoring.spec.components}
    values = {turn.trace_id: _weighted_mean(components, weights, turn.trace_id) for turn in turns}
    main = [value for turn in turns if turn.kind is TurnKind.MAIN and (value := values[turn.trace_id]) is not None]
    silent = None if scoring.spec.silent_turns == "unscored" else scoring.spec.silent_turns
    return Reward(
        reward_id=content_id(trajectory.trajectory_id, scoring.id),
        trajectory_id=trajectory.trajectory_id,
        session_id=trajectory.session_id,
        spec=scoring.id,
        components=tuple(components),
        turns=tuple(
            TurnReward(trace_id=trace_id, value=silent if value is None else value)
            for trace_id, value in values.items()
        ),
        value=_mean(main) if main else scoring.spec.silence,
        has_signal=bool(main),
        guardrails=_guard(scoring, trajectory),
        trajectory=trajectory,
        at=at,
    )


def _score_turn(scoring: Scoring, trajectory: Trajectory, turn: Turn) -> Iterable[Component]:
    for part, scorer in zip(scoring.spec.components, scoring.components, strict=True):
        outcome = _score(scorer, trajectory, turn)
        yield Component(
            name=part.name,
            scorer=f"{scorer.name}@{scorer.version}",
            trace_id=turn.trace_id,
            value=outcome.value if isinstance(outcome, Scored) else None,
            unscored=outcome.reason if isinstance(outcome, Unscored) else None,
        )


def _guard(scoring: Scoring, trajectory: Trajectory) -> dict[str, float]:
    """Mean over the main turns that could be scored; no entry where none could, so that the gate fails closed."""
    main = [turn for turn in trajectory.turns if turn.kind is TurnKind.MAIN]
    rates = {}
    for part, scorer in zip(scoring.spec.guardrails, scoring.guardrails, strict=True):
        outcomes = [_score(scorer, trajectory, turn) for turn in main]
        values = [outcome.value for outcome in outcomes if isinstance(outcome, Scored)]
        if values:
            rates[part.name] = _mean(values)
    return rates


def _score(scorer: Scorer, trajectory: Trajectory, turn: Turn) -> Outcome:
    try:
        outcome: object = scorer.score(trajectory, turn)
    except Exception as exc:  # noqa: BLE001 - a user's scorer may raise anything; a crash is no number, least of all 0
        logger.warning("scorer %s crashed on trace %s: %s: %s", scorer.name, turn.trace_id, type(exc).__name__, exc)
        return Unscored(f"crashed: {type(exc).__name__}: {exc}")
    if isinstance(outcome, Scored | Unscored):
        return outcome
    got = type(outcome).__name__
    logger.warning("scorer %s on trace %s: must return Scored or Unscored, got %s", scorer.name, turn.trace_id, got)
    return Unscored(f"crashed: must return Scored or Unscored, got {got}")


def _weighted_mean(components: Iterable[Component], weights: dict[str, float], trace_id: str) -> float | None:
    scored = [(weights[c.name], c.value) for c in components if c.trace_id == trace_id and c.value is not None]
    if not scored:
        return None
    return math.fsum(weight * value for weight, value in scored) / math.fsum(weight for weight, _ in scored)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
