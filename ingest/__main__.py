"""`python -m ingest [sessions | lake] --config onstream.yaml`: closes sessions, or writes the lake.

See `ingest.sessions.assemble` and `ingest.lake.writer`. Without a role, sessions are closed.
"""

import argparse
import socket
import sys
import threading

from infra import cli, telemetry
from infra.config import Config


def main(argv: list[str]) -> int:
    """Run one ingest process until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m ingest", description=__doc__)
    parser.add_argument("role", nargs="?", choices=("sessions", "lake"), default="sessions")
    cli.add_config(parser)
    args = parser.parse_args(argv)
    return cli.guarded(args.config, run_lake if args.role == "lake" else run)


def run(config: Config) -> None:
    """The stage that closes sessions, with the log of the configuration."""
    from infra import health
    from infra.lifecycle import Stop, collect_rarely
    from ingest.log.claims import keep_sweeping
    from ingest.log.connect import claims, connect
    from ingest.log.reader import outlast_outages
    from ingest.sessions import assemble

    telemetry.setup("ingest")
    stop = Stop.on_signals()
    health.serve(config.health, stop.pulse)
    log = connect(config, client_id="ingest", member=socket.gethostname(), is_eager=True)
    threading.Thread(target=keep_sweeping, args=(claims(config), stop), daemon=True).start()
    collect_rarely()
    try:
        outlast_outages(stop, lambda: assemble.run(log, config, stop), pulse=stop.pulse)
    finally:
        log.close()


def run_lake(config: Config) -> None:
    """The stage that writes the lake, with the log and the lake of the configuration."""
    from infra import health
    from infra.errors import LakeError, LogError
    from infra.lifecycle import Stop
    from ingest.lake import writer
    from ingest.lake.content import Vault
    from ingest.lake.sealing import Keys
    from ingest.lake.storage import Storage
    from ingest.lake.table import Lake
    from ingest.log.connect import connect
    from ingest.log.reader import outlast_outages
    from ingest.privacy.keys import KeyStore

    telemetry.setup("lake")
    stop = Stop.on_signals()
    health.serve(config.health, stop.pulse)
    lake, vault = Lake(Storage(config.ingest.lake.url)), Vault(Keys(KeyStore.of(config)))
    log = connect(config, client_id="lake", member=socket.gethostname())
    try:
        outlast_outages(stop, lambda: writer.run(log, lake, vault, config, stop), (LogError, LakeError), stop.pulse)
    finally:
        log.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
