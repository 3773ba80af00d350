"""The learner as Ray actors, one of each rank, side by side in a placement group.

One and many are the same code; one alone communicates with nobody. The group lives and dies as one: without a rank the
others wait in a collective for good, so whatever ends one ends the stage, which begins again at the checkpoint.
"""

import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from infra.config import TrainerConfig
from infra.errors import OnstreamError, StartError, StoreError
from infra.lifecycle import Stop
from infra.storage import Folder, Place
from trainer.learner.batching import Minibatch
from trainer.learner.update import ElsewhereError, UpdateMetrics

if TYPE_CHECKING:
    from trainer.learner.parts import Part

logger = logging.getLogger(__name__)

_WAIT_S = 0.2
_TELL_S = 60.0
_SETTLE_S = 10.0  # a worker's death closes the others' connections: their errors may be told before it is
_WRITING = "writing"


class StoppedError(OnstreamError, RuntimeError):
    """The process was told to stop while the learner was at work. The checkpoint knows nothing of that work."""


class LearnerDiedError(OnstreamError, RuntimeError):
    """A learner's process is gone, for lack of memory as a rule."""


class LearnerActor:
    """One rank. Runs in Ray's worker process; torch is imported there and not in the driver."""

    def meet(self) -> tuple[str, int]:
        """Open the place where the ranks find each other."""
        import torch.distributed as dist

        host = ray.util.get_node_ip_address()
        self._store = dist.TCPStore(host, 0, is_master=True, wait_for_workers=False)
        return host, self._store.port

    def open(self, base: str, config: TrainerConfig, rank: int, at: tuple[str, int] | None) -> None:
        from trainer.learner.learner import Learner
        from trainer.learner.ranks import Ranks

        ranks = Ranks()
        if at is not None:
            import torch.distributed as dist

            store = self._store if rank == 0 else dist.TCPStore(*at, is_master=False)
            ranks = Ranks.join(rank, config.workers, store, config.device)
        self._learner, self._ranks = Learner(Path(base), config, ranks), ranks

    def sees(self, file: str) -> bool:
        return Path(file).exists()

    def load(self, folder: Place) -> None:
        if isinstance(folder, Path):
            self._learner.load(folder)
            return
        with TemporaryDirectory(prefix="onstream-") as copy:
            with self._ranks.together(f"model {folder}"):
                Folder(folder).fetch(Path(copy))
            self._learner.load(Path(copy))

    def restore(self, folder: Place) -> None:
        self._learner.restore(folder)

    def copy(self) -> None:
        self._copied: Part | None = self._learner.copied()

    @ray.method(concurrency_group=_WRITING)  # type: ignore[untyped-decorator]
    def write(self, folder: Place) -> None:
        """Runs beside the others."""
        copied, self._copied = self._copied, None
        assert copied is not None
        copied.write(Folder(folder))

    def export(self, folder: Place) -> None:
        self._learner.export(folder)

    def export_adapters(self, folder: Place) -> None:
        self._learner.export_adapters(folder)

    def anchor(self, folder: Place | None) -> None:
        self._learner.anchor(folder)

    def update(self, minibatches: Sequence[Minibatch]) -> UpdateMetrics:
        return self._learner.update(minibatches)


Tell = Callable[[str], None]
"""Is told what a start waits for, and that with nothing that it does no more."""


