"""The serving processes, built from the configuration: engine, router, rollout."""

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import uvicorn

from infra import answers, health
from infra.config import Config, RouterConfig
from infra.errors import NewerError
from infra.lifecycle import Pulse, Stop
from ingest.log.connect import connect
from ingest.log.protocol import EventLog
from ingest.log.reader import outlast_outages
from ingest.privacy.intake import Intake
from ingest.store.releases import ReleaseFollower
from ingest.store.versions import VersionStore
from serving.engines import EngineControl
from serving.guard import control_token
from serving.ports import require_free
from serving.rollout import Rollout
from serving.router import Router
from serving.spool import Shipper, Spool

logger = logging.getLogger(__name__)


def run_router(config: Config) -> None:
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
            router.served = replace(router.served, share=0.0)
            router.counts["releases_too_new"] += 1
        finally:
            follower.close()
            log.close()

    outlast_outages(stop, follow)


def run_rollout(config: Config) -> None:
    """The controller, until SIGTERM."""
    own = config.serving.rollout
    token = control_token()
    stop = Stop.on_signals()
    health.serve(config.health, stop.pulse)
    shown: dict[str, Rollout] = {}
    told = {"/status": lambda: (200, state_of(shown.get("rollout")))}
    answers.serve(own.bound, own.port, told, "serving.rollout.port")

    def control() -> None:
        log = connect(config, client_id="rollout")
        engines = {slot.id: EngineControl(slot, config.model.name, token) for slot in config.serving.engines}
        kept = Path(config.run_dir) / "rollout" / "evidence.json"
        rollout = Rollout(log, VersionStore(config.store.url), engines, own, kept, pulse=stop.pulse)
        try:
            rollout.start()
            shown["rollout"] = rollout
            while not stop.is_set():
                rollout.tick()
                stop.pulse.beat()
        finally:
            rollout.close()
            log.close()

    outlast_outages(stop, control, pulse=stop.pulse)


def state_of(rollout: Rollout | None) -> dict[str, object]:
    """What people and pipelines may know of the trial."""
    if rollout is None:
        return {"state": "starting"}
    served = rollout.served
    standing = rollout.standing
    return {
        "state": served.state if served.state is not None else "idle",
        "stable": served.stable,
        "candidate": served.candidate,
        "share": served.share,
        "trials": len(served.trials),
        "promoted": list(served.promoted),
        "champion_units": len(rollout.evidence.champion.get(served.stable or 0, ())),
        "standing": asdict(standing) if standing is not None else None,
    }
