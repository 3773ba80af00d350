"""`onstream dlq`: what stages could not use, why, and putting it back (see docs/dead_letters.md)."""

import argparse
import json
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from infra import broker, cli
from infra.config import Config
from ingest.letters import choose, show
from ingest.letters.choose import SHOWN, SOURCES, Plan, Rules, Source, Wanted, label
from ingest.log import letters, redrive
from ingest.log.letters import Failure
from ingest.log.places import Place
from ingest.log.protocol import EventLog
from ingest.log.redrive import Redriver

FAILURES = {label(failure): failure for failure in set(Failure) - {Failure.LATE}}
_MOST_PLACES = 3


def main(argv: list[str]) -> int:
    """The command. Exit status 1: no such letter, something was refused, or the log does not answer."""
    args = _parser().parse_args(argv)

    def run(config: Config) -> int:
        from ingest.log.connect import connect

        broker.require_running(config.log)
        log = connect(config, client_id="dlq")
        try:
            status: int = args.do(log, args, config)
            return status
        finally:
            log.close()

    return cli.guarded(args.config, run, verbose=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="onstream dlq", description="What stages could not use, and putting it back.")
    verbs = parser.add_subparsers(required=True, metavar="list | show | redrive")
    listed = verbs.add_parser("list", help="the letters of every topic, by failure and error")
    listed.add_argument("--json", action="store_true", help="print one JSON object")
    listed.set_defaults(do=_list)
    shown = verbs.add_parser("show", help="one letter: what was wrong, its headers, the form of its payload")
    shown.add_argument("place", metavar="PLACE", help="topic/partition@offset, as `list` prints it, or a part of it")
    shown.add_argument("--content", action="store_true", help="print the payload itself; it may be what users typed")
    shown.set_defaults(do=_show)
    again = verbs.add_parser("redrive", help="put letters back on the topic they lay on, each once")
    again.add_argument("--topic", choices=sorted({source.topic.name for source in SOURCES}), help="only what lay there")
    again.add_argument(
        "--group", choices=sorted({source.group for source in SOURCES}), help="only what this group left"
    )
    again.add_argument("--failure", choices=sorted(FAILURES), help="only what failed so")
    again.add_argument(
        "--place", type=_place, metavar="PLACE", help="only this one, by its place or where it first lay"
    )
    again.add_argument("--force", action="store_true", help="also what would fail again for the same reason")
    again.add_argument(
        "--max-times",
        type=_positive,
        default=choose.MAX_TIMES,
        metavar="N",
        help="refuse what was put back so often before, forced or not (%(default)s)",
    )
    again.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    again.set_defaults(do=_redrive)
    for verb in (listed, shown, again):
        cli.add_config(verb)
    return parser


def _place(text: str) -> Place:
    try:
        return Place.parse(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def _positive(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"a number from 1 to 1000, got {text!r:.20}")
    return int(text)


def _list(log: EventLog, args: argparse.Namespace, _config: Config) -> int:
    found = show.heaps(log)
    if args.json:
        print(json.dumps({"letters": [heap.as_dict() for heap in found]}))
    elif found:
        console = cli.console()
        console.print(show.listing(found, time.time(), console.width))
    else:
        print(f"no letters: nothing lies in any of {', '.join(source.name for source in SHOWN)}")
    return 0


def _show(log: EventLog, args: argparse.Namespace, _config: Config) -> int:
    found = choose.find(log, args.place)
    if found.letter is None:
        print(f"onstream: dlq: {_not_found(args.place, found.places)}", file=sys.stderr)
        return 1
    source, letter = found.letter
    rules = Rules.of(log, choose.MAX_TIMES)
    is_back = str(letter.origin) in redrive.done(log, source.name)
    show.to_screen(show.letter(source, letter, rules.refusal(letter, source.topic), is_back, args.content))
    return 0


def _not_found(asked: str, places: list[Place]) -> str:
    if not places:
        return f"no letter lies, or first lay, at {asked!r}; `onstream dlq list` tells where there are some"
    some = ", ".join(map(str, places[:_MOST_PLACES]))
    return f"{asked!r} is part of {len(places)} places: {some}{', ...' if len(places) > _MOST_PLACES else ''}"


def _redrive(log: EventLog, args: argparse.Namespace, config: Config) -> int:
    wanted = Wanted(args.topic, args.group, FAILURES.get(args.failure), args.place)
    rules = Rules.of(log, args.max_times, args.force)
    plans = [redriven(log, source, wanted, rules, config.log.timeout_s, args.dry_run) for source in wanted.sources()]
    return _tell(plans, args.dry_run)


def redriven(
    log: EventLog, source: Source, wanted: Wanted, rules: Rules, timeout_s: float, is_dry: bool = False
) -> Plan:
    """Put back what is wanted of one topic of letters and not refused; dry, only say what that is.

    Raises:
        LogError: the log failed; what was put back until then is noted, or found by the next call.
    """
    if is_dry:
        put_back = redrive.done(log, source.name)
        return choose.plan(log, source, wanted, rules, lambda letter: str(letter.origin) in put_back)
    redriver = Redriver(log, source.name, timeout_s)
    plan = choose.plan(log, source, wanted, rules, redriver.is_done)
    if plan.chosen:
        found = (letter for letter in letters.each(log, source.name) if letter.origin in plan.chosen)
        with _progress() as progress:
            task = progress.add_task(f"{source.name} -> {source.topic.name}", total=len(plan.chosen))
            redriver.put_back(found, lambda num: progress.advance(task, num))
    return plan


def _tell(plans: list[Plan], is_dry: bool) -> int:
    num, num_done = sum(len(plan.chosen) for plan in plans), sum(plan.num_done for plan in plans)
    refused = [line for plan in plans for line in show.refusals(plan.refused, _MOST_PLACES)]
    verb = "would put back" if is_dry else "put back"
    show.to_screen(
        f"{verb} {len(plan.chosen)} on {plan.source.topic.name}, of {plan.source.name}" for plan in plans if plan.chosen
    )
    show.to_screen([f"{num_done} had been put back before"] if num_done else [])
    show.to_screen(refused)
    if not num and not num_done and not refused:
        print("onstream: dlq: no such letter; `onstream dlq list` tells which there are", file=sys.stderr)
    return 1 if refused or not (num or num_done) else 0


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