class Workers:
    """The actors. Calls end early, with `StoppedError`, once `stop` is set.

    They wait for their place in a cluster, which may grow, and say so. Raises `StartError` where Ray is this machine's
    own and has no such place.
    """

    def __init__(self, config: TrainerConfig, stop: Stop, tell: Tell) -> None:
        self._stop = stop
        needs = {"CPU": float(config.threads)} | ({"GPU": 1.0} if config.device.startswith("cuda") else {})
        if config.ray_address == "local":
            _check_place(config.workers, needs)
        self._place = placement_group([needs] * config.workers, strategy="PACK")
        self._actors: list[Any] = []
        try:
            self._wait_for_place(config.workers, needs, tell)
            actor: Callable[..., Any] = ray.remote(
                num_cpus=needs["CPU"], num_gpus=needs.get("GPU", 0.0), concurrency_groups={_WRITING: 1}
            )(LearnerActor)
            for number in range(config.workers):
                where = PlacementGroupSchedulingStrategy(self._place, placement_group_bundle_index=number)
                self._actors.append(actor.options(scheduling_strategy=where).remote())  # type: ignore[attr-defined]
        except BaseException:  # also a stop: actors must not outlive who made them
            self.close()
            raise

    def _wait_for_place(self, num: int, needs: Mapping[str, float], tell: Tell) -> None:
        tell_at = time.monotonic()
        while not self._place.wait(1.0):
            if time.monotonic() >= tell_at:
                tell_at += _TELL_S
                told = f"a place for {num} workers with {_told(needs)} each, where Ray has {_told(_of_ray(needs))}"
                logger.warning("waits for %s", told)
                tell(told)
            self._go_on()
        tell("")

    def open(self, base: Path, config: TrainerConfig) -> None:
        """Let the ranks meet and load the model. Raises `StartError`."""
        at = self.wait([self._actors[0].meet.remote()])[0] if config.workers > 1 else None
        named = str(base.absolute())
        self.wait([actor.open.remote(named, config, rank, at) for rank, actor in enumerate(self._actors)])

    def call(self, name: str, *args: Any) -> list[Any]:
        """The results of a method, by rank."""
        return self.wait(self.begin(name, *args))

    def begin(self, name: str, *args: Any) -> list[Any]:
        """A method's results to come."""
        return [getattr(actor, name).remote(*args) for actor in self._actors]

    def wait(self, refs: Sequence[Any]) -> list[Any]:
        """The results; an error of ours that a rank raised, as it was raised."""
        left = list(refs)
        while left:
            done, left = ray.wait(left, timeout=_WAIT_S)
            for ref in done:
                try:
                    ray.get(ref)
                except ray.exceptions.RayError as exc:
                    raise _worst([exc, *_failures(left)]) from exc
            if left:
                self._go_on()
        return list(ray.get(list(refs)))

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise StoppedError("stopped while the learner was at work")
        self._stop.pulse.go_on()  # a dead learner is an error of `ray.get`, a busy one is no stuck trainer

    def close(self) -> None:
        """End the actors now."""
        for actor in self._actors:
            ray.kill(actor)
        try:
            remove_placement_group(self._place)
        except Exception as exc:  # noqa: BLE001 - a cluster that is gone: its errors have no class in common
            logger.info("the workers' place was not given back: %s", exc)


def _check_place(num: int, needs: Mapping[str, float]) -> None:
    all_needed, has = {name: num * each for name, each in needs.items()}, _of_ray(needs)
    if any(has[name] < needed for name, needed in all_needed.items()):
        raise StartError(
            f"trainer.workers, trainer.threads, trainer.device: {num} workers need {_told(all_needed)}, Ray on this "
            f"machine has {_told(has)}"
        )


def _of_ray(needs: Mapping[str, float]) -> dict[str, float]:
    """What there is of what is needed, in use or not."""
    found = ray.cluster_resources()
    return {name: found.get(name, 0.0) for name in needs}


