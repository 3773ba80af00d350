"""`onstream rewards backtest SPEC`: what lies in the lake, scored by another spec, and what that changes."""

import argparse
import contextlib
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from infra import cli
from infra.config import Config
from infra.errors import ConfigError, LakeError

if TYPE_CHECKING:  # polars, numpy and rich are imported by what needs them: `--help` does not
    from ingest.lake.records import Lost
    from ingest.lake.sessions import SessionRows
    from ingest.records.events import Trajectory
    from rewards.backtest.compare import Comparing
    from rewards.backtest.rescore import Again, Engines, Rescoring

BAR_STEP = 32  # sessions


def main(argv: list[str]) -> int:
    """The command."""
    args = _parser().parse_args(argv)
    return cli.guarded(args.config, lambda config: backtest(config, args), verbose=False)


def _parser() -> argparse.ArgumentParser:
    from ingest.lake import filters

    parser = argparse.ArgumentParser(prog="onstream rewards", description="Reward specs, tried.")
    commands = parser.add_subparsers(required=True, metavar="backtest")
    about = "Score what lies in the lake by a spec, and show what it changes. Changes nothing."
    tried = commands.add_parser("backtest", help="what a spec would have made of the past", description=about)
    tried.add_argument("spec", metavar="SPEC", help="the reward spec to try, a file")
    tried.add_argument("--against", metavar="SPEC", help="compare with this one, scored too (the lake's rewards)")
    filters.add_range(tried)
    tried.add_argument("--limit", type=_positive, metavar="N", help="only the N newest sessions")
    tried.add_argument(
        "--sample", action="store_true", help="with --limit: N drawn evenly from all, the same each time"
    )
    tried.add_argument("--engines", action="store_true", help="ask the engines what scorers want to know of them")
    tried.add_argument("--html", metavar="FILE", help="write it as a page, too")
    tried.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    cli.add_config(tried)
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text!r}")
    return int(text)


@dataclass
class Left:
    """Sessions that could not be compared, and those whose comparison is not all the spec's doing."""

    lost: "Counter[Lost]" = field(default_factory=Counter)
    num_unrewarded: int = 0
    num_older: int = 0
    num_other_feedback: int = 0

    def notes(self, num_not_whole: int, num_turns_lacking: int) -> list[str]:
        """What to say of them."""
        told = {
            **{f"sessions were left out, {why.value}": num for why, num in self.lost.items()},
            "sessions were left out, no reward of theirs is in the lake": self.num_unrewarded,
            "sessions had feedback after their reward was made: they may change for that": self.num_older,
            "sessions had other feedback than the lake has of them": self.num_other_feedback,
            "sessions have no value without the engines (--engines): their value is not compared": num_not_whole,
            "turns have no value without the engines (--engines): likewise": num_turns_lacking,
        }
        return [f"{num:,} {what}" for what, num in told.items() if num]


def backtest(config: Config, args: argparse.Namespace) -> int:
    """Score, compare, tell.

    Raises:
        ConfigError: a spec or a flag cannot be used.
        LakeError: the lake cannot be read, or has nothing to compare.
        UnavailableError: engines are to be asked, and none answers.
    """
    from rewards import spec
    from rewards.backtest.compare import Comparing
    from rewards.backtest.rescore import Rescoring

    if args.sample and args.limit is None:
        raise ConfigError("--sample: needs --limit, which says how many sessions are drawn")
    scoring, against = spec.load(args.spec), spec.load(args.against) if args.against else None
    found, left = Comparing(scoring.id, [part.name for part in scoring.spec.components]), Left()
    with contextlib.ExitStack() as stack:
        engines = stack.enter_context(_engines(config)) if args.engines else None
        new, old = Rescoring(scoring, engines), Rescoring(against, engines) if against else None
        stack.enter_context(_one_crash_each())
        for rows in _sessions(config, args, needs_rewards=old is None):
            for before, after in _scored(rows, old, new, left):
                found.add(before, after)
    return _tell(args, found, left)


@contextlib.contextmanager
def _engines(config: Config) -> Iterator["Engines"]:
    from rewards.backtest.rescore import Engines
    from rewards.summary import engines

    likelihoods = engines.of(config)
    if likelihoods is None:
        raise ConfigError("--engines: no engine of the configuration has a `scoring_port`")
    with Engines(likelihoods) as asked:
        asked.require()
        yield asked


@contextlib.contextmanager
def _one_crash_each() -> Iterator[None]:
    from rewards.backtest.rescore import OncePerScorer

    logger, once = logging.getLogger("rewards.evaluate"), OncePerScorer()
    logger.addFilter(once)
    try:
        yield
    finally:
        logger.removeFilter(once)


def _sessions(config: Config, args: argparse.Namespace, *, needs_rewards: bool) -> Iterator[list["SessionRows"]]:
    """Sessions of the lake, some at a time, with a bar on standard error. A list is done when the next is wanted."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ingest.lake import filters, sessions
    from ingest.lake.reading import Reading, told_plainly

    asked = filters.read_range(args, time.time())
    with told_plainly(config):
        reading = Reading.of(config)
        picked = sessions.pick(reading, asked, args.limit, is_sample=args.sample)
        if not picked.height:
            raise LakeError("lake: no session in it is of that tenant and began in that time")
        if needs_rewards and picked["reward_at"].null_count() == picked.height:
            raise LakeError(f"lake: none of {picked.height} sessions has a reward to compare with; try --against SPEC")
        console = Console(stderr=True)
        columns = (
            TextColumn("scoring"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("sessions"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("scoring", total=picked.height)
            for rows in sessions.stream(reading, picked):
                for begin in range(0, len(rows), BAR_STEP):
                    yield (some := rows[begin : begin + BAR_STEP])
                    progress.advance(task, len(some))


def _scored(
    rows: Sequence["SessionRows"], old: "Rescoring | None", new: "Rescoring", left: Left
) -> Iterator[tuple["Again", "Again"]]:
    """Old and new rewards of the sessions that have both."""
    from ingest.lake import records
    from rewards.backtest.rescore import Again

    known: list[tuple[SessionRows, Trajectory]] = []
    for one in rows:
        if old is None and one.reward is None:
            left.num_unrewarded += 1
            continue
        made = records.trajectory(one)
        if isinstance(made, records.Lost):
            left.lost[made] += 1
            continue
        left.num_other_feedback += len(one.feedback) != one.row["num_feedback"]
        known.append((one, made))
    trajectories = [made for _, made in known]
    if old is not None:
        yield from zip(old.score(trajectories), new.score(trajectories), strict=True)
        return
    for (one, made), after in zip(known, new.score(trajectories), strict=True):
        assert one.reward is not None
        left.num_older += one.reward["revision"] < made.revision
        yield Again(records.reward(one.reward, made)), after


def _tell(args: argparse.Namespace, found: "Comparing", left: Left) -> int:
    from rewards.backtest import page, show

    result = found.result()
    notes = left.notes(result.num_not_whole, result.num_turns_lacking)
    if not result.num_sessions:
        raise LakeError(f"lake: no session could be compared: {'; '.join(notes)}")
    against = f"{args.against}, scored as well" if args.against else "the lake's newest rewards, made under"
    if args.html:
        _write(args.html, page.comparison(result, against, notes))
    if args.json:
        print(result.model_copy(update={"notes": tuple(notes)}).model_dump_json())
        return 0
    console = cli.console()
    for part in show.report(result, against, notes):
        console.print(part)
    if args.html:
        print(f"written to {args.html}", file=sys.stderr)
    return 0


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"--html {path}: not written: {exc}") from exc
