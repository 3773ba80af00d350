"""`onstream keys rewrap`: the step between a new wrapping line of the master secret and the end of the old one."""

import argparse

from infra import cli
from infra.config import Config


def main(argv: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="onstream keys", description="Users' keys: see docs/erasure.md.")
    actions = parser.add_subparsers(dest="action", required=True)
    about = "Wrap every key anew under the first wrapping line of the master secret. May be repeated at any time."
    cli.add_config(actions.add_parser("rewrap", help=about, description=about))
    args = parser.parse_args(argv)

    def run(config: Config) -> int:
        from rich.console import Console
        from rich.progress import Progress

        from ingest.privacy.keys import KeyStore

        with Progress(console=Console(stderr=True)) as progress:
            task = progress.add_task("keys", total=None)
            num = KeyStore.of(config).rewrap(lambda done, total: progress.update(task, completed=done, total=total))
        print(f"{num} keys were wrapped anew; the lines of the secret behind its second one can go, everywhere")
        return 0

    return cli.guarded(args.config, run, verbose=False)
