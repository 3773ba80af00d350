"""`onstream rollout`: what is served and why, who changed it, and changing it (see docs/rollout.md).

It asks the controller over its port, and needs the control token: on this machine as on a cluster.
"""

import argparse
import getpass
import json
import logging
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from infra import cli
from infra.errors import OnstreamError
from infra.times import moment

if TYPE_CHECKING:  # pydantic, httpx and rich are imported by what needs them: `--help` does not
    from pydantic import BaseModel
    from rich.console import RenderableType

    from serving.rollout.operators.client import Controller

Do = Callable[["Controller", argparse.Namespace], int]
Told = TypeVar("Told", bound="BaseModel")

DONE, REFUSED, USAGE, UNREACHABLE = 0, 1, 2, 3

_CHANGES = {
    "pause": "no trial begins and nothing is promoted; harm is acted on still",
    "resume": "end pause, pin and freeze",
    "promote": "promote the candidate that the gate has passed and that waits for approval",
    "reject": "end the trial that runs: its candidate is served no more",
    "rollback": "serve the version before stable again, or an older one",
    "pin": "stay with the version that is stable: a trial that runs ends, none begins",
    "freeze": "nothing changes but by operators, and the trainer neither learns nor publishes",
}
_VERSIONS = {
    "promote": ("?", "refused unless this one is on trial"),
    "reject": ("?", "refused unless this one is on trial"),
    "rollback": ("?", "which to serve again (the one before stable)"),
    "pin": (None, "refused unless this one is stable; roll back to it first"),
}
_EPILOG = """exit status: 0 done, 1 refused (and why), 2 cannot be asked so, 3 no controller answered.
The control token is read from ONSTREAM_CONTROL_TOKEN, or where `onstream up` left it on this machine."""


def main(argv: list[str]) -> int:
    """The command."""
    parser = _parser()
    args = parser.parse_args(argv)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    from serving.rollout.operators import client

    status = {client.RefusedError: REFUSED, client.UsageError: USAGE, client.UnreachableError: UNREACHABLE}
    try:
        config = None
        if args.url is None:
            from infra import config as configuration

            config = configuration.load(args.config)
        done: int = args.do(client.of(config, args.url), args)
        return done
    except OnstreamError as exc:
        refused = "refused: " if isinstance(exc, client.RefusedError) else ""
        print(f"onstream: rollout: {refused}{exc}", file=sys.stderr)
        return status.get(type(exc), USAGE)
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="onstream rollout",
        description="What is served and why, who changed it, and changing it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    _asking(verbs, "status", "what is served, on trial and by which engine", _status)
    told = _asking(verbs, "explain", "the story of a trial, with its evidence over time", _explain)
    told.add_argument("version", type=_number, nargs="?", metavar="VERSION", help="whose (that of now, or the last)")
    told.add_argument("--html", metavar="FILE", help="write it as a page, too")
    past = _asking(verbs, "history", "who did what, when and why", _history)
    past.add_argument("--limit", type=_number, metavar="N", help="the newest N (50)")
    past.add_argument("--version", type=_number, metavar="N", help="only what is about this version")
    past.add_argument("--author", metavar="NAME", help="only what this person asked for")
    past.add_argument("--people", action="store_true", help="only what people asked for")
    past.add_argument("--since", type=_when, metavar="WHEN", help="no earlier: 2026-11-25, or an age, 3d")
    past.add_argument("--until", type=_when, metavar="WHEN", help="earlier than that")
    past.add_argument("--all", action="store_true", help="engines' confirmations and controllers' starts, too")
    for verb, about in _CHANGES.items():
        changing = _verb(verbs, verb, about, _change)
        changing.set_defaults(verb=verb, version=None)
        if verb in _VERSIONS:
            nargs, which = _VERSIONS[verb]
            changing.add_argument("version", type=_number, nargs=nargs, metavar="VERSION", help=which)
        changing.add_argument("--reason", required=True, type=_words, help="why: it is kept for ever, and shown")
        changing.add_argument("--author", type=_words, help="who asks for it (this machine's user)")
    return parser


def _asking(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, about: str, do: Do
) -> argparse.ArgumentParser:
    verb = _verb(verbs, name, about, do)
    verb.add_argument("--json", action="store_true", help="print one JSON object")
    return verb


def _verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, about: str, do: Do
) -> argparse.ArgumentParser:
    verb = verbs.add_parser(
        name,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.set_defaults(do=do)
    cli.add_config(verb)
    verb.add_argument(
        "--url", help="where the controller answers (`serving.rollout.host` and `port`); no file is read then"
    )
    return verb


def _number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number, got {text!r:.20}")
    return int(text)


def _words(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("must say something")
    return text.strip()


def _when(text: str) -> float:
    try:
        return moment(text, time.time())
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from exc


def _change(controller: "Controller", args: argparse.Namespace) -> int:
    author = args.author or _user()
    done = controller.do(args.verb, author, args.reason, args.version)
    print(f"release {done.release}, asked for by {author}: {done.told}")
    return DONE


def _user() -> str:
    """This machine's user, and says so: it will stand in the log for ever."""
    from serving.rollout.operators.client import UsageError

    try:
        user = getpass.getuser()
    except (KeyError, OSError) as exc:  # which of them depends on the version of Python
        raise UsageError("--author: must be given: this machine has no name for the user of this process") from exc
    print(f"onstream: rollout: the author is {user}, this machine's user; --author says another", file=sys.stderr)
    return user


def _status(controller: "Controller", args: argparse.Namespace) -> int:
    from serving.rollout.operators import screen

    state = controller.get("/status")
    if args.json:
        print(json.dumps(state))
    else:
        _print(screen.status(state))
    return DONE


def _history(controller: "Controller", args: argparse.Namespace) -> int:
    from serving.rollout.operators import screen
    from serving.rollout.operators.history import History

    found = controller.get(
        "/history",
        limit=args.limit,
        version=args.version,
        author=args.author,
        since=args.since,
        until=args.until,
        by_people=1 if args.people else None,
        all=1 if args.all else None,
    )
    if args.json:
        print(json.dumps(found))
    else:
        _print(screen.history(_read(History, found)))
    return DONE


def _explain(controller: "Controller", args: argparse.Namespace) -> int:
    from serving.rollout.operators import page, screen
    from serving.rollout.operators.story import Story

    told = _read(Story, controller.get("/story", trial=args.version))
    if args.html:
        _write(args.html, page.story(told, time.time()))
    if args.json:
        print(told.model_dump_json())
        return DONE
    _print(screen.story(told, time.time(), cli.console().width))
    if args.html:
        print(f"written to {args.html}", file=sys.stderr)
    return DONE


def _read(kind: "type[Told]", found: dict[str, object]) -> "Told":
    from pydantic import ValidationError

    from serving.rollout.operators.client import UnreachableError

    try:
        return kind.model_validate(found)
    except ValidationError as exc:
        raise UnreachableError(
            f"what the controller tells is not what this command knows: is it of another release? {exc}"
        ) from exc


def _write(path: str, text: str) -> None:
    from serving.rollout.operators.client import UsageError

    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as exc:
        raise UsageError(f"--html {path}: not written: {exc}") from exc


def _print(parts: "Iterable[RenderableType]") -> None:
    console = cli.console()
    for part in parts:
        console.print(part)
