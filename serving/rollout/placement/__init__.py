"""Which engine serves what: two pools of engines, or one that arms take turns on. Pure."""

from collections.abc import Iterable, Mapping

from infra.config import EngineSlot, Placement, RolloutConfig
from serving.rollout.placement import split, switchback


def place(
    slots: Iterable[EngineSlot], stable: int, config: RolloutConfig, *, on_candidates: int | None = None
) -> dict[str, int]:
    """Engine -> version. `on_candidates` is the version of the candidate engines: the one on trial, or that held back.

    Without one they serve stable, or take no users and hold it ready: then they are left out.
    """
    every = tuple(slots)
    if config.placement is Placement.SPLIT:
        return split.place(every, stable, config, on_candidates=on_candidates)
    placed = {slot.id: stable for slot in every}
    if on_candidates is not None:
        placed |= {slot.id: on_candidates for slot in switchback.apart(every)}
    return placed


def candidates(slots: Iterable[EngineSlot], config: RolloutConfig) -> frozenset[str]:
    """The engines that serve a candidate while it is checked."""
    every = tuple(slots)
    if config.placement is Placement.SWITCHBACK:
        return frozenset(slot.id for slot in switchback.apart(every))
    return frozenset(slot.id for slot in every if slot.arm == "candidate")


def changed(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    """Which engines came and went, for a release's reason."""
    came, went = sorted(after.keys() - before.keys()), sorted(before.keys() - after.keys())
    told = [f"engines that joined: {', '.join(came)}"] if came else []
    told += [f"engines that left: {', '.join(went)}"] if went else []
    return "; ".join(told) or "engines changed places"
