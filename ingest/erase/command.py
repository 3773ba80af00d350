"""`onstream erase --user NAME`: see `ingest.erase.erasure`."""

import argparse
import json
from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from infra import broker, cli, telemetry
from infra.config import Config
from infra.errors import ConfigError
from ingest.erase.erasure import Kept, Touched


def main(argv: list[str]) -> int:
    """The command."""
    about = "Erase a user: what they typed cannot be read any more, wherever it lies. There is no way back."
    parser = argparse.ArgumentParser(prog="onstream erase", description=about)
    cli.add_config(parser)
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--user", metavar="NAME", help="as clients name them")
    who.add_argument("--pseudonym", metavar="HEX", help="as traces name them")
    parser.add_argument("--tenant", default="default", help="whose user that is (default: default)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    args = parser.parse_args(argv)

    def run(config: Config) -> int:
        from ingest.erase.erasure import erase
        from ingest.log.connect import as_it_lies
        from ingest.privacy import secret
        from ingest.privacy.keys import KeyStore
        from ingest.privacy.pseudonyms import user_pseudonym

        telemetry.setup("erase", is_brief=True)
        _require_tenant(config, args.tenant)
        user = args.pseudonym or user_pseudonym(secret.load(config.privacy, config.run_dir), args.tenant, args.user)
        broker.require_running(config.log)
        log = as_it_lies(config, client_id="erase")
        try:
            found = erase(log, KeyStore.of(config), user, lambda: _in_lake(config, user))
        finally:
            log.close()
        print(_json(user, found)) if args.json else _show(user, found, config.privacy.key_cache_s)
        return 0

    return cli.guarded(args.config, run, verbose=False)


def _in_lake(config: Config, user: str) -> Iterable[Kept]:
    from ingest.lake.storage import Storage
    from ingest.lake.table import Lake
    from ingest.lake.touched import touched

    return (Kept(*told) for told in touched(Lake(Storage(config.ingest.lake.url)), user))


def _require_tenant(config: Config, tenant: str) -> None:
    known = {"default", *config.serving.router.api_keys.values()}
    if tenant not in known:
        raise ConfigError(f"--tenant: must be one of the configuration's, {', '.join(sorted(known))}, got {tenant!r}")


def _json(user: str, found: Touched) -> str:
    return json.dumps(
        {
            "user": user,
            "keys": found.num_keys,
            "sessions": len(found.sessions),
            "traces": sorted(found.traces),
            "by_fate": dict(sorted(found.by_fate.items())),
            "versions": {str(version): num for version, num in sorted(found.versions.items())},
        }
    )


def _show(user: str, found: Touched, cache_s: float) -> None:
    console = Console(soft_wrap=True)
    table = Table("what", "how many", title=f"user {escape(user)} is erased")
    table.columns[1].justify = "right"
    for what, num in (
        ("keys removed", found.num_keys),
        ("sessions", len(found.sessions)),
        ("traces, on the log or in the lake", len(found.traces)),
        *((f"  {fate}", num) for fate, num in sorted(found.by_fate.items())),
        *((f"  trained into version {version}", num) for version, num in sorted(found.versions.items())),
    ):
        table.add_row(what, str(num))
    console.print(table)
    if not found.num_keys:
        console.print("There was no key: nothing of theirs was ever sealed, or they were erased before.")
    console.print(f"Running processes forget the keys within {cache_s:g} s.")
    if found.versions:
        console.print(
            "Versions trained on these traces are not changed by this: whether they stay is for you to decide."
        )
