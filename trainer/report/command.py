"""`onstream train report`: what the trainer did, version by version."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from infra import cli

if TYPE_CHECKING:  # pydantic, polars and rich are imported by what needs them: `--help` does not
    from infra.config import Config
    from trainer.report.core import Report


def main(argv: list[str]) -> int:
    """The command."""
    about = "What the trainer did, version by version: reward, KL, entropy, ESS, staleness, turns used and wasted."
    parser = argparse.ArgumentParser(prog="onstream train report", description=about)
    parser.add_argument("--html", metavar="FILE", help="write it as a page with plots, too")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    cli.add_config(parser)
    args = parser.parse_args(argv)

    def run(config: "Config") -> int:
        from infra import broker
        from ingest.log.connect import connect
        from trainer.report import reading

        broker.require_running(config.log)
        log = connect(config, client_id="report")
        try:
            told = reading.read(config, log)
        finally:
            log.close()
        return tell(config, told, args)

    return cli.guarded(args.config, run, verbose=False)


def tell(config: "Config", told: "Report", args: argparse.Namespace) -> int:
    """Write and print. Raises `ConfigError` where the page cannot be written, `StoreError` where there is nothing."""

    from infra.errors import ConfigError, StoreError
    from trainer.report import page, show

    if not told.versions:
        raise StoreError(f"store: there is no version in {config.store.url} yet, and none was announced on the log")
    if args.html:
        try:
            Path(args.html).write_text(page.report(told, config.trainer.alarms), encoding="utf-8")
        except OSError as exc:
            raise ConfigError(f"--html {args.html}: not written: {exc}") from exc
    if args.json:
        print(show.as_json(told))
        return 0
    console = cli.console(width=160)
    for part in show.tables(told):
        console.print(part)
    if args.html:
        print(f"written to {args.html}", file=sys.stderr)
    return 0
