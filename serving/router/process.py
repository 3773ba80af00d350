"""The router's process, built from the configuration."""

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import uvicorn

from infra import health
from infra.config import Config, RouterConfig
from infra.errors import NewerError
from infra.lifecycle import Pulse, Stop, collect_briefly
from ingest.log.connect import connect
from ingest.log.protocol import EventLog
from ingest.log.reader import outlast_outages
from ingest.privacy.intake import Intake
from ingest.store.releases import ReleaseFollower
from serving.ports import require_free
from serving.router.front import Router
from serving.spool import Shipper, Spool

logger = logging.getLogger(__name__)


def run(config: Config) -> None:
    """The router, until SIGTERM."""
    own = config.serving.router
    require_free(own.bound, own.port, "serving.router.port")
    stop = Stop.on_signals()  # uvicorn takes them over while it serves, and raises them again when it has ended
    capture = config.serving.capture
    spool = Spool(Path(capture.spool_dir) / "router", capture.max_spool_bytes, capture.segment_bytes)
    router = Router({slot.id: slot for slot in config.serving.engines}, own, spool, Intake.of(config))
    health.serve(config.health, stop.pulse, lambda: router.trouble)
    open_log = partial(connect, config, client_id="router")
    shipper = Shipper(spool, open_log, stop)
    shipper.start()
    threading.Thread(target=follow_releases, args=(open_log, router, stop), daemon=True).start()
    asyncio.run(_serve_router(router, own, stop.pulse))
    stop.set()
    shipper.finish(5.0)


async def _serve_router(router: Router, own: RouterConfig, pulse: Pulse) -> None:
    await router.start()
    beside = [asyncio.create_task(router.probe()), asyncio.create_task(health.beat(pulse))]
    server = uvicorn.Server(
        uvicorn.Config(
            router.application(),
            host=own.bound,
            port=own.port,
            log_level="warning",
            access_log=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=own.drain_s,
        )
    )
    collect_briefly()
    try:
        await server.serve()
    finally:
        for task in beside:
            task.cancel()
        await router.close()


def follow_releases(open_log: Callable[[], EventLog], router: Router, stop: Stop) -> None:
    """Keep `router.served` at the head of the release log; through an outage the router serves what it knew.

    A release of a version newer than this process knows ends that: nobody here can tell what is on trial any more.
    Users are served on, and no session is given to a trial, so a trial has no evidence from a router that does not
    know its state. The counter `releases_too_new` says so until the router is upgraded.
    """

    def follow() -> None:
        log = open_log()
        follower = ReleaseFollower(log, router.served)
        try:
            while not stop.is_set():
                router.served = follower.poll(0.5)
        except NewerError as exc:
            logger.error("router: no session goes to a trial any more: %s", exc)
            router.served = replace(router.served, share=0.0, block=None)
            router.counts["releases_too_new"] += 1
        finally:
            follower.close()
            log.close()

    outlast_outages(stop, follow)
