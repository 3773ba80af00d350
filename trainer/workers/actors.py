"""The learner as a Ray actor. Ray 2.60 keeps the driver free of torch and lets the learner live on another node."""

import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import ray

from infra.config import TrainerConfig
from infra.errors import OnstreamError, StartError
from infra.lifecycle import Stop
from trainer.learner.batching import Minibatch
from trainer.learner.update import UpdateMetrics
from trainer.workers.carry import Carrier, Desk, is_elsewhere

logger = logging.getLogger(__name__)

_WAIT_S = 0.2
_ATTEMPTS = 3  # Ray gives its node 30 s to start, of a usual 5: too few while engines load on the same cores
_OBJECT_STORE_BYTES = 200 << 20  # a batch of token ids and metrics; weights travel as files, or in pieces
_SETTINGS = {
    "RAY_worker_niceness": "0",  # Ray's own 15 would starve the learner beside busy engines: `trainer.niceness` decides
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # the coming default; without it every start warns
}


class StoppedError(OnstreamError, RuntimeError):
    """The process was told to stop while the learner was at work. The checkpoint knows nothing of that work."""


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
        "num_cpus": config.threads,
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


class LearnerDiedError(OnstreamError, RuntimeError):
    """The learner's process is gone, for lack of memory as a rule."""


class LearnerActor(Desk):
    """Runs in Ray's worker process; torch is imported there and not in the driver."""

    def open(self, base: str, config: TrainerConfig) -> None:
        from trainer.learner.learner import Learner

        self._learner = Learner(Path(base), config)

    def load(self, folder: str) -> None:
        self._learner.load(Path(folder))

    def restore(self, folder: str) -> None:
        self._learner.restore(Path(folder))

    def save(self, folder: str) -> None:
        self._learner.save(Path(folder))

    def export(self, folder: str) -> None:
        self._learner.export(Path(folder))

    def anchor(self, folder: str | None) -> None:
        self._learner.anchor(None if folder is None else Path(folder))

    def update(self, minibatches: Sequence[Minibatch]) -> UpdateMetrics:
        return self._learner.update(minibatches)


class RayPolicy:
    """A `Policy` over a `LearnerActor`. Calls end early, with `StoppedError`, once `stop` is set."""

    def __init__(self, base: Path, config: TrainerConfig, stop: Stop) -> None:
        self._stop = stop
        num_gpus = 1 if config.device.startswith("cuda") else 0
        actor: Callable[..., Any] = ray.remote(num_cpus=config.threads, num_gpus=num_gpus)(LearnerActor)
        self._actor: Any = actor.remote()  # type: ignore[attr-defined]
        try:
            self._wait(self._actor.open.remote(str(base.absolute()), config))
            kept = config.checkpoint_dir
            self.carrier = Carrier(
                self._actor, self._wait, bool(kept) and is_elsewhere(self._actor, self._wait, Path(kept))
            )
        except OnstreamError:
            self.close()  # or it would keep its cores until the garbage collector comes by
            raise

    def load(self, folder: Path) -> None:
        with self.carrier.to_learner(folder) as there:
            self._wait(self._actor.load.remote(there))

    def restore(self, folder: Path) -> None:
        with self.carrier.to_learner(folder) as there:
            self._wait(self._actor.restore.remote(there))

    def anchor(self, folder: Path | None) -> None:
        if folder is None:
            self._wait(self._actor.anchor.remote(None))
            return
        with self.carrier.to_learner(folder) as there:
            self._wait(self._actor.anchor.remote(there))

    def save(self, folder: Path) -> None:
        with self.carrier.from_learner(folder) as there:
            self._wait(self._actor.save.remote(there))

    def export(self, folder: Path) -> None:
        with self.carrier.from_learner(folder) as there:
            self._wait(self._actor.export.remote(there))

    def update(self, minibatches: Sequence[Minibatch]) -> UpdateMetrics:
        metrics: UpdateMetrics = self._wait(self._actor.update.remote(minibatches))
        return metrics

    def _wait(self, ref: Any) -> Any:
        """The result; an error of ours that the actor raised, as it was raised."""
        while not ray.wait([ref], timeout=_WAIT_S)[0]:
            if self._stop.is_set():
                raise StoppedError("stopped while the learner was at work")
            self._stop.pulse.go_on()  # a dead learner is an error of `ray.get`, a busy one is no stuck trainer
        try:
            return ray.get(ref)
        except ray.exceptions.RayTaskError as exc:
            if isinstance(exc.cause, OnstreamError):
                raise exc.cause from exc
            raise
        except ray.exceptions.RayActorError as exc:
            raise LearnerDiedError(f"the learner's process died: {exc}") from exc

    def close(self) -> None:
        """End the actor now."""
        ray.kill(self._actor)
