"""What `onstream train --from` does, in order:

    1. look       flags, files and the model, before anything takes long
    2. choose     with --sft: which trajectories are the best, from their rewards alone
    3. train      batch by batch, as they are read
    4. write      the model, beside it what it was trained on, with --sft the conversations; only if no alarm ended it

The model's folder appears whole or not at all.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from infra import cli
from infra.config import Config, LossKind, TrainerConfig
from infra.errors import ConfigError
from ingest.sessions import contamination
from ingest.store.versions import VersionStore
from trainer.alarms import AlarmKind
from trainer.inbox import Item
from trainer.learner.update import Policy
from trainer.offline import show
from trainer.offline.chosen import Cut, chats
from trainer.offline.reading import Line, Screening, Source, newest_of
from trainer.offline.training import Step, Training, imitating, with_method
from trainer.settings import digest_of, learning_settings

CHATS, ABOUT = ".chat.jsonl", ".training.json"
NOT_CHOSEN = "not of the best trajectories"


def train(config: Config, args: argparse.Namespace) -> int:
    """Train, write, tell. Exit status 1 where an alarm ended it.

    Raises:
        ConfigError: a flag or a line of the files cannot be used, or nothing in them trains.
        StartError: the model cannot be loaded or trained.
        StoreError: the version to begin from is not there.
    """
    output, source = _free(Path(args.output)), Source.of(Path(args.source))
    settings = _settings(config.trainer, args)
    cut = Cut(args.top_share, args.min_reward) if args.sft else None
    with tempfile.TemporaryDirectory() as scratch, _conversations(output, cut) as told:
        begin = _begin(config, args, Path(scratch))
        newest, tasks = newest_of(_rewards(source)), contamination.index_of(config.ingest.contamination)
        screening = Screening(tasks, config.privacy.train_altered, newest, hinted_by=settings.loss.hinted_by)
        latest = (one for one in _rewards(source) if any(newest[name] == one.revision for name in one.trace_ids))
        reader = _Reader(source, screening, cut.choose(latest) if cut else None, told)
        training = Training(_learner(begin, settings), settings, imitates=cut is not None)
        _run(training, reader, args.epochs)
        _tell(training, screening)
        if training.raised is not None:
            print(f"onstream: nothing is written: {training.raised.told}{_hint(training, reader)}", file=sys.stderr)
            return 1
        if not training.steps:
            raise ConfigError(f"--from {args.source}: nothing in it trains; the table says why")
        _write(output, training.policy, _about(training, reader, args, begin), told)
    print(f"written to {output}", file=sys.stderr)
    return 0


@dataclass
class _Reader:
    """Items as they are read, once for each epoch; with `chosen`, only of those rewards."""

    source: Source
    screening: Screening
    chosen: frozenset[str] | None
    chats: IO[str] | None
    bytes_read: int = 0
    versions: frozenset[int] = frozenset()
    specs: frozenset[str] = frozenset()

    def items(self, epochs: int) -> Iterator[Item]:
        for epoch in range(epochs):
            again = self.screening if epoch == 0 else self.screening.anew()
            for number, line in enumerate(self.source.lines()):
                self.bytes_read = epoch * self.source.num_bytes + line.bytes_read
                if self.chosen is not None and line.reward.reward_id not in self.chosen:
                    again.refused[NOT_CHOSEN] += len(line.reward.trace_ids)
                    continue
                item = again.item(line, number)
                if item.eligible:
                    if epoch == 0:
                        self._note(line, item)
                    yield item

    def _note(self, line: Line, item: Item) -> None:
        self.versions |= {version for turn in item.eligible for version in turn.versions}
        self.specs |= {item.spec}
        if self.chats is not None:
            self.chats.writelines(f"{chat}\n" for chat in chats(line.reward, item))


def _free(output: Path) -> Path:
    """A folder that is not there yet. Raises `ConfigError` where anything is."""
    output = output.resolve()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"--output {output}: must be a folder that is empty or not there yet")
    if not output.parent.is_dir():
        raise ConfigError(f"--output {output}: {output.parent} must be a folder")
    for beside in (Path(f"{output}{CHATS}"), Path(f"{output}{ABOUT}")):
        if beside.exists():
            raise ConfigError(f"--output {output}: {beside.name} beside it is from another run")
    return output


def _settings(trainer: TrainerConfig, args: argparse.Namespace) -> TrainerConfig:
    if args.sft:
        return imitating(trainer)
    return with_method(trainer, LossKind(args.method)) if args.method else trainer


def _begin(config: Config, args: argparse.Namespace, scratch: Path) -> Path:
    """The folder of the weights to begin from."""
    if args.version is not None:
        store = VersionStore.of(config.store)
        return store.fetch(store.read(args.version), scratch)
    folder, flag = Path(args.model or config.model.path), "--model" if args.model else "model.path"
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{flag}: {folder} must be a Hugging Face folder with a config.json")
    return folder


def _learner(begin: Path, settings: TrainerConfig) -> Policy:
    from trainer.learner.learner import Learner  # torch

    return Learner(begin, settings)


def _rewards(source: Source) -> Iterator[Any]:
    return (line.reward for line in source.lines())


@contextmanager
def _conversations(output: Path, cut: Cut | None) -> Iterator[IO[str] | None]:
    """Where --sft writes conversations, under the name of a file that is not whole yet; gone at the end."""
    if cut is None:
        yield None
        return
    part = Path(f"{output}{CHATS}.part")
    try:
        with part.open("w", encoding="utf-8") as file:
            yield file
    finally:
        part.unlink(missing_ok=True)


def _run(training: Training, reader: _Reader, epochs: int) -> None:
    """With a bar on standard error, or a line for every step where that is no terminal."""
    console = Console(stderr=True)
    columns = (
        TextColumn("training"), BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("step 0", total=epochs * reader.source.num_bytes)

        def on_step(step: Step) -> None:
            told = f"step {step.number}, reward {step.reward:.3f}"
            progress.update(task, completed=reader.bytes_read, description=told)
            if not console.is_terminal:
                print(show.line(step), file=sys.stderr, flush=True)

        training.on_step = on_step
        training.run(reader.items(epochs))


def _tell(training: Training, screening: Screening) -> None:
    console = cli.console()
    for part in show.tables(training.steps, screening.refused, screening.num_repeated):
        console.print(part)


def _hint(training: Training, reader: _Reader) -> str:
    """What may be wrong where the learner was not the policy that served."""
    if training.raised is None or training.raised.kind is not AlarmKind.MISMATCH:
        return ""
    told = ", ".join(map(str, sorted(reader.versions)))
    return f"; what trains was sampled by version {told}: --version begins from one of them"


def _about(training: Training, reader: _Reader, args: argparse.Namespace, begin: Path) -> dict[str, Any]:
    """What a version's manifest would say: data, settings and numbers."""
    settings = learning_settings(training.config)
    return {
        "began_from": begin.name if args.version is None else args.version,
        "files": [file.name for file in reader.source.files],
        "epochs": args.epochs,
        "versions": sorted(reader.versions),
        "specs": sorted(reader.specs),
        "settings": settings,
        "settings_digest": digest_of(settings),
        "steps": [
            {"turns": step.num_turns, "mean_reward": step.reward, **step.update.numbers()} for step in training.steps
        ],
        "trace_ids": list(dict.fromkeys(training.trace_ids)),
    }


def _write(output: Path, policy: Policy, about: dict[str, Any], chats: IO[str] | None) -> None:
    """The model last: what is beside it is there when it is."""
    part = output.with_name(f"{output.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    policy.export(part)
    Path(f"{output}{ABOUT}").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    if chats is not None:
        chats.close()
        Path(chats.name).replace(f"{output}{CHATS}")
    if output.is_dir():
        output.rmdir()
    part.rename(output)
