"""Which settings made a version: what its manifest says of them."""

import hashlib
import json
from typing import Any

from infra.config import TrainerConfig

_WHERE = {"host", "listen", "port", "checkpoint_dir", "ray_address", "threads", "niceness", "device", "alarms"}
"""Where it runs and what stops it, not what it learns. Whatever else is or will be a setting, is one of these."""


def learning_settings(config: TrainerConfig) -> dict[str, Any]:
    """Every setting that what is learnt depends on, as JSON has it."""
    return config.model_dump(mode="json", exclude=_WHERE)


def digest_of(settings: dict[str, Any]) -> str:
    """SHA-256 of settings, the same for equal ones."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
