"""`onstream audit`: every trace and every feedback on the log, accounted for (see `ingest.audit.account`)."""

import argparse
import time
from collections.abc import Callable
from functools import partial

from infra import broker, cli
from infra.config import Config
from infra.lifecycle import Deadline
from ingest.audit import reading
from ingest.audit.account import Account, Limits
from ingest.audit.reading import OpenLog, Say
from ingest.audit.show import bar, show
from ingest.log.protocol import EventLog

RETRY_S = 1.0


def settle(
    log: EventLog,
    limits: Limits,
    wait_s: float,
    clock: Callable[[], float] = time.time,
    open_log: OpenLog | None = None,
    say: Say = reading.silent,
) -> Account:
    """Take the account; for up to `wait_s`, take it again until every trace has its fate. See `reading.take`."""
    deadline = Deadline.after(wait_s)
    while True:
        found = reading.take(log, limits, clock(), open_log, say)
        if found.is_settled() or deadline.passed():
            return found
        time.sleep(min(RETRY_S, deadline.left_s()))


def main(argv: list[str]) -> int:
    """The command. Exit status 0: every trace and all feedback is explained, and no trace has two fates."""
    about = "Account for every trace and every feedback on the log."
    parser = argparse.ArgumentParser(prog="onstream audit", description=about)
    cli.add_config(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="wait for traces still in flight")
    args = parser.parse_args(argv)

    def run(config: Config) -> int:
        from ingest.log.connect import connect

        broker.require_running(config.log)
        open_log = partial(connect, config, client_id="audit")
        log = open_log()
        try:
            with bar() as say:
                found = settle(log, Limits.of(config), args.wait, open_log=open_log, say=say)
        finally:
            log.close()
        print(found.as_json()) if args.json else show(found)
        return 0 if found.is_complete() else 1

    return cli.guarded(args.config, run, verbose=False)
