"""The version in the making: how a step adds to it, and when it takes no more. Pure.

How much it holds is a matter of data and health. While another version is on trial it takes what arrives, a step at a
time, until a bound says that it has gone far enough from what serves; then turns wait on the log.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from infra.config import TrainerConfig
from ingest.records.events import FEEDBACK_FROM, FEEDBACK_TO, SESSIONS_FROM, SESSIONS_TO, FateKind, Headers
from trainer.advantages.batch import Batch
from trainer.eligibility import Ineligible
from trainer.inbox import Item
from trainer.learner.update import UpdateMetrics
from trainer.state import MAX_FATED, CandidateVersion, Making, Standing, Used

_SUMS = frozenset(
    {"num_steps", "num_skipped", "num_tokens", "num_hinted", "fair.near_duplicates", "fair.effective_turns"}
)
_LEAST = frozenset({SESSIONS_FROM, FEEDBACK_FROM})
_MOST = frozenset({SESSIONS_TO, FEEDBACK_TO, "staleness_max"})
"""Beside the bounds and shares that hold of each step, which begin with `fair.`. The rest are means over turns."""
_OF = {"hint_gap": "num_hinted"}
"""Means over fewer turns: how many these are."""


class Closed(StrEnum):
    """Why a version in the making takes no more turns."""

    TURNS = "it holds as many turns as a version may"
    AGE = "its first turns are old"
    KL = "it is far from stable"
    ESS = "a few tokens carry its last step"
    ALARM = "an alarm undid a step"
    DUE = "what it goes on from was promoted"


def closed(making: Making, config: TrainerConfig, now: float) -> Closed | None:
    """Why it takes no more; `None` while it does. One that holds no turns has no health, and is bounded still."""
    if making.num_turns >= config.max_version_turns or making.num_traces >= MAX_FATED:
        return Closed.TURNS
    if making.alarm is not None:
        return Closed.ALARM
    if making.num_turns == 0:
        return None
    if making.is_due and making.num_turns >= config.min_version_turns:
        return Closed.DUE
    if now - making.begun_at > config.max_version_age_s:
        return Closed.AGE
    if config.max_version_kl and making.stable_kl is not None and making.stable_kl > config.max_version_kl:
        return Closed.KL
    return Closed.ESS if making.ess < config.min_version_ess else None


def used_of(items: Sequence[Item], trained: Iterable[str], waiting: Collection[str] = ()) -> tuple[Used, ...]:
    """How each trace of these ended, alike ones together: those of `trained` in the version, others as items say. Those
    that are `waiting` have not."""
    names, at = frozenset(trained), min((item.at for item in items), default=0.0)
    alike: dict[tuple[FateKind, str], list[str]] = {}
    for item in items:
        for name, turn in item.turns.items():
            if name in names:
                alike.setdefault((FateKind.TRAINED, ""), []).append(name)
            elif isinstance(turn, Ineligible) and name not in waiting:
                alike.setdefault((turn.fate, turn.told), []).append(name)
    return tuple(
        Used(trace_ids=tuple(found), kind=kind, reason=reason, rewarded_at=at)
        for (kind, reason), found in alike.items()
    )


def grown(
    making: Making,
    used: tuple[Used, ...],
    batch: Batch,
    update: UpdateMetrics,
    times: Mapping[str, float],
    said: Headers,
) -> Making:
    """With one more step, which trained `batch`. `times` are more metrics of it, `said` its trace context."""
    rewards = {"mean_reward": batch.mean_reward, **batch.mean_parts}
    numbers = {**rewards, **batch.fairness.numbers(), **update.numbers(), **times}
    num_turns = making.num_turns + len(batch.turns)
    return making.using(used).model_copy(
        update={
            "num_updates": making.num_updates + 1,
            "num_turns": num_turns,
            "specs": tuple(sorted({*making.specs, *batch.spec.split(",")})),
            "metrics": together(making.metrics, making.num_turns, numbers, len(batch.turns)),
            "ess": update.ess,
            "stable_kl": update.stable_kl,
            "contexts": (*making.contexts, dict(said)),
        }
    )


def together(before: Mapping[str, float], num_before: int, step: Mapping[str, float], num: int) -> dict[str, float]:
    """Metrics of `num_before` turns and of a step of `num`, as of all of them."""
    found = {**before, **step}
    for name in before.keys() & step.keys():
        one, other = before[name], step[name]
        if name in _SUMS:
            found[name] = one + other
        elif name in _LEAST:
            found[name] = min(one, other)
        elif name in _MOST or name.startswith("fair."):
            found[name] = max(one, other)
        else:
            of = _OF.get(name)
            own, more = (before[of], step[of]) if of else (num_before, num)
            found[name] = (one * own + other * more) / (own + more)
    return found


def candidate_of(
    making: Making, number: int, parent: int, standing: Standing, now: float, settings: dict[str, Any]
) -> CandidateVersion:
    """The version that it becomes, as the child of `parent`, stable; `settings` are those it was made with."""
    *contexts, context = making.contexts
    return CandidateVersion(
        version=number,
        parent=parent,
        trace_ids=making.trained,
        spec=",".join(making.specs),
        metrics={**making.metrics, "updates": float(making.num_updates)},
        at=now,
        standing=standing,
        used=making.used,
        context=context,
        contexts=tuple(contexts),
        settings=settings,
    )
