"""An engine's control plane: on its own port, behind its own credential, and unreachable from the data plane.

vLLM's own weight routes exist only together with `/collective_rpc` (development mode), so they stay off; this small
application calls the same engine methods. A load goes:

    1. fetch     the version from the store into the cache; sizes and digests verified, weights finite
    2. pause     generation stops between two steps; requests in flight are kept
    3. load      weights are replaced in place
    4. label     from here tokens carry the new version, and the prefix cache a new salt
    5. resume    requests go on
    6. announce  the caller gets the version; a fresh start of this engine would begin with it

A failure in 3 loads the version before, from the cache, and says so; if that fails too the process ends, and its
supervisor starts it again at the version the release log names.
"""

import asyncio
import logging
import os
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from infra import telemetry
from infra.errors import ControlError, OnstreamError, StoreError
from infra.telemetry import metrics, names
from ingest.records.events import Version
from ingest.store.versions import VersionStore
from serving.engine.capture import Capture
from serving.engine.idle import Users
from serving.guard import bearer

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


class Loader:
    """Fetches versions and swaps them into one engine, one at a time."""

    def __init__(self, store: VersionStore, cache: Path, keep: int, serving: Version) -> None:
        self._store, self._cache, self._keep = store, cache, keep
        self._lock = asyncio.Lock()
        self.serving = serving
        remember(cache, serving.version)

    async def load(self, version: int, engine: Engine, capture: Capture) -> Swap:
        """Serve `version` from now on.

        Raises:
            StoreError: the version cannot be fetched, verified, or holds weights that are not finite.
            ControlError: the engine could not load it; it serves the version before.
        """
        async with self._lock:
            begun = time.monotonic()
            manifest = await asyncio.to_thread(self._store.read, version)
            folder = await asyncio.to_thread(self._store.fetch, manifest, self._cache)
            await asyncio.to_thread(check_finite, folder, version)
            fetched = time.monotonic()
            await self._swap(manifest, folder, engine, capture)
            swap = Swap(version, manifest.digest, fetched - begun, time.monotonic() - fetched)
            remember(self._cache, version)
            await asyncio.to_thread(self._evict)
            return swap

    async def _swap(self, manifest: Version, folder: Path, engine: Engine, capture: Capture) -> None:
        before = self.serving
        await engine.pause_generation(mode="keep", clear_cache=False)
        try:
            await _replace(engine, folder, manifest.version)
            self.serving = manifest
        except Exception as exc:  # whatever vLLM raised, users get the version before
            logger.exception("version %d did not load; going back to %d", manifest.version, before.version)
            await self._restore(before, engine)
            raise ControlError(f"version {manifest.version} did not load, serving {before.version}: {exc}") from exc
        finally:
            capture.version = self.serving.version
            capture.epoch += 1
            await engine.resume_generation()

    async def _restore(self, before: Version, engine: Engine) -> None:
        try:
            folder = await asyncio.to_thread(self._store.fetch, before, self._cache)
            await _replace(engine, folder, before.version)
        except Exception:  # neither version is whole in memory: only a fresh process may serve
            logger.exception("version %d did not come back either; this process ends", before.version)
            os.kill(os.getpid(), signal.SIGTERM)

    def _evict(self) -> None:
        """Keep the newest folders of the cache, and the one being served."""
        folders = sorted(self._cache.glob("*-*"), key=lambda path: path.stat().st_mtime, reverse=True)
        mine = self.serving.folder.rsplit("/", 1)[1]
        for folder in folders[self._keep :]:
            if folder.name != mine:
                shutil.rmtree(folder, ignore_errors=True)


def remember(cache: Path, version: int) -> None:
    """Note the version served last, for a start without the broker."""
    cache.mkdir(parents=True, exist_ok=True)
    (cache / "serving").write_text(str(version))


def remembered(cache: Path) -> int | None:
    """The version served last, if this engine ever served."""
    note = cache / "serving"
    return int(note.read_text()) if note.exists() else None


async def _replace(engine: Engine, folder: Path, version: int) -> None:
    from vllm.distributed.weight_transfer.base import WeightTransferUpdateRequest

    await engine.start_weight_update()
    await engine.update_weights(WeightTransferUpdateRequest(update_info={"folder": str(folder)}))
    await engine.finish_weight_update(str(version))


def check_finite(folder: Path, version: int) -> None:
    """Read every weight once.

    Raises:
        StoreError: names the first tensor with a NaN or an infinity.
    """
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - a safetensors file is no mapping
                if not _is_finite(file.get_tensor(name)):
                    raise StoreError(f"version {version}: {name} holds a NaN or an infinity")


def _is_finite(tensor: Any) -> bool:
    """Whether no element is a NaN or an infinity. The least and the greatest tell, in a thirtieth of the time."""
    import torch

    if tensor.numel() == 0:
        return True
    if tensor.is_floating_point() and tensor.element_size() == 1:
        tensor = tensor.half()  # torch compares no numbers of eight bits
    return bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all())


class LoadRequest(BaseModel):
    """The body of `POST /load`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    version: int


def application(
    loader: Loader, engine: Engine, capture: Capture, users: Users, engine_id: str, token: str
) -> Starlette:
    """The control application: `GET /status` and `POST /load {"version": n}`, each with `Authorization: Bearer`.

    `in_flight` counts users' requests only: a swap need not wait for scorers.
    """

    mine: names.Told = {names.ENGINE: engine_id}
    telemetry.observe(metrics.ENGINE_VERSION, lambda: [(loader.serving.version, mine)])
    telemetry.observe(metrics.IN_FLIGHT, lambda: [(users.num, mine)])

    async def status(_request: Request) -> JSONResponse:
        return JSONResponse(
            {
                "engine": engine_id,
                "version": loader.serving.version,
                "digest": loader.serving.digest,
                "in_flight": users.num,
            }
        )

    async def load(request: Request) -> JSONResponse:
        raw = await request.body()
        try:
            number = LoadRequest.model_validate_json(raw).version
        except ValidationError:
            return JSONResponse({"error": f'body must be {{"version": <number>}}, got {raw!r:.200}'}, 400)
        try:
            with telemetry.span(names.SWAP, {**mine, names.VERSION: number}, parent=request.headers):
                swap = await loader.load(number, engine, capture)
        except OnstreamError as exc:
            telemetry.count(metrics.SWAPS_FAILED, 1, mine)
            return JSONResponse({"error": str(exc), "version": loader.serving.version}, 409)
        telemetry.record(metrics.SWAP_PAUSE, swap.pause_s, mine)
        telemetry.record(metrics.SWAP_DURATION, swap.fetch_s + swap.pause_s, mine)
        logger.info("serving version %d (fetched in %.2f s, paused %.3f s)", swap.version, swap.fetch_s, swap.pause_s)
        return JSONResponse(
            {"version": swap.version, "digest": swap.digest, "fetch_s": swap.fetch_s, "pause_s": swap.pause_s}
        )

    return Starlette(
        routes=[
            Route("/status", bearer(status, token, "control"), methods=["GET"]),
            Route("/load", bearer(load, token, "control"), methods=["POST"]),
        ]
    )
