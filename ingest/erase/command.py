"""`onstream erase --user NAME`: see `ingest.erase.erasure`."""

import argparse
from collections.abc import Iterable
from typing import TYPE_CHECKING

from infra import cli
from infra.errors import ConfigError

if TYPE_CHECKING:  # pydantic, polars and rich are imported by what needs them: `--help` does not
    from infra.config import Config
    from ingest.erase.erasure import Kept


def main(argv: list[str]) -> int:
    """The command. Exit status 1 where the user is erased and something of the weight store could not be read."""
    about = "Erase a user: what they typed cannot be read any more, wherever it lies. There is no way back."
    parser = argparse.ArgumentParser(prog="onstream erase", description=about)
    cli.add_config(parser)
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--user", metavar="NAME", help="as clients name them")
    who.add_argument("--pseudonym", metavar="HEX", help="as traces name them")
    parser.add_argument("--tenant", default="default", help="whose user that is (default: default)")
    parser.add_argument("--json", action="store_true", help="one JSON object, with every trace's id, instead of tables")
    args = parser.parse_args(argv)

    def run(config: "Config") -> int:
        from infra import broker, telemetry
        from ingest.erase import show
        from ingest.erase.erasure import erase
        from ingest.log.connect import as_it_lies
        from ingest.privacy.keys import KeyStore
        from ingest.store.versions import VersionStore

        telemetry.setup("erase", is_brief=True)
        user = _named(config, args.tenant, args.user) if args.pseudonym is None else _pseudonym(args.pseudonym)
        broker.require_running(config.log)
        log = as_it_lies(config, client_id="erase")
        try:
            found = erase(
                log, KeyStore.of(config), user, VersionStore(config.store.url), lambda: _in_lake(config, user)
            )
        finally:
            log.close()
        print(show.as_json(user, found)) if args.json else show.on_screen(user, found, config.privacy.key_cache_s)
        return 1 if found.unread else 0

    return cli.guarded(args.config, run, verbose=False)


def _in_lake(config: "Config", user: str) -> Iterable["Kept"]:
    from ingest.erase.erasure import Kept
    from ingest.lake.storage import Storage
    from ingest.lake.table import Lake
    from ingest.lake.touched import touched

    return (Kept(*told) for told in touched(Lake(Storage(config.ingest.lake.url)), user))


def _named(config: "Config", tenant: str, user: str) -> str:
    """The pseudonym of who is named so: a name that is nobody's would erase nothing, and look like an erasure."""
    from ingest.privacy import secret
    from ingest.privacy.pseudonyms import user_pseudonym

    known = {"default", *config.serving.router.api_keys.values()}
    if tenant not in known:
        raise ConfigError(f"--tenant: must be one of the configuration's, {', '.join(sorted(known))}, got {tenant!r}")
    if not user:
        raise ConfigError(f"--user: must name somebody, got {user!r}")
    return user_pseudonym(secret.load(config.privacy, config.run_dir), tenant, user)


def _pseudonym(given: str) -> str:
    from ingest.privacy.pseudonyms import is_pseudonym

    if not is_pseudonym(given):
        raise ConfigError(f"--pseudonym: must be 32 hex digits, as traces name their user, got {given!r}")
    return given
