"""`python -m rewards --config onstream.yaml`: the rewards stage (see `rewards.stage`)."""

import argparse
import socket
import sys

from infra import cli, telemetry
from infra.config import Config


def main(argv: list[str]) -> int:
    """Score trajectories until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m rewards", description=__doc__)
    cli.add_config(parser)
    return cli.guarded(parser.parse_args(argv).config, run)


def run(config: Config) -> None:
    """The stage with the log and the reward spec of the configuration.

    Raises:
        ConfigError: the reward spec, a scorer in it, or a guardrail of the gate cannot be used.
        StartError: engines have scoring ports, and there is no credential for them.
    """
    from infra import health
    from infra.lifecycle import Stop
    from ingest.log.connect import connect
    from ingest.log.reader import outlast_outages
    from rewards import spec, stage
    from rewards.asking import Background
    from rewards.scorers import Services
    from rewards.summary import engines

    scoring, services = spec.of(config), Services(engines.of(config))
    telemetry.setup("rewards")
    stop = Stop.on_signals()
    health.serve(config.health, stop.pulse)
    log = connect(config, client_id="rewards", member=socket.gethostname())
    try:
        with Background(services) as asking:
            outlast_outages(stop, lambda: stage.run(log, config, scoring, asking, stop), pulse=stop.pulse)
    finally:
        log.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
