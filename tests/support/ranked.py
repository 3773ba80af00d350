"""Learners of several ranks, each in a process of its own, without Ray."""

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from ports import free_port

from infra.config import TrainerConfig
from trainer.learner.batching import Minibatch

_ranks: Any = None  # of a process that joined


class Ranked:
    """As many processes as there are ranks. What they run is a function of a module of `tests/support`."""

    def __init__(self, size: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pools = [ProcessPoolExecutor(1, mp_context=spawn) for _ in range(size)]
        port = free_port()
        self.run(_join, size, port, ranked=True)

    def run(self, function: Callable[..., Any], *args: Any, ranked: bool = False) -> list[Any]:
        """Its results by rank. All ranks have ended it before the first that failed is told."""
        running = [pool.submit(function, *((rank,) if ranked else ()), *args) for rank, pool in enumerate(self._pools)]
        failed = [error for one in running if (error := one.exception()) is not None]
        if failed:
            raise failed[0]
        return [one.result() for one in running]

    def failures(self, function: Callable[..., Any], *args: Any) -> list[BaseException | None]:
        """What each rank raised."""
        return [one.exception() for one in [pool.submit(function, *args) for pool in self._pools]]

    def close(self) -> None:
        for pool in self._pools:
            pool.shutdown(cancel_futures=True)


def _join(rank: int, size: int, port: int) -> None:
    global _ranks
    import torch.distributed as dist

    from trainer.learner.ranks import Ranks

    store = dist.TCPStore("127.0.0.1", port, size, is_master=rank == 0)
    _ranks = Ranks.join(rank, size, store, "cpu")


def learner(model: Path, config: TrainerConfig) -> Any:
    """This rank's; alone in a process that joined none."""
    from trainer.learner.learner import Learner

    return Learner(model, config, _ranks)


def gradients(
    model: Path, config: TrainerConfig, minibatches: Sequence[Minibatch]
) -> tuple[list[float], list[dict[str, Any]]]:
    """Loss and whole gradients of each step of an update that changes no weight."""
    from trainer.learner.ranks import whole

    one, found = learner(model, config), []
    losses, real = [], one._step

    def note() -> None:
        found.append({name: whole(param.grad).numpy().copy() for name, param in one._trained().items()})

    def step(*args: Any) -> Any:
        told = real(*args)
        losses.append(told.loss)
        return told

    one.anchor(None)
    one._optimizer.step, one._step = note, step
    one.update(minibatches)
    return losses, found


def weights(one: Any) -> dict[str, Any]:
    """Whole."""
    from trainer.learner.ranks import whole

    return {name: whole(param.detach()).numpy().copy() for name, param in one.model.named_parameters()}


def trained(
    model: Path, config: TrainerConfig, minibatches: Sequence[Minibatch], begin: Path | None, end: Path | None
) -> tuple[Any, dict[str, Any]]:
    """Metrics and weights after an update, from the state in `begin`; saved to `end`."""
    one = learner(model, config)
    if begin is not None:
        one.restore(begin)
    metrics = one.update(minibatches) if minibatches else None
    if end is not None:
        one.save(end)
    return metrics, weights(one)


def exported(model: Path, config: TrainerConfig, folder: Path, begin: Path | None, file_bytes: int) -> None:
    """A version, from the state in `begin`."""
    from infra.storage import Folder
    from trainer.learner.export import export

    one = learner(model, config)
    if begin is not None:
        one.restore(begin)
    export(one.model, model, Folder(folder), one._ranks, file_bytes)


def exported_adapters(model: Path, config: TrainerConfig, folder: Path, begin: Path) -> None:
    """Those alone, from the state in `begin`."""
    one = learner(model, config)
    one.restore(begin)
    one.export_adapters(folder)
