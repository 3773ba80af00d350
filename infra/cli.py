"""The front of `onstream <command>`: finds commands by entry point, so that nothing imports sideways.

A command is `main(argv) -> exit status`, registered in the group `onstream.commands`.
"""

import argparse
import logging
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from infra import lifecycle
from infra.errors import OnstreamError

if TYPE_CHECKING:  # pydantic is imported by what reads a configuration: `--help` does not
    from rich.console import Console

    from infra.config import Config

GROUP = "onstream.commands"
DEFAULT_CONFIG = "onstream.yaml"


def main() -> int:
    """Run `onstream <command> ...`."""
    commands = {point.name: point for point in entry_points(group=GROUP)}
    parser = argparse.ArgumentParser(
        prog="onstream",
        description="Turns a model people already use into one that keeps learning from that use, safely.",
        epilog="`onstream <command> --help` tells more.",
    )
    parser.add_argument("command", choices=sorted(commands), help="what to do")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args()
    return _load(commands[args.command])(args.rest)


def _load(point: EntryPoint) -> Callable[[list[str]], int]:
    command: Callable[[list[str]], int] = point.load()
    return command


def add_config(parser: argparse.ArgumentParser) -> None:
    """Every command and process takes the configuration the same way."""
    parser.add_argument("--config", "-c", default=DEFAULT_CONFIG, help="the configuration file (%(default)s)")


def console(width: int = 120) -> "Console":
    """Where a command prints its tables: `width` columns where it cannot ask a terminal, in place of rich's 80."""
    from rich.console import Console

    screen = Console(highlight=False)
    return screen if screen.is_terminal else Console(highlight=False, width=width)


def guarded(path: str, run: "Callable[[Config], int | None]", verbose: bool = True) -> int:
    """Load the configuration and call `run` with it; a mistake of the user's is one message, not a stack trace.

    A stage is `verbose`; a command says only what is wrong, and ends soon.
    """
    if not verbose:
        lifecycle.collect_little()
    from infra import config  # after the collector was told

    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for every question asked of an engine
    try:
        return run(config.load(path)) or 0
    except OnstreamError as exc:
        print(f"onstream: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
