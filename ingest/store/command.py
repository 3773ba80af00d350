"""`onstream sign`: the signature of versions that were published without one, or by a key that is being replaced."""

import argparse

from infra import cli
from infra.config import Config


def main(argv: list[str]) -> int:
    """The command."""
    about = "Sign versions of the weight store with the key that `store.signing` names: see docs/lineage.md."
    parser = argparse.ArgumentParser(prog="onstream sign", description=about)
    cli.add_config(parser)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("versions", metavar="VERSION", type=int, nargs="*", default=[], help="numbers of versions")
    which.add_argument("--all", action="store_true", help="every version of the store")
    args = parser.parse_args(argv)

    def run(config: Config) -> int:
        from infra.errors import ConfigError, SignatureError
        from ingest.store.signing import Signer
        from ingest.store.versions import VersionStore

        if Signer.of(config.store.signing) is None:
            raise ConfigError("store.signing: neither `key_file` nor `key_env` says what to sign with")
        store = VersionStore.of(config.store, publishes=True)
        refused = 0
        for version in store.versions() if args.all else args.versions:
            try:
                print(f"version {version}: {store.sign(version).told}")
            except SignatureError as exc:
                refused += 1
                print(exc)
        return 1 if refused else 0

    return cli.guarded(args.config, run, verbose=False)
