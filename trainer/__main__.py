"""`python -m trainer --config onstream.yaml`: the trainer stage (see `trainer.loop`)."""

import argparse
import logging
import socket
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from infra import cli, telemetry
from infra.config import Config
from infra.errors import LogError, StoreOutageError

if TYPE_CHECKING:
    from trainer.loop import Trainer

logger = logging.getLogger(__name__)

OUTAGES = (LogError, StoreOutageError)
"""What the stage outlasts, with its workers. What is damaged, or does not load, is none: it would be so again."""


def main(argv: list[str]) -> int:
    """Train until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m trainer", description=__doc__)
    cli.add_config(parser)
    return cli.guarded(parser.parse_args(argv).config, run)


def run(config: Config) -> None:
    """The stage with Ray, the log and the store of the configuration.

    Raises:
        OnstreamError: something it needs is not there.
    """
    import ray

    from infra import answers, health
    from infra.errors import ConfigError
    from infra.lifecycle import Stop
    from ingest.log.connect import connect
    from ingest.log.reader import outlast_outages
    from ingest.sessions import contamination
    from ingest.store.versions import VersionStore
    from trainer.loop import Trainer
    from trainer.workers.actors import RayPolicy, StoppedError
    from trainer.workers.node import start_ray

    base = Path(config.model.path)
    if not (base / "config.json").is_file():
        raise ConfigError(f"model.path: {base} must be a Hugging Face folder with a config.json")
    tasks = contamination.index_of(config.ingest.contamination)
    telemetry.setup("trainer")
    stop = Stop()
    health.serve(config.health, stop.pulse)
    running: dict[str, Trainer] = {}
    starting: dict[str, object] = {"phase": "starting"}
    told = partial(_status, running, starting)
    answers.serve(config.trainer.bound, config.trainer.port, {"/status": told}, "trainer.port")
    start_ray(config.trainer)
    stop.heed_signals()  # after Ray, which installs a handler of its own
    log = connect(config, client_id="trainer", member=socket.gethostname())
    policy = RayPolicy(base, config.trainer, stop, partial(starting.__setitem__, "waits_for"))
    store = VersionStore.of(config.store, publishes=True)

    def train() -> None:
        running["trainer"] = Trainer(config, log, store, policy, stop, tasks=tasks)
        running["trainer"].run()

    try:
        outlast_outages(stop, train, OUTAGES, stop.pulse)
    except StoppedError as exc:
        logger.info("%s; the batch is read again at the next start", exc)
    finally:
        policy.close()
        log.close()
        ray.shutdown()


def _status(running: "Mapping[str, Trainer]", starting: Mapping[str, object]) -> tuple[int, Mapping[str, object]]:
    """`GET /status` of `trainer.port`: how far the next version is."""
    return 200, running["trainer"].status if running else starting


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
