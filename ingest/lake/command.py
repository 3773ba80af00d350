"""`onstream traces`: the lake, asked. `list` pages through turns, `show` tells one session, `export` writes JSON lines,
and `sql` answers a SELECT over the tables."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from infra import cli
from infra.errors import ConfigError

if TYPE_CHECKING:  # pydantic, polars and rich are imported by what needs them: `--help` does not
    from rich.console import RenderableType

    from infra.config import Config
    from ingest.lake.reading import Reading

_STDOUT = "-"


def main(argv: list[str]) -> int:
    """The command."""
    args = _parser().parse_args(argv)
    run: Callable[[Config, argparse.Namespace], int] = args.run

    def guarded(config: "Config") -> int:
        from ingest.lake.reading import told_plainly

        try:
            with told_plainly(config):
                return run(config, args)
        except BrokenPipeError:  # who read it has had enough: `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0

    return cli.guarded(args.config, guarded, verbose=False)


def _parser() -> argparse.ArgumentParser:
    from ingest.lake import filters

    parser = argparse.ArgumentParser(prog="onstream traces", description="What users and model said, from the lake.")
    commands = parser.add_subparsers(required=True, metavar="list | show | export | sql")
    pages = commands.add_parser("list", help="turns, newest first")
    filters.add(pages)
    pages.add_argument("--limit", type=_positive, default=20, metavar="N", help="turns on a page (%(default)s)")
    pages.add_argument("--page", type=_positive, default=1, metavar="N", help="which page (%(default)s)")
    pages.add_argument("--preview", action="store_true", help="with the first words of question and reply")
    pages.set_defaults(run=_list)
    show = commands.add_parser("show", help="one session, as it was said")
    show.add_argument("id", metavar="ID", help="a session's name or key, or a trace's or completion's id")
    show.set_defaults(run=_show)
    export = commands.add_parser("export", help="turns, conversations or whole trajectories, as JSON lines")
    filters.add(export)
    about = "`trajectories` is what `onstream train --from` reads (%(default)s)"
    export.add_argument("--format", choices=("turns", "chat", "trajectories"), default="turns", help=about)
    export.add_argument("--output", "-o", metavar="FILE", default=_STDOUT, help="a file (standard output)")
    export.set_defaults(run=_export)
    sql = commands.add_parser("sql", help="a SELECT over sessions, turns, feedback, rewards, fates, releases")
    sql.add_argument("query", metavar="QUERY", help='such as "select kind, count(*) as n from turns group by kind"')
    sql.add_argument("--limit", type=_positive, default=100, metavar="N", help="rows to print (%(default)s)")
    sql.set_defaults(run=_sql)
    for command in (pages, show, export, sql):
        cli.add_config(command)
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text!r}")
    return int(text)


def _list(config: "Config", args: argparse.Namespace) -> int:
    from ingest.lake import filters, listing, screen

    asked, reading = filters.read(args, time.time()), _reading(config)
    page = listing.page(reading, asked, args.limit, args.page, with_content=args.preview)
    if not page.turns.height:
        where = "on this page" if args.page > 1 else "in the lake"
        print(f"onstream: no turn {where} meets the filters", file=sys.stderr)
        return 1
    more = f"; --page {args.page + 1} has older ones" if page.has_more else ""
    title = f"{page.turns.height} turn{'s' if page.turns.height > 1 else ''}, newest first{more}"
    if args.preview:
        _print(screen.preview(page.turns, title, reading.contents(page.turns)))
    else:
        _print(screen.listing(page.turns, title))
    return 0


def _show(config: "Config", args: argparse.Namespace) -> int:
    from ingest.lake import screen, transcript
    from ingest.records.ids import is_trace_id, trace_of

    trace = trace_of(args.id)
    told = transcript.look_up(_reading(config), args.id)
    if not told:
        print(f"onstream: {args.id!r}: no session in the lake is called so, or has a trace of that id", file=sys.stderr)
        return 1
    for session in told:
        for part in screen.session(session, trace if is_trace_id(trace) else ""):
            _print(part)
    return 0


def _export(config: "Config", args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.progress import Progress

    from ingest.lake import export, filters

    asked, reading, left = filters.read(args, time.time()), _reading(config), export.Left()
    if is_whole := args.format == "trajectories":
        filters.require_range(asked)
    num_steps = (export.num_sessions if is_whole else export.num_turns)(reading, asked)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("exporting", total=num_steps)

        def advance(num: int) -> None:
            progress.advance(task, num)

        if is_whole:
            lines = export.trajectories(reading, asked, advance, left)
        else:
            lines = (export.turns if args.format == "turns" else export.chats)(reading, asked, advance)
        num = _write(lines, args.output)
    for note in left.notes():
        print(note, file=sys.stderr)
    where = "standard output" if args.output == _STDOUT else args.output
    print(f"{num} lines were written to {where}", file=sys.stderr)
    return 0


def _write(lines: Iterator[str], output: str) -> int:
    """Write lines to a file, whole or not at all, or to standard output. Returns how many there were."""
    if output == _STDOUT:
        return _put(lines, sys.stdout)
    path = Path(output)
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            num = _put(lines, file)
        part.replace(path)
    except OSError as exc:
        raise ConfigError(f"--output {output}: not written: {exc}") from exc
    finally:
        part.unlink(missing_ok=True)
    return num


def _put(lines: Iterator[str], file: IO[str]) -> int:
    num = 0
    for line in lines:
        file.write(f"{line}\n")
        num += 1
    return num


def _sql(config: "Config", args: argparse.Namespace) -> int:
    from ingest.lake import query, screen

    for part in screen.frame(query.sql(_reading(config), args.query), args.limit, cli.console().width):
        _print(part)
    return 0


def _reading(config: "Config") -> "Reading":
    from ingest.lake.reading import Reading

    return Reading.of(config)


def _print(part: "RenderableType") -> None:
    cli.console().print(part)
