"""Sessions of trials, made for a test, and the tally over them."""

from collections.abc import Iterable, Mapping

from infra.config import GateConfig
from ingest.records.events import Arm
from serving.rollout.evidence import Baseline, Tally, Unit
from serving.rollout.evidence.tally import Sessions


def unit(
    n: int,
    arm: Arm = Arm.CANDIDATE,
    reward: float = 1.0,
    pi: float = 0.5,
    user: str = "",
    tenant: str = "t",
    began_at: float | None = None,
    revision: int = 1,
    **guardrails: float,
) -> Unit:
    """Session number `n`, which began at second `n`; `pi` is the chance that its coin gave it of the candidate."""
    rails = {"scored": 1.0} | guardrails
    return Unit(
        session_id=f"s{n}",
        root=f"s{n}-0",
        revision=revision,
        scored_at=0.0,
        is_pure=True,
        arm=arm,
        propensity=pi if arm is Arm.CANDIDATE else 1.0 - pi,
        reward=reward,
        names=tuple(rails),
        values=tuple(rails.values()),
        tenant=tenant,
        user=user,
        began_at=float(n) if began_at is None else began_at,
    )


def tally_of(units: Iterable[Unit], config: GateConfig, baselines: Mapping[str, Baseline]) -> Tally:
    """Over a trial's sessions."""
    held = Sessions()
    for one in units:
        held.put(one)
    return held.tally(baselines, config, treated=Arm.CANDIDATE, control=Arm.STABLE)
