"""`python -m ingest --config onstream.yaml`: the ingest stage (see `ingest.sessions.assemble`)."""

import argparse
import socket
import sys
import threading

from infra import cli, telemetry
from infra.config import Config


def main(argv: list[str]) -> int:
    """Close sessions into trajectories until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m ingest", description=__doc__)
    cli.add_config(parser)
    return cli.guarded(parser.parse_args(argv).config, run)


def run(config: Config) -> None:
    """The stage with the log of the configuration."""
    from infra.lifecycle import Stop, collect_rarely
    from ingest.log.claims import keep_sweeping
    from ingest.log.connect import claims, connect
    from ingest.log.reader import outlast_outages
    from ingest.sessions import assemble

    telemetry.setup("ingest")
    stop = Stop.on_signals()
    log = connect(config, client_id="ingest", member=socket.gethostname(), is_eager=True)
    threading.Thread(target=keep_sweeping, args=(claims(config), stop), daemon=True).start()
    collect_rarely()
    try:
        outlast_outages(stop, lambda: assemble.run(log, config, stop))
    finally:
        log.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
