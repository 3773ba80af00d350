"""One run: a side, a seed and a learning rate; and many of them, on all cores."""

import copy
import gc
import random
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from enum import StrEnum
from multiprocessing import get_context
from os import sched_getaffinity
from pathlib import Path
from statistics import fmean

import torch
import worlds
from worlds import Session

from infra.config import (
    BaselineConfig,
    LossConfig,
    Packing,
    TrainerConfig,
    TrajectoryWeight,
)
from trainer.advantages.baselines import Baselines
from trainer.advantages.batch import Batch, make_batch
from trainer.advantages.groups import group_advantages
from trainer.advantages.keyed import whiten
from trainer.learner.batching import Minibatch, minibatches, sample_of
from trainer.learner.learner import Learner
from trainer.learner.update import UpdateMetrics

BATCH, GROUP, LANE_GROUP, LANE_SHARE = 128, 8, 4, 0.25
LAST = 8  # batches that the reward at the end is the mean of


class Side(StrEnum):
    """What a turn's advantage is."""

    OURS = "ours"
    RAW = "raw REINFORCE"
    BATCH_MEAN = "batch mean"
    GROUPS = "oracle groups of 8"
    LANE = "ours + replay lane"


@dataclass(frozen=True)
class Run:
    """`lag`: sessions are sampled by the policy as it was so many updates ago. `batches` is its length."""

    side: Side
    seed: int
    lr: float
    batches: int
    lag: int = 0
    loss: LossConfig = field(default_factory=LossConfig)
    is_recomputed: bool = False
    """Log-probabilities are taken as the trainer has them, not as they were logged: no correction."""
    weight: TrajectoryWeight = TrajectoryWeight.TURNS
    baselines: BaselineConfig = field(default_factory=BaselineConfig)


@dataclass
class Curve:
    """True reward by batch of production's sessions, and at the end by task; how many were sampled all in all."""

    run: Run
    rewards: list[float] = field(default_factory=list)
    num_sampled: int = 0
    by_task: list[float] = field(default_factory=list)
    moved: list[float] = field(default_factory=list)

    @property
    def end(self) -> float:
        return fmean(self.rewards[-LAST:])


