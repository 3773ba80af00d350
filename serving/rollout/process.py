"""The controller's process, built from the configuration."""

import logging
import time
from dataclasses import asdict
from pathlib import Path

from infra import health
from infra.config import Config
from infra.lifecycle import Stop, run_until_stopped, steady_time
from ingest.log.connect import connect
from ingest.log.protocol import EventLog
from ingest.log.reader import outlast_outages
from ingest.records.events import TrialState
from ingest.store.versions import VersionStore
from serving.guard import control_token
from serving.rollout import port
from serving.rollout.controller import Rollout
from serving.rollout.desk import Desk
from serving.rollout.engines import EngineControl
from serving.rollout.lane import thread as lane
from serving.rollout.operators.books import Books
from serving.rollout.operators.routes import routes
from serving.rollout.replay import check as replay
from serving.rollout.stages import CheckMaker
from serving.rollout.suites import check as suites

_END_S = 15.0  # a tick and the evidence; a load may take 600 s, and is made good by reconciling

logger = logging.getLogger(__name__)


def run(config: Config) -> None:
    """The controller, until SIGTERM."""
    own = config.serving.rollout
    token = control_token()
    stop = Stop.on_signals()
    health.serve(config.health, stop.pulse)
    shown: dict[str, Rollout] = {}
    desk, now = Desk(), steady_time()
    past = routes(Books(lambda: connect(config, client_id="rollout-past"), own, now), token)
    port.serve(port.application(lambda: state_of(shown.get("rollout")), desk, token, past), own.bound, own.port)

    lane.start(config, lambda: connect(config, client_id="lane"), token, stop)

    def control() -> None:
        log = connect(config, client_id="rollout")
        engines = {slot.id: EngineControl(slot, config.model.name, token) for slot in config.serving.engines}
        kept = Path(config.run_dir) / "rollout" / "evidence.json"
        store = VersionStore.of(config.store)
        checks = checks_of(config, log)
        rollout = Rollout(log, store, engines, own, kept, now=now, pulse=stop.pulse, desk=desk, checks=checks)
        try:
            rollout.start()
            shown["rollout"] = rollout
            while not stop.is_set():
                rollout.tick()
                stop.pulse.beat()
        finally:
            rollout.close()
            log.close()

    def work() -> None:
        outlast_outages(stop, control, pulse=stop.pulse)

    if not run_until_stopped(work, stop, _END_S):
        logger.warning("rollout: what an engine is loading is left to it; the next controller reads what it serves")


def checks_of(config: Config, log: EventLog) -> dict[TrialState, CheckMaker]:
    """The checks before users that a configuration asks for."""
    makers = {TrialState.SUITES: suites.maker(config), TrialState.REPLAY: replay.maker(config, log)}
    return {state: maker for state, maker in makers.items() if maker is not None}


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
        "mode": served.mode,
        "holdback": served.holdback,
        "epoch": served.epoch,
        "release": served.last,
        "engines": dict(served.engines),
        "held": {name: sorted(held) for name, held in rollout.held.items()},
        "disagreement": [one.told(time.monotonic()) for one in rollout.disagreements.values()],
    }
