"""Ray, started here or joined. Ray 2.60 keeps the driver free of torch and lets the learner live on other nodes."""

import contextlib
import logging
import os
from collections.abc import Sequence
from typing import Any

import psutil
import ray

from infra.config import TrainerConfig
from infra.errors import StartError

logger = logging.getLogger(__name__)

_ATTEMPTS = 3  # Ray gives its node 30 s to start, of a usual 5: too few while engines load on the same cores
_OBJECT_STORE_BYTES = 200 << 20  # a batch of token ids and metrics; weights travel as files, or in pieces
_SETTINGS = {
    "RAY_worker_niceness": "0",  # Ray's own 15 would starve the learner beside busy engines: `trainer.niceness` decides
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the coming default; without it every start warns
}


def start_ray(config: TrainerConfig) -> None:
    """Start Ray here, or join the cluster of `ray_address`.

    A Ray started here ends with this process, even by SIGKILL: the kernel ends its servers, and they their workers.
    Its two agents try to tell the dead server for 60 s and then end too.

    Raises:
        StartError: Ray does not start, or the cluster cannot be reached.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    mine = psutil.Process().children(recursive=True)
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _init(config)
            return
        except Exception as exc:  # Ray's own timeout is a bare Exception
            ray.shutdown()
            _kill_all_but(mine)
            if attempt == _ATTEMPTS or config.ray_address != "local":
                raise StartError(f"Ray ({config.ray_address}) did not start: {exc}") from exc
            logger.warning("Ray did not start, trying again: %s", exc)


def _kill_all_but(mine: Sequence[psutil.Process]) -> None:
    """End the servers of an attempt that failed: Ray has forgotten them, and the next attempt needs their cores."""
    for child in psutil.Process().children(recursive=True):
        if child not in mine:
            with contextlib.suppress(psutil.Error):
                child.kill()


def _init(config: TrainerConfig) -> None:
    here: dict[str, Any] = {
        "num_cpus": config.threads * config.workers,
        "object_store_memory": _OBJECT_STORE_BYTES,
        "include_dashboard": False,
    }
    ray.init(
        address=config.ray_address,
        log_to_driver=False,
        logging_level=logging.WARNING,
        configure_logging=False,
        **(here if config.ray_address == "local" else {}),
    )