class Study:
    """A learner, and the advantages of its side."""

    def __init__(self, run: Run, folder: Path) -> None:
        self.run, self.baselines, self.step = run, Baselines(), 0
        self.rng = random.Random(f"sessions {run.seed}")
        self.tasks = worlds.tasks(run.seed)
        worlds.write_policy(folder, run.seed)
        self.config = TrainerConfig(
            minibatch_turns=BATCH * 7 // 8,  # two steps
            microbatch_tokens=100_000,
            packing=Packing.ROWS,
            lr=run.lr,
            loss=run.loss,
            dtype="float32",
            threads=1,
            baselines=run.baselines,
            trajectory_weight=run.weight,
        )
        self.learner = Learner(folder, self.config)
        self.past: deque[dict[str, torch.Tensor]] = deque(maxlen=run.lag + 1)
        self.serving = copy.deepcopy(self.learner.model) if run.lag else self.learner.model

    def go(self) -> Curve:
        curve = Curve(self.run)
        own = [list[float]() for _ in self.tasks]
        for number in range(self.run.batches):
            asked = self._asked()
            self._serve()
            sessions = worlds.converse(self.serving, asked, self.rng)
            curve.rewards.append(fmean(session.reward for session in sessions))
            if number >= self.run.batches - LAST:
                for session in sessions:
                    own[session.asked.task.number].append(session.reward)
            curve.num_sampled += len(sessions)
            metrics, num_more = self._learn(sessions)
            curve.num_sampled += num_more
            curve.moved.append(metrics.moved)
        curve.by_task = [fmean(values) if values else 0.0 for values in own]
        return curve

    def _asked(self) -> list[worlds.Asked]:
        if self.run.side is not Side.GROUPS:
            return worlds.ask(self.tasks, BATCH, self.rng)
        return [one for one in worlds.ask(self.tasks, BATCH // GROUP, self.rng) for _ in range(GROUP)]

    def _serve(self) -> None:
        if self.run.lag:
            self.past.append({name: value.clone() for name, value in self.learner.model.state_dict().items()})
            self.serving.load_state_dict(self.past[0])

    def _learn(self, sessions: Sequence[Session]) -> tuple[UpdateMetrics, int]:
        items = [worlds.item_of(number, session) for number, session in enumerate(sessions)]
        batch = make_batch(items, self.baselines, self.config, self.step)
        parts, num_more = self._parts(sessions, batch)
        self.step += 1
        metrics = self.learner.update([self._as_taken(part) for part in parts])
        self.baselines = self.baselines.after(
            batch.columns, metrics.moved, self.config.baselines, batch.fairness.counts
        )
        return metrics, num_more

    def _parts(self, sessions: Sequence[Session], batch: Batch) -> tuple[Sequence[Minibatch], int]:
        """The batch's minibatches, and how many sessions more than production's were sampled for it."""
        if self.run.side is Side.OURS:
            return batch.minibatches, 0
        if self.run.side is Side.LANE:
            return self._with_lane(sessions, batch)
        thumbs = [turn.reward for turn in batch.turns]
        if self.run.side is Side.RAW:
            values = thumbs
        elif self.run.side is Side.BATCH_MEAN:
            values = whiten(thumbs, batch.fairness.counts)
        else:
            values = whiten(self._in_groups(sessions, GROUP), batch.fairness.counts)
        by_trace = {
            turn.trace_id: value * weight
            for turn, value, weight in zip(batch.turns, values, batch.fairness.weights, strict=True)
        }
        return self._minibatches(sessions, by_trace), 0

    def _in_groups(self, sessions: Sequence[Session], size: int) -> list[float]:
        """By turn."""
        found: list[float] = []
        for first in range(0, len(sessions), size):
            group = sessions[first : first + size]
            values = group_advantages([session.thumb for session in group], [1.0] * size)
            found += [x for x, session in zip(values, group, strict=True) for _ in session.starts]
        return found

    def _with_lane(self, sessions: Sequence[Session], batch: Batch) -> tuple[Sequence[Minibatch], int]:
        """A share of the prompts is answered three times more; their sessions are measured against their group."""
        num = int(len(sessions) * LANE_SHARE)
        anchors = sessions[:num]
        more = worlds.converse(self.serving, [one.asked for one in anchors for _ in range(LANE_GROUP - 1)], self.rng)
        others = LANE_GROUP - 1
        groups = [[anchor, *more[n * others : (n + 1) * others]] for n, anchor in enumerate(anchors)]
        grouped = [session for group in groups for session in group]
        shares = [1.0 / len(session.starts) for session in grouped for _ in session.starts]
        values = whiten(self._in_groups(grouped, LANE_GROUP), shares)
        by_trace = dict(batch.advantages)
        numbers = [n if k == 0 else len(sessions) + n * others + k - 1 for n in range(num) for k in range(LANE_GROUP)]
        names = [
            f"{number}-{turn}" for number, one in zip(numbers, grouped, strict=True) for turn in range(len(one.starts))
        ]
        by_trace |= {name: value * share for name, value, share in zip(names, values, shares, strict=True)}
        return self._minibatches([*sessions, *more], by_trace), len(more)

    def _minibatches(self, sessions: Sequence[Session], by_trace: dict[str, float]) -> Sequence[Minibatch]:
        chains = [worlds.item_of(number, session).chains[0] for number, session in enumerate(sessions)]
        samples = [sample for chain in chains if (sample := sample_of(chain, by_trace))]
        own = self.config
        return minibatches(samples, own.minibatch_turns, own.microbatch_tokens, self.step, own.packing)

    def _as_taken(self, minibatch: Minibatch) -> Minibatch:
        if not self.run.is_recomputed:
            return minibatch
        with torch.no_grad():
            return tuple(replace(part, logps_N=self.learner.logps(part).numpy()) for part in minibatch)


def go(run: Run) -> Curve:
    torch.set_num_threads(1)
    gc.freeze()  # else a third of the time goes into looking at what torch imported
    with tempfile.TemporaryDirectory() as folder:
        return Study(run, Path(folder)).go()


def go_all(runs: Iterable[Run], tell: Callable[[Curve], None] = lambda _curve: None) -> list[Curve]:
    """In the order given, on all cores."""
    given = list(runs)
    with ProcessPoolExecutor(len(sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(go, run): number for number, run in enumerate(given)}
        found: dict[int, Curve] = {}
        for one in as_completed(waiting):
            found[waiting[one]] = one.result()
            tell(one.result())
    return [found[number] for number in range(len(given))]
