"""A trainer in a process of its own, to be killed: the real loop, store, checkpoints and learner workers on Ray.

`python killed.py FOLDER WORKERS` plays a story of trials until nothing is left to train, and says on each line of its
output what it is about to do. Started again after a kill it goes on. Its log is a file, as durable as the page cache.
With no workers the learner is in the process itself, which is there sooner than Ray is.
"""

import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra.config import Config, Packing
from infra.lifecycle import Stop
from ingest.log import topics
from ingest.log.memory import InMemoryLog
from ingest.log.protocol import Headers, Message, TopicSpec
from ingest.log.reader import replay, send
from ingest.records.events import Release, ReleaseKind, Source, TrialState, session_key
from ingest.store.versions import VersionStore
from trainer.loop import Trainer

NUM_SESSIONS = 32
MAX_TURNS = 8  # of a version
DECIDED = {1: (TrialState.REJECTED, 0), 2: (TrialState.PROMOTED, 2), 3: (TrialState.REJECTED, 2)}
"""What becomes of a version, and who is stable then. All others are promoted."""


class DiskLog(InMemoryLog):
    """An `InMemoryLog` that finds what an earlier process appended. Groups' positions are forgotten: they are hints."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.create([TopicSpec(topic.name, 1, None) for topic in topics.ALL])
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []  # what a kill cut off has no end
        for line in lines:
            told = json.loads(line)
            super().append(told["topic"], told["key"], bytes.fromhex(told["value"]), told["headers"])
        part = path.with_name("log.part")
        part.write_bytes(b"".join(line + b"\n" for line in lines))
        part.replace(path)
        self._path = path

    def append(self, topic: str, key: str, value: bytes, headers: Headers) -> Message:
        told = {"topic": topic, "key": key, "value": value.hex(), "headers": dict(headers)}
        with self._path.open("ab") as file:
            file.write(json.dumps(told).encode() + b"\n")
        return super().append(topic, key, value, headers)


def config_of(folder: Path, workers: int, **more: Any) -> Config:
    own = {
        "workers": workers, "threads": 1, "dtype": "float32", "lr": 1e-4, "packing": Packing.PACKED,
        "batch_turns": 4, "minibatch_turns": 2, "microbatch_tokens": 16, "max_version_turns": MAX_TURNS,
        "min_version_turns": 4, "max_staleness": 100, "max_version_kl": 100.0, "max_user_share": 1.0, **more,
    }  # fmt: skip
    return Config.model_validate({"run_dir": str(folder), "model": {"path": str(folder / "base")}, "trainer": own})


def set_up(folder: Path, make_reward: Callable[..., Any]) -> None:
    """The model, version 0, its release, and all that users will say."""
    import tiny_model

    tiny_model.write(folder / "base")
    log = DiskLog(folder / "log")
    VersionStore(str(folder / "store")).publish(0, folder / "base", None, {}, {}, 0.0)
    release(log, kind=ReleaseKind.BOOTSTRAP)
    say_more(log, "s", NUM_SESSIONS, folder / "base", make_reward)


def say_more(log: InMemoryLog, name: str, num: int, weights: Path, make_reward: Callable[..., Any]) -> None:
    """Sessions that a model served."""
    import transformers

    model, make = transformers.AutoModelForCausalLM.from_pretrained(weights), random.Random(0)
    for number in range(num):
        logged = {0: {"logprobs": _logps(model, [1, 1, 1, 10 + number, 10 + number])}}
        made = make_reward(f"{name}{number}", [make.random()], token=10 + number, segment_changes=logged)
        placed = send(log, topics.TRAJECTORIES, session_key(made.session_id), made.trajectory)
        source = Source(partition=placed.partition, offset=placed.offset)
        sent = made.model_copy(update={"source": source, "trajectory": None})
        send(log, topics.REWARDS, session_key(made.session_id), sent)


def _logps(model: Any, ids: list[int]) -> tuple[float, ...]:
    """Of the last two tokens, as an engine would have logged them."""
    import torch

    with torch.no_grad():
        logps = model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
    return tuple(float(logps[place - 1, ids[place]]) for place in (len(ids) - 2, len(ids) - 1))


def release(log: InMemoryLog, **fields: Any) -> None:
    number = sum(1 for _ in replay(log, topics.RELEASES, Release))
    release = {"release": number, "epoch": 1, "kind": ReleaseKind.TRIAL, "stable": 0, "reason": "test", "at": 0.0}
    send(log, topics.RELEASES, "", Release.model_validate({**release, **fields}))


def _is_read(log: InMemoryLog, trainer: Trainer) -> bool:
    name = topics.REWARDS.name
    return all(trainer.state.positions.get((name, part), 0) >= end for part, end in log.ends(name).items())


def _decide(log: InMemoryLog, trainer: Trainer) -> None:
    """A trial ends once the next version has all that it can have: a kill, however long, changes no version."""
    candidate, making = trainer.state.candidate, trainer.state.making
    is_full = making is not None and making.num_turns >= MAX_TURNS
    if candidate is None or not candidate.is_published or not (is_full or _is_read(log, trainer)):
        return
    if candidate.version not in {release.candidate for release in replay(log, topics.RELEASES, Release)}:
        trainer._keeper.settle()  # a kill must not take back what the decision waited for
        state, stable = DECIDED.get(candidate.version, (TrialState.PROMOTED, candidate.version))
        release(log, candidate=candidate.version, state=state, stable=stable)


def say(what: str) -> None:
    print(what, flush=True)


class Told:
    """A policy that says what it is about to do."""

    def __init__(self, policy: Any) -> None:
        self._policy = policy

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._policy, name)

        def told(*args: Any) -> Any:
            say(name)
            result = real(*args)
            say(f"{name} done")
            return result

        return told if name in ("load", "restore", "anchor", "save", "update", "export") else real


def _on_ray(config: Config, stop: Stop) -> Any:
    from trainer.workers.actors import RayPolicy
    from trainer.workers.node import start_ray

    start_ray(config.trainer)
    return RayPolicy(Path(config.model.path), config.trainer, stop)


def _here(config: Config) -> Any:
    from trainer.learner.learner import Learner

    return Learner(Path(config.model.path), config.trainer)


def main(folder: Path, workers: int) -> None:
    config, stop = config_of(folder, max(1, workers)), Stop()
    log = DiskLog(folder / "log")
    policy = Told(_on_ray(config, stop) if workers else _here(config))
    play(log, Trainer(config, log, VersionStore(str(folder / "store")), policy, stop, now=lambda: 1000.0))
    say("end")
    os._exit(0)  # Ray's own way out takes seconds


def play(log: InMemoryLog, trainer: Trainer) -> None:
    """The story, from where it is to its end."""
    trainer.recover()
    while trainer.state.candidate or trainer.state.making or not _is_read(log, trainer):
        say("tick")
        trainer.tick()
        _decide(log, trainer)
    trainer._keeper.settle()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
