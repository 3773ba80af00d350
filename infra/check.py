"""`onstream check`: whether what a configuration names is there and fits together, before anything is started.

A check is `check(config)`, registered in the group `onstream.checks`; it raises a `ConfigError` for what the user can
mend. `onstream up` begins with them, so that a mistake is one message and not a stage that is restarted for ever.
"""

import argparse
from importlib.metadata import entry_points

from infra import cli
from infra.config import Config
from infra.errors import ConfigError

GROUP = "onstream.checks"


def check(config: Config) -> None:
    """Make every check. Raises `ConfigError` with a line for each that fails."""
    told = []
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            point.load()(config)
        except ConfigError as exc:
            told.append(str(exc))
    if told:
        raise ConfigError("\n".join(told))


def main(argv: list[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="onstream check", description="Check a configuration and what it names.")
    cli.add_config(parser)
    args = parser.parse_args(argv)

    def run(config: Config) -> None:
        check(config)
        print(f"{args.config} can be used")

    return cli.guarded(args.config, run, verbose=False)
