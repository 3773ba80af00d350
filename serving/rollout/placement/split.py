"""Two pools: stable's engines, and the candidate's, which help stable while no trial needs them. Pure."""

from collections.abc import Iterable

from infra.config import EngineSlot, RolloutConfig


def place(slots: Iterable[EngineSlot], stable: int, config: RolloutConfig) -> dict[str, int]:
    """Engine -> version while no trial runs. An engine left out takes no users, and holds stable ready."""
    return {slot.id: stable for slot in slots if slot.arm == "stable" or config.idle_candidates_serve}
