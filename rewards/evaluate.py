"""A trajectory's reward under a spec, in two steps: what scorers say of its turns, and what that is worth.

`ask` hears the fast scorers and leaves open what batch scorers are to be asked; `reward` takes all outcomes. Per
component and turn:

    own       the scorer's number, kept as it is in `Reward.components`
    credited  the mean along the chain, mixed in as the component's `credit` says; see `rewards.credit`
    part      credited x the turn's factors, at the component's weight x its annealing

A factor is 1 - a (1 - credited), with `a` its annealing: 1 where it scored nothing. It multiplies every part of its
turn, its own too. A turn's reward is the weighted mean of its parts; a part of weight 0 is left out, so a shaping term
that has annealed away is gone, not small. The session's value is the mean over its main turns that have a reward.
Side turns are served, never trained: they get none.

A replay has no user: scorers that need one are not asked of it, and what nothing scored is unscored whatever silence is
worth. The turn of a user's session that may be replayed also tells its parts as a replay has them, so that both can be
compared: without those scorers, and without credit, for a replay ends its conversation.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from infra import telemetry
from ingest.records.events import (
    Component,
    Part,
    Reward,
    Source,
    Trajectory,
    Turn,
    TurnKind,
    TurnReward,
    about,
    content_id,
)
from ingest.sessions.resettable import resettable
from rewards import credit
from rewards.scorers import AnyScorer, BatchScorer, Outcome, Scored, Scorer, Unscored, kinds_of, needs_user
from rewards.spec import ComponentSpec, Scoring

logger = logging.getLogger(__name__)

NO_USER = Unscored("a replay has no user")

Key = tuple[str, str]
"""A component's name and a trace id."""


@dataclass(frozen=True, eq=False)
class Question:
    """What a batch scorer is to be asked about one turn. Equal to itself only."""

    component: str
    scorer: BatchScorer
    trajectory: Trajectory
    turn: Turn

    @property
    def key(self) -> Key:
        return self.component, self.turn.trace_id


@dataclass(frozen=True)
class Asked:
    """What is known at once of a trajectory, and what is open."""

    outcomes: dict[Key, Outcome]
    open: tuple[Question, ...]


def ask(scoring: Scoring, trajectory: Trajectory) -> Asked:
    """Hear the fast scorers; batch scorers tell whether there is anything to ask them."""
    outcomes: dict[Key, Outcome] = {}
    still_open = []
    is_replay = _is_replay(trajectory)
    for part, scorer, turn in _to_score(scoring, trajectory):
        if is_replay and needs_user(scorer):
            outcomes[part.name, turn.trace_id] = NO_USER
        elif not isinstance(scorer, BatchScorer):
            outcomes[part.name, turn.trace_id] = _score(scorer, trajectory, turn)
        elif (known := _known(scorer, trajectory, turn)) is not None:
            outcomes[part.name, turn.trace_id] = known
        else:
            still_open.append(Question(part.name, scorer, trajectory, turn))
    return Asked(outcomes, tuple(still_open))


def reward_id(scoring: Scoring, trajectory: Trajectory) -> str:
    """The one reward of a trajectory under a spec."""
    return content_id(trajectory.trajectory_id, scoring.id)


def reward(
    scoring: Scoring,
    trajectory: Trajectory,
    outcomes: Mapping[Key, Outcome],
    at: float,
    source: Source | None = None,
) -> Reward:
    """The reward of a trajectory, made at `at`, in Unix seconds. What no outcome is given for was not asked.

    `source` is where the trajectory lies; a reward of one that lies nowhere holds it.
    """
    components = tuple(_components(scoring, trajectory, outcomes))
    parts = _parts(scoring, trajectory, components)
    values = {name: _weighted_mean(held) for name, held in parts.items()}
    main = [
        value
        for turn in trajectory.turns
        if turn.kind is TurnKind.MAIN and (value := values[turn.trace_id]) is not None
    ]
    silent = None if _is_replay(trajectory) or scoring.spec.silent_turns == "unscored" else scoring.spec.silent_turns
    alone = _alone(scoring, trajectory, components)
    return Reward(
        reward_id=reward_id(scoring, trajectory),
        trajectory_id=trajectory.trajectory_id,
        revision=trajectory.revision,
        session_id=trajectory.session_id,
        spec=scoring.id,
        components=components,
        turns=tuple(
            TurnReward(
                trace_id=turn.trace_id,
                kind=turn.kind,
                value=silent if values[turn.trace_id] is None else values[turn.trace_id],
                parts=parts[turn.trace_id],
                alone=alone.get(turn.trace_id),
            )
            for turn in trajectory.turns
            if turn.trace_id in values
        ),
        value=_mean(main) if main else scoring.spec.silence,
        has_signal=bool(main),
        guardrails=_guard(scoring, trajectory),
        source=source,
        trajectory=trajectory if source is None else None,
        **about(trajectory),
        at=at,
    )