def _told(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {amount:g}" for name, amount in resources.items())


def _failures(refs: Sequence[Any]) -> list[Exception]:
    """What the others raised, as soon as it is known."""
    done = ray.wait(list(refs), num_returns=len(refs), timeout=_SETTLE_S)[0] if refs else []
    failures: list[Exception] = []
    for ref in done:
        try:
            ray.get(ref)
        except ray.exceptions.RayError as exc:
            failures.append(exc)
    return failures


def _worst(failures: Sequence[Exception]) -> Exception:
    """The one that the others follow from: a death, then an error of ours, then any, and last who only says so."""
    for failure in failures:
        if isinstance(failure, ray.exceptions.RayActorError):
            return LearnerDiedError(f"a learner's process died: {failure}")
    causes = [failure.cause if isinstance(failure, ray.exceptions.RayTaskError) else failure for failure in failures]
    first = min(causes, key=lambda cause: (isinstance(cause, ElsewhereError), not isinstance(cause, OnstreamError)))
    return first if isinstance(first, OnstreamError) else failures[causes.index(first)]


class RaySaving:
    """Parts that all ranks are writing."""

    def __init__(self, workers: Workers, refs: Sequence[Any]) -> None:
        self._workers, self._refs = workers, refs

    @property
    def is_done(self) -> bool:
        return len(ray.wait(list(self._refs), num_returns=len(self._refs), timeout=0.0)[0]) == len(self._refs)

    def wait(self) -> None:
        self._workers.wait(self._refs)


class RayPolicy:
    """A `Policy` over `Workers`."""

    def __init__(self, base: Path, config: TrainerConfig, stop: Stop, tell: Tell = lambda _: None) -> None:
        self._kept = Folder(config.checkpoint_dir)
        self._workers = Workers(config, stop, tell)
        self._saving: RaySaving | None = None
        try:
            self._workers.open(base, config)
            self._sees_disk = config.ray_address == "local" or self._is_shared()
            self._kept.delete("passing")  # what a kill left there
        except BaseException:  # also a stop: it would keep its cores until the garbage collector comes by
            self.close()
            raise

    def _is_shared(self) -> bool:
        """Whether workers see this machine's folders, as far as the checkpoint's is one of them."""
        if not self._kept.is_local:
            return False
        marker = f"seen-{secrets.token_hex(8)}"
        self._kept.write(marker, b"")
        try:
            seen = self._workers.call("sees", str(self._kept.path.absolute() / marker))
        finally:
            self._kept.delete(marker)
        if not all(seen):
            raise StartError(
                f"trainer.checkpoint_dir: {len(seen) - sum(seen)} of {len(seen)} workers do not see the folder "
                f"{self._kept.place}; where they run elsewhere it must be an fsspec URL that all reach"
            )
        return True

    def load(self, folder: Path) -> None:
        self._leave_saving()
        with self._given(folder) as there:
            self._workers.call("load", there)

    def restore(self, folder: Place) -> None:
        self._leave_saving()
        self._workers.call("restore", _absolute(folder))

    def _leave_saving(self) -> None:
        """Wait for a copy that whoever began it may have left behind, after an outage: no checkpoint will name it."""
        saving, self._saving = self._saving, None
        if saving is not None:
            with contextlib.suppress(StoreError):
                saving.wait()

    def anchor(self, folder: Place | None) -> None:
        self._workers.call("anchor", None if folder is None else _absolute(folder))

    def save(self, folder: Place) -> RaySaving:
        if self._saving is not None:
            self._saving.wait()  # a second copy would be one too many in memory
        self._workers.call("copy")
        self._saving = RaySaving(self._workers, self._workers.begin("write", _absolute(folder)))
        return self._saving

    def export(self, folder: Path) -> None:
        with self._taken(folder) as there:
            self._workers.call("export", there)

    def export_adapters(self, folder: Path) -> None:
        with self._taken(folder) as there:
            self._workers.call("export_adapters", there)

    def update(self, minibatches: Sequence[Minibatch]) -> UpdateMetrics:
        metrics: UpdateMetrics = self._workers.call("update", ray.put(minibatches))[0]
        return metrics

    @contextmanager
    def _given(self, folder: Path) -> Iterator[Place]:
        """Where workers find the files of a folder of this machine, for the length of a block."""
        if self._sees_disk:
            yield folder.absolute()
            return
        with self._passing() as there:
            there.send(folder)
            yield str(there.place)

    @contextmanager
    def _taken(self, folder: Path) -> Iterator[Place]:
        """Where workers shall write files; after the block they are in a folder of this machine."""
        if self._sees_disk:
            yield folder.absolute()
            return
        with self._passing() as there:
            yield str(there.place)
            there.fetch(folder)

    @contextmanager
    def _passing(self) -> Iterator[Folder]:
        name = f"passing/{secrets.token_hex(8)}"
        try:
            yield self._kept.under(name)
        finally:
            with contextlib.suppress(OnstreamError):  # leftovers hurt nobody, and the block's own error is to be told
                self._kept.delete(name)

    def close(self) -> None:
        """End the workers now."""
        self._workers.close()


def _absolute(folder: Place) -> Place:
    """Workers run in other folders than this process."""
    return folder.absolute() if isinstance(folder, Path) else folder
