"""Which engine serves what."""

from collections.abc import Iterable, Mapping

from infra.config import EngineSlot, RolloutConfig


def place(
    slots: Iterable[EngineSlot], stable: int, config: RolloutConfig, *, on_candidates: int | None = None
) -> dict[str, int]:
    """Engine -> version. `on_candidates` is the version of the candidate engines: the one on trial, or that held back.

    Without one they serve stable, or take no users and hold it ready: then they are left out.
    """
    placed = {}
    for slot in slots:
        if slot.arm == "candidate" and on_candidates is not None:
            placed[slot.id] = on_candidates
        elif slot.arm == "stable" or config.idle_candidates_serve:
            placed[slot.id] = stable
    return placed


def changed(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    """Which engines came and went, for a release's reason."""
    came, went = sorted(after.keys() - before.keys()), sorted(before.keys() - after.keys())
    told = [f"engines that joined: {', '.join(came)}"] if came else []
    told += [f"engines that left: {', '.join(went)}"] if went else []
    return "; ".join(told) or "engines changed places"