def evaluate(scoring: Scoring, trajectory: Trajectory, at: float) -> Reward:
    """The reward as the fast scorers alone see it; `rewards.asking.score` asks all."""
    return reward(scoring, trajectory, ask(scoring, trajectory).outcomes, at)


def _to_score(scoring: Scoring, trajectory: Trajectory) -> Iterator[tuple[ComponentSpec, AnyScorer, Turn]]:
    for turn in trajectory.turns:
        for part, scorer in zip(scoring.spec.components, scoring.components, strict=True):
            if turn.kind in kinds_of(scorer):
                yield part, scorer, turn


def _components(scoring: Scoring, trajectory: Trajectory, outcomes: Mapping[Key, Outcome]) -> Iterator[Component]:
    for part, scorer, turn in _to_score(scoring, trajectory):
        outcome = outcomes.get((part.name, turn.trace_id), Unscored("not asked"))
        yield Component(
            name=part.name,
            scorer=f"{scorer.name}@{scorer.version}",
            trace_id=turn.trace_id,
            value=outcome.value if isinstance(outcome, Scored) else None,
            unscored=outcome.reason if isinstance(outcome, Unscored) else None,
        )


def _parts(scoring: Scoring, trajectory: Trajectory, components: Sequence[Component]) -> dict[str, tuple[Part, ...]]:
    """The parts of each main and summary turn, by trace id."""
    tree = credit.before(trajectory)
    credited = {}
    for part in scoring.spec.components:
        own = {c.trace_id: c.value for c in components if c.name == part.name and c.value is not None}
        credited[part.name] = credit.credited(own, tree, part.credit)
    return {
        turn.trace_id: _parts_of(
            scoring.spec.components,
            turn,
            {name: held[turn.trace_id] for name, held in credited.items() if turn.trace_id in held},
        )
        for turn in trajectory.turns
        if turn.trace_id in tree
    }


def _is_replay(trajectory: Trajectory) -> bool:
    return trajectory.assignment is not None and trajectory.assignment.replay_of is not None


def _alone(scoring: Scoring, trajectory: Trajectory, components: Sequence[Component]) -> dict[str, tuple[Part, ...]]:
    """By trace id, the parts of the turn that may be replayed, if one may: its own scores that need no user."""
    turn = resettable(trajectory)
    if turn is None:
        return {}
    named = zip(scoring.spec.components, scoring.components, strict=True)
    left_out = {part.name for part, scorer in named if needs_user(scorer)}
    own = {
        one.name: one.value
        for one in components
        if one.trace_id == turn.trace_id and one.value is not None and one.name not in left_out
    }
    return {turn.trace_id: _parts_of(scoring.spec.components, turn, own)}


def _parts_of(specs: Sequence[ComponentSpec], turn: Turn, values: Mapping[str, float]) -> tuple[Part, ...]:
    strength = {part.name: part.anneal.strength(turn.versions) if part.anneal else 1.0 for part in specs}
    factors = math.prod(
        1.0 - strength[part.name] * (1.0 - values[part.name]) for part in specs if part.factor and part.name in values
    )
    return tuple(
        Part(name=part.name, weight=weight, value=values[part.name] * factors)
        for part in specs
        if part.name in values and (weight := part.weight * strength[part.name]) > 0.0
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
        return crashed(scorer, turn, type(exc).__name__, str(exc))
    if isinstance(outcome, Scored | Unscored):
        return outcome
    return crashed(scorer, turn, f"must return Scored or Unscored, got {type(outcome).__name__}")


def _known(scorer: BatchScorer, trajectory: Trajectory, turn: Turn) -> Outcome | None:
    try:
        outcome: object = scorer.applies(trajectory, turn)
    except Exception as exc:  # noqa: BLE001 - as above
        return crashed(scorer, turn, type(exc).__name__, str(exc))
    if outcome is None or isinstance(outcome, Unscored):
        return outcome
    return crashed(scorer, turn, f"`applies` must return Unscored or None, got {type(outcome).__name__}")


def crashed(scorer: AnyScorer, turn: Turn, what: str, message: str = "") -> Unscored:
    """The outcome of a scorer that did not keep to its protocol; logged.

    `message` is the exception's. It may quote what a user typed, and rewards are not sealed: it stays in this process's
    own log.
    """
    told = telemetry.Local(f": {message}" if message else "")
    logger.warning("scorer %s crashed on trace %s: %s%s", scorer.name, turn.trace_id, what, told)
    return Unscored(f"crashed: {what}")


def _weighted_mean(parts: Sequence[Part]) -> float | None:
    if not parts:
        return None
    return math.fsum(part.weight * part.value for part in parts) / math.fsum(part.weight for part in parts)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
