"""`onstream train`: the learner on trajectories in files, and `onstream train report`."""

import argparse
from typing import TYPE_CHECKING

from infra import cli

if TYPE_CHECKING:  # torch, pydantic and rich are imported by what needs them: `--help` does not
    from infra.config import Config

_METHODS = ("grpo", "dr_grpo", "gspo", "cispo")


def main(argv: list[str]) -> int:
    """The command. Exit status 1 where nothing could be trained, or an alarm ended it."""
    if argv[:1] == ["report"]:
        from trainer.report import command

        return command.main(argv[1:])
    args = _parser().parse_args(argv)

    def run(config: "Config") -> int:
        from trainer.offline import run

        return run.train(config, args)

    return cli.guarded(args.config, run, verbose=False)


def _parser() -> argparse.ArgumentParser:
    about = (
        "Train on trajectories in files with the settings of `trainer`, without the log, Ray or a trial. "
        "`onstream train report` shows what the stage trained so far."
    )
    parser = argparse.ArgumentParser(prog="onstream train", description=about)
    parser.add_argument(
        "--from",
        dest="source",
        metavar="PATH",
        required=True,
        help="a file that `onstream traces export --format trajectories` wrote, or a folder of *.jsonl",
    )
    parser.add_argument("--output", "-o", metavar="DIR", required=True, help="where the trained model goes")
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument("--model", metavar="DIR", help="begin from this Hugging Face folder (model.path)")
    begin.add_argument("--version", metavar="N", type=int, help="begin from this version of the store")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--method", choices=_METHODS, help="the loss (trainer.loss.kind)")
    how.add_argument("--sft", action="store_true", help="imitate the best trajectories, by likelihood")
    parser.add_argument(
        "--top-share", type=_share, default=0.25, metavar="X", help="--sft: of each tenant's trajectories (%(default)s)"
    )
    parser.add_argument(
        "--min-reward", type=_share, default=0.5, metavar="X", help="--sft: none with less is taken (%(default)s)"
    )
    parser.add_argument(
        "--epochs", type=_count, default=1, metavar="N", help="times that each turn trains (%(default)s)"
    )
    cli.add_config(parser)
    return parser


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"must be a number in [0, 1], got {text!r}")
    return value


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1, got {text!r}")
    return int(text)
