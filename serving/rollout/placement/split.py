"""Two pools: stable's engines, and the candidate's, which help stable while no trial needs them. Pure."""

from collections.abc import Iterable

from infra.config import EngineSlot, RolloutConfig


def place(
    slots: Iterable[EngineSlot], stable: int, config: RolloutConfig, *, on_candidates: int | None = None
) -> dict[str, int]:
    """Engine -> version, with `on_candidates` on the candidate's. An engine left out takes no users, and holds stable
    ready."""
    placed = {}
    for slot in slots:
        if slot.arm == "candidate" and on_candidates is not None:
            placed[slot.id] = on_candidates
        elif slot.arm == "stable" or config.idle_candidates_serve:
            placed[slot.id] = stable
    return placed
