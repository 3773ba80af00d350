"""Swapping versions into one engine. A load goes:

    1. fetch     the version into the cache, verified; nothing where this engine holds it
    2. pause     generation stops between two steps; requests in flight are kept
    3. load      weights are replaced in place
    4. label     from here tokens carry the new version, and the prefix cache a new salt
    5. resume    requests go on
    6. announce  the caller gets the version; a fresh start of this engine would begin with it

Of two loads that are asked for the later one counts: the first ends before 2, if it has not come to it.

A failure in 3 loads the version before, from the cache, and says so; if that fails too the process ends, and its
supervisor starts it again at the version the release log names.
"""

import asyncio
import logging
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from infra.errors import ControlError
from ingest.records.events import Version
from ingest.store.versions import VersionStore
from serving.engine.cache import Cache
from serving.engine.capture import Capture

logger = logging.getLogger(__name__)


class Engine(Protocol):
    """The methods of `AsyncLLM` that a swap needs."""

    async def pause_generation(self, *, mode: str, clear_cache: bool) -> None: ...
    async def resume_generation(self) -> None: ...
    async def start_weight_update(self) -> None: ...
    async def update_weights(self, request: Any) -> None: ...
    async def finish_weight_update(self, weight_version: str | None = None) -> None: ...


@dataclass(frozen=True)
class Swap:
    """What a load took, in seconds. `pause_s` is the time in which no token was made."""

    version: int
    digest: str
    fetch_s: float
    pause_s: float


class SupersededError(ControlError):
    """A load that counts no more."""


class Loader:
    """Fetches versions and swaps them into one engine, one at a time, for the newest writer of releases alone."""

    def __init__(self, store: VersionStore, cache: Path, keep: int, serving: Version) -> None:
        self._cache = Cache(store, cache, keep, serving)
        self._lock = asyncio.Lock()
        self._epoch = self._last = 0
        self._holding: asyncio.Task[None] | None = None
        self.serving = serving
        self._cache.remember(serving.version)

    @property
    def held(self) -> tuple[int, ...]:
        """Versions that can be served without the store, ascending."""
        return self._cache.held()

    async def load(self, version: int, engine: Engine, capture: Capture, epoch: int | None = None) -> Swap:
        """Serve `version` from now on. `epoch` is the writer's whose release says so, `None` for nobody's.

        Raises:
            StoreError: the version cannot be fetched, verified, or holds weights that are not finite.
            SupersededError: another load was asked for since.
            ControlError: a newer writer was here, or the engine could not load it; it serves the version before.
        """
        self._fence(epoch)
        self._last += 1
        own = self._last
        async with self._lock:
            self._require_last(own, version)
            begun = time.monotonic()
            manifest, folder = await asyncio.to_thread(self._cache.fetch, version)
            self._require_last(own, version)
            fetched = time.monotonic()
            await self._swap(manifest, folder, engine, capture)
            swap = Swap(version, manifest.digest, fetched - begun, time.monotonic() - fetched)
            await asyncio.to_thread(self._cache.remember, version)
            await asyncio.to_thread(self._cache.evict, version)
            return swap

    def _require_last(self, own: int, version: int) -> None:
        if own != self._last:
            raise SupersededError(f"version {version} is not loaded: another load was asked for since")

    def hold(self, versions: Iterable[int]) -> None:
        """Keep these versions at hand from now on; those that are missing are fetched beside all else."""
        self._cache.want(versions)
        if self._holding is None or self._holding.done():  # one at a time: loads need threads, too
            self._holding = asyncio.create_task(asyncio.to_thread(self._cache.fetch_wanted))

    def _fence(self, epoch: int | None) -> None:
        if epoch is None:
            return
        if epoch < self._epoch:
            raise ControlError(f"epoch {self._epoch} writes releases now: a load of epoch {epoch} is not done")
        self._epoch = epoch

    async def _swap(self, manifest: Version, folder: Path, engine: Engine, capture: Capture) -> None:
        before = self.serving
        await engine.pause_generation(mode="keep", clear_cache=False)
        failure: Exception | None = None
        try:
            await _replace(engine, folder, manifest.version)
            self.serving = manifest
        except Exception as exc:  # whatever vLLM raised, users get the version before
            logger.exception("version %d did not load; going back to %d", manifest.version, before.version)
            failure = exc
            await self._restore(before, engine)
        capture.version = self.serving.version
        capture.epoch += 1
        await engine.resume_generation()
        if failure is not None:
            told = f"version {manifest.version} did not load, serving {before.version}: {failure}"
            raise ControlError(told) from failure

    async def _restore(self, before: Version, engine: Engine) -> None:
        """Raises `ControlError` where that fails too: no token may be made of weights that are no version."""
        try:
            _, folder = await asyncio.to_thread(self._cache.fetch, before.version)
            await _replace(engine, folder, before.version)
        except Exception as exc:  # neither version is whole in memory: only a fresh process may serve
            logger.exception("version %d did not come back either; this process ends", before.version)
            os.kill(os.getpid(), signal.SIGTERM)
            raise ControlError(f"version {before.version} did not come back either: {exc}") from exc


async def _replace(engine: Engine, folder: Path, version: int) -> None:
    from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

    await engine.start_weight_update()
    await engine.update_weights(WeightTransferUpdateRequest(update_info={"folder": str(folder)}))
    await engine.finish_weight_update(str(version))
