"""`onstream lineage VERSION`, and `onstream lineage --trace ID`: see `ingest.lineage.core`."""

import argparse
from typing import TYPE_CHECKING

from infra import cli

if TYPE_CHECKING:  # pydantic, polars and rich are imported by what needs them: `--help` does not
    from infra.config import Config
    from ingest.lineage.core import Footprint
    from ingest.lineage.reading import InLake
    from ingest.log.protocol import EventLog
    from ingest.store.versions import VersionStore


def main(argv: list[str]) -> int:
    """The command. Exit status 1 for a version that there never was, or a trace that nothing here knows."""
    about = "What a version is made of and who let it out, or what a trace has become part of."
    parser = argparse.ArgumentParser(prog="onstream lineage", description=about)
    cli.add_config(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("version", metavar="VERSION", type=int, nargs="?", help="a version's number")
    what.add_argument("--trace", metavar="ID", help="a trace's or a completion's id")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    args = parser.parse_args(argv)

    def run(config: "Config") -> int:
        from infra import broker
        from ingest.log.connect import connect
        from ingest.store.signing import Trust
        from ingest.store.versions import VersionStore

        broker.require_running(config.log)
        store = VersionStore(config.store.url, trust=Trust.of(config.store.signing))  # tells of what is not signed, too
        log = connect(config, client_id="lineage")
        try:
            if args.trace is None:
                return _version(args.version, log, store, args.json)
            return _trace(args.trace, config, log, store, args.json)
        finally:
            log.close()

    return cli.guarded(args.config, run, verbose=False)


def _version(version: int, log: "EventLog", store: "VersionStore", as_json: bool) -> int:
    from ingest.lineage import reading, show

    found = reading.ancestry(version, log, store)
    _print(show.ancestry_json(found) if as_json else show.ancestry(found))
    return 0


def _trace(asked: str, config: "Config", log: "EventLog", store: "VersionStore", as_json: bool) -> int:
    from ingest.lineage import reading, show

    found = reading.trace(_id_of(asked), log, store, lambda trace_id: _in_lake(config, trace_id))
    _print(show.footprint_json(found) if as_json else show.footprint(found))
    return 0 if _is_known(found) else 1


def _is_known(found: "Footprint") -> bool:
    from ingest.lineage.core import Seen

    return bool(found.trained or found.fate or found.seen is not Seen.NOWHERE)


def _id_of(asked: str) -> str:
    from infra.errors import ConfigError
    from ingest.records.ids import is_trace_id, trace_of

    trace_id = trace_of(asked)
    if not is_trace_id(trace_id):
        raise ConfigError(
            f"--trace: must be a trace's id, as x-onstream-trace gives it, or a completion's, got {asked!r}"
        )
    return trace_id


def _in_lake(config: "Config", trace_id: str) -> "InLake | None":
    """The trace's row in the lake, where anything was written to one."""
    from ingest.lake.manifest import Table
    from ingest.lake.reading import Reading, told_plainly
    from ingest.lake.storage import Storage
    from ingest.lake.table import Lake
    from ingest.lake.traced import traced
    from ingest.lineage.reading import InLake

    if not Lake(Storage(config.ingest.lake.url)).refresh().of(Table.TURNS):
        return None
    with told_plainly(config):
        found = traced(Reading.of(config), trace_id)
    return None if found is None else InLake(*found)


def _print(told: object) -> None:
    if isinstance(told, str):
        print(told)
        return
    cli.console(width=160).print(told)
