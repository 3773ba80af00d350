"""Outcomes of sessions, as the gate needs them: of the champion, and of each trial; and keeping them over a restart.

Each session counts once. A later revision of its reward (feedback that came late) replaces what it revises. What is
kept on disk is a copy of what the rewards topic says up to some positions: without it, all of the topic is read again.
"""

import logging
from collections.abc import Collection
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from infra.config import GateConfig
from infra.files import replace_text
from ingest.records.events import Arm, Reward
from serving.rollout import gate
from serving.rollout.gate import Baseline, Unit

logger = logging.getLogger(__name__)

_CHAMPION_UNITS = 500


class Outcome(BaseModel):
    """One session's outcome. `root` is its first trace's id, the same in every revision of its reward."""

    model_config = ConfigDict(frozen=True)

    root: str
    revision: int
    value: float
    guardrails: dict[str, float]
    arm: Arm
    propensity: float
    tenant: str
    user: str
    began_at: float

    @classmethod
    def of(cls, reward: Reward) -> "Outcome":
        assignment = reward.assignment
        assert assignment is not None
        return cls(
            root=reward.trace_ids[0],
            revision=reward.revision,
            value=reward.value,
            guardrails=reward.guardrails,
            arm=assignment.arm,
            propensity=assignment.propensity,
            tenant=reward.tenant,
            user=reward.user,
            began_at=reward.opened_at,
        )


class Evidence(BaseModel):
    """Outcomes by session: of each version that served as champion, the last ones, oldest first, and of each trial.

    `excluded` counts sessions of a trial that were not served by their arm alone. `positions` is partition -> offset of
    the next reward to take.
    """

    champion: dict[int, dict[str, Outcome]] = {}
    units: dict[int, dict[str, Outcome]] = {}
    watches: dict[int, dict[str, Outcome]] = {}
    excluded: dict[int, set[str]] = {}
    positions: dict[int, int] = {}

    def add(self, reward: Reward) -> None:
        """File a reward under the trial its session was assigned in, or under the version that served it alone."""
        served, assignment = set(reward.versions), reward.assignment
        if assignment is not None and assignment.arm is Arm.STABLE and len(served) == 1:
            held = self.champion.setdefault(reward.versions[0], {})
            _put(held, reward)
            if len(held) > _CHAMPION_UNITS:
                del held[next(iter(held))]
        if assignment is None or assignment.trial is None:
            return
        is_watched = assignment.arm is Arm.STABLE and served == {assignment.trial}
        if is_watched or (assignment.arm is Arm.HOLDBACK and assignment.trial not in served):
            _put(self.watches.setdefault(assignment.trial, {}), reward)
        is_candidate = assignment.arm is Arm.CANDIDATE
        if not served <= {assignment.trial} if is_candidate else assignment.trial in served:
            self.excluded.setdefault(assignment.trial, set()).add(reward.session_id)
            return
        _put(self.units.setdefault(assignment.trial, {}), reward)

    def units_of(self, trial: int) -> tuple[Unit, ...]:
        """A trial's sessions, in the order in which they were first scored."""
        return _units(self.units.get(trial, {}))

    def watched(self, version: int) -> tuple[Unit, ...]:
        """Sessions of the watch over a promoted version."""
        return _units(self.watches.get(version, {}))

    def baselines(self, version: int, config: GateConfig) -> dict[str, Baseline] | None:
        """The champion's outcomes, or `None` while there are too few."""
        served = self.champion.get(version, {}).values()
        if len(served) < config.min_champion_units:
            return None
        found = {gate.REWARD: Baseline.of(one.value for one in served)}
        for rail in config.guardrails:
            outcomes = [one.guardrails[rail.name] for one in served if rail.name in one.guardrails]
            if outcomes:
                found[rail.name] = Baseline.of(outcomes)
        return found

    def forget_all_but(self, versions: Collection[int], trials: Collection[int]) -> None:
        """Let go of champions and trials that no decision will ask for."""
        for version in self.champion.keys() - set(versions):
            del self.champion[version]
        for trial in (self.units.keys() | self.excluded.keys() | self.watches.keys()) - set(trials):
            self.units.pop(trial, None)
            self.watches.pop(trial, None)
            self.excluded.pop(trial, None)


def _units(held: dict[str, Outcome]) -> tuple[Unit, ...]:
    return tuple(
        Unit(session_id, one.arm, one.propensity, one.value, one.guardrails, one.tenant, one.user, one.began_at)
        for session_id, one in held.items()
    )


def _put(held: dict[str, Outcome], reward: Reward) -> None:
    """A session's newest outcome, in the place of an earlier one."""
    before = held.get(reward.session_id)
    is_older = before is not None and before.root == reward.trace_ids[0] and reward.revision < before.revision
    if not is_older:
        held[reward.session_id] = Outcome.of(reward)


def read(path: Path) -> Evidence:
    """What was kept; nothing where that is missing or damaged."""
    try:
        return Evidence.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return Evidence()
    except (OSError, ValidationError) as exc:
        logger.warning("evidence %s: not readable, all rewards are read again: %s", path, exc)
        return Evidence()


def keep(evidence: Evidence, path: Path) -> None:
    """Replace what was kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, evidence.model_dump_json())
