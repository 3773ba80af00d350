"""`onstream suite`: try suites against any endpoint that speaks OpenAI's chat completions, or two side by side."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence

from infra.errors import OnstreamError

PASSED, REJECTED, FAILED = 0, 1, 2


def main(argv: list[str]) -> int:
    """The command. Exit status 0: passed; 1: rejected; 2: it could not run."""
    args = _parsed(argv)
    try:
        return _check(args) if args.do == "check" else asyncio.run(_run(args))
    except OnstreamError as exc:
        print(f"onstream: {exc}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return 130


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="onstream suite", description="Read suites of tasks, and try them.")
    commands = parser.add_subparsers(dest="do", required=True, metavar="COMMAND")
    check = commands.add_parser("check", help="read suites, and say what is wrong with them or what they ask")
    run = commands.add_parser("run", help="ask an endpoint all tasks; 0: passed, 1: rejected, 2: could not run")
    for command in (check, run):
        command.add_argument("file", nargs="+", help="a file, or the name of a shipped suite: sanity, basics")
    run.add_argument("--url", required=True, help="the endpoint, up to and with /v1")
    run.add_argument("--model", required=True, help="the model to ask for")
    run.add_argument("--against", metavar="URL", help="compare with this endpoint, as a trial does with stable's")
    run.add_argument("--against-model", metavar="NAME", help="the model to ask for there (that of --model)")
    run.add_argument("--key-var", metavar="NAME", default="", help="the environment variable that holds the API key")
    run.add_argument("--judge-url", metavar="URL", help="who grades judged tasks, up to and with /v1")
    run.add_argument("--judge-model", metavar="NAME", help="the model to ask for there")
    run.add_argument("--judge-key-var", metavar="NAME", default="", help="as --key-var, for the judge")
    run.add_argument("--timeout", type=float, default=600.0, metavar="SECONDS", help="for all of it (%(default)s)")
    run.add_argument("--concurrency", type=int, default=4, metavar="N", help="tasks asked at a time (%(default)s)")
    args = parser.parse_args(argv)
    if args.do == "run" and bool(args.judge_url) != bool(args.judge_model):
        run.error("--judge-url and --judge-model go together")
    return args


def _check(args: argparse.Namespace) -> int:
    from rich.console import Console

    from serving.rollout.suites import show
    from serving.rollout.suites.tasks import load_all

    for suite in load_all(args.file):
        Console().print(show.suite(suite))
    return PASSED


async def _run(args: argparse.Namespace) -> int:
    import httpx
    from rich.console import Console

    from infra.config import JudgeConfig, SuitesConfig
    from infra.lifecycle import Deadline
    from serving.rollout.asking import Asker, Endpoint, always
    from serving.rollout.evidence import Verdict
    from serving.rollout.suites import show, verdict
    from serving.rollout.suites.asking import Arm
    from serving.rollout.suites.check import judge_of
    from serving.rollout.suites.running import Arms, answers
    from serving.rollout.suites.tasks import load_all

    suites, deadline = load_all(args.file), Deadline.after(args.timeout)
    key = os.environ.get(args.key_var, "") if args.key_var else ""
    async with httpx.AsyncClient() as client:

        def arm(url: str, model: str) -> Arm:
            asker = Asker(client, (Endpoint(url.rstrip("/"), always),), deadline, key)
            return Arm(asker, model, "/chat/completions")

        asked = arm(args.url, args.model)
        other = arm(args.against, args.against_model or args.model) if args.against else None
        given = (
            JudgeConfig(url=args.judge_url, model=args.judge_model, key_var=args.judge_key_var)
            if (args.judge_url)
            else None
        )
        grader = judge_of(given, client, deadline) if given else None
        found = await answers(suites, Arms(asked, other, grader), args.concurrency, lambda _num, _of: None)
    standing = verdict.judge(suites, found, SuitesConfig()) if other else verdict.alone(suites, found)
    Console().print(show.results(found, is_compared=other is not None))
    print(f"{'passed' if standing.verdict is Verdict.PASS else 'rejected'}: {standing.reason}")
    return PASSED if standing.verdict is Verdict.PASS else REJECTED
