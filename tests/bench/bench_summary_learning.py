"""Whether a model learns to summarise from the summary reward alone: SmolLM2, our trainer, the real engine.

Each seed begins with the base model at temperature 0.67 and its own histories. A step is what the loop does between two
versions: the engine samples summaries under the newest weights, the scorers score them, the trainer's batch and learner
make an update, the engine loads it. Nobody says what a good summary is but the components; no outcome, no judge.
Likelihoods always come from the base weights, so that before and after are measured with the same rule. Held-out
histories are summarised before and after; the gain is per history, its interval a bootstrap over seeds and histories.

`--plot FILE` also draws the curves.
"""

import argparse
import asyncio
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import bench
import histories
from engine import RunningEngine, scoring_engine
from histories import History, Kind, Message, Summary
from remembering import Remembering
from rich.progress import Progress
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from infra.config import TrainerConfig
from ingest.records.events import Reward, Trajectory, VersionSpan
from rewards import asking, spec
from rewards.scorers import Services
from rewards.spec import RewardSpec
from trainer.advantages.baselines import Baselines
from trainer.advantages.batch import make_batch
from trainer.eligibility import screen
from trainer.inbox import Item, owner_of
from trainer.learner.learner import Learner

SEEDS = 3
STEPS = 12
TRAIN = 48  # histories, each summarised once in every step: one response per prompt, as production gives
HELD_OUT = 48
NUM_FACTS, MAX_PROMPT, MAX_SUMMARY = 4, 230, 80  # facts of a history; tokens
ASK = "Repeat the important facts from above in short notes."
SHARPNESS = 1.5  # of the model that begins; see `sharpened`
CONFIG = TrainerConfig(batch_turns=TRAIN, minibatch_turns=16, microbatch_tokens=1600, lr=7e-5, threads=2)
SPEC = {
    "name": "summary-alone",
    "components": [
        {"name": "sufficiency", "scorer": "sufficiency", "params": {"num_sampled": 0}},
        {"name": "recall", "scorer": "recall"},
        {"name": "faithfulness", "scorer": "faithfulness", "weight": 0.25, "factor": True},
        {"name": "length", "scorer": "length", "weight": 0.0, "factor": True},
        {"name": "symptoms", "scorer": "symptoms", "weight": 0.5},
    ],
}
TARGETS = {"seeds": (">=", 3), "combined_gain_low": (">", 0.0), "sufficiency_gain_low": (">", 0.0)}


def sharpened(model: Path, folder: Path) -> Path:
    """A copy whose final norm, and so every logit, is SHARPNESS times as large: the model at temperature 0.67.

    At temperature 1 the base earns 0.02 and mostly chats on, and what never earns anything teaches nothing. Sampled at
    0.67 instead, it would be trained off its policy: the trainer takes log-probabilities at temperature 1.
    """
    shutil.copytree(model, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] *= SHARPNESS
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@dataclass(frozen=True)
class Attempt:
    """A sampled summary, and what it earned. `numbers` are the components that scored it, `combined` among them."""

    history: History
    reward: Reward
    num_tokens: int
    numbers: dict[str, float]
    text: str


@dataclass
class Curve:
    """One seed's run: held-out attempts before and after, and the mean of every number in each step's batch."""

    before: list[Attempt] = field(default_factory=list)
    after: list[Attempt] = field(default_factory=list)
    steps: list[dict[str, float]] = field(default_factory=list)


class Study:
    """The engine, the learner's folder and the words between them."""

    def __init__(self, running: RunningEngine, scratch: Path) -> None:
        self._running, self._scratch, self._names = running, scratch, count()
        self._tokenizer = AutoTokenizer.from_pretrained(bench.MODEL)
        self._start = sharpened(bench.MODEL, scratch / "start")
        self._scoring = spec.build(RewardSpec.model_validate(SPEC))
        # the judge's weights never change, and floors and ceilings are each history's own: asked once
        self._services = Services(likelihoods=Remembering(running.likelihoods()))

    def tokens(self, messages: Sequence[Message], is_open: bool) -> tuple[int, ...]:
        ids = self._tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=is_open, tokenize=True, return_dict=False
        )
        return tuple(ids if is_open else _without_line_end(ids, self._tokenizer.eos_token_id))

    def prompt(self, history: History) -> tuple[int, ...]:
        system, ask = {"role": "system", "content": history.system}, {"role": "user", "content": history.prompt}
        return self.tokens([system, *history.messages, ask], True)

    def draw(self, numbers: range, num: int) -> list[History]:
        """The first `num` histories among `numbers` whose prompts are short enough."""
        found: list[History] = []
        for number in numbers:
            for domain in histories.domains():
                history = replace(histories.draw(number, domain, num_filler=0, num_facts=NUM_FACTS), prompt=ASK)
                if len(self.prompt(history)) <= MAX_PROMPT and len(found) < num:
                    found.append(history)
        assert len(found) == num
        return found

    async def attempt(self, given: Sequence[History], weights: Path) -> list[Attempt]:
        """A summary of each, sampled under `weights` and scored under the base weights."""
        version = await self._running.load(weights)
        sampled = await asyncio.gather(*map(self._sample, given))
        await self._running.load(bench.MODEL)
        made = [self._recorded(history, one, version) for history, one in zip(given, sampled, strict=True)]
        rewards = await asking.score_all(self._scoring, made, self._services)
        return [
            Attempt(history, reward, len(one.token_ids), _numbers(reward), one.text)
            for history, reward, one in zip(given, rewards, sampled, strict=True)
        ]

    async def _sample(self, history: History) -> Any:
        from vllm import SamplingParams

        params = SamplingParams(temperature=1.0, max_tokens=MAX_SUMMARY, logprobs=0)  # a seed ends vLLM 0.32 on CPU
        prompt = {"prompt_token_ids": list(self.prompt(history))}
        last = None
        async for output in self._running.llm.generate(prompt, params, f"summary-{next(self._names)}"):
            last = output
        assert last is not None
        return last.outputs[0]

    def _recorded(self, history: History, sampled: Any, version: int) -> Trajectory:
        held = tuple(fact for fact in history.facts if fact.value in sampled.text)
        summary = Summary(Kind.FAITHFUL, sampled.text or " ", held)
        trajectory = histories.record(history, summary, self.tokens)
        logprobs = [chosen[token].logprob for token, chosen in zip(sampled.token_ids, sampled.logprobs, strict=True)]
        return _with_sampled(trajectory, tuple(sampled.token_ids), tuple(logprobs), version)

    async def run(self, seed: int, tell: Callable[[str], None]) -> Curve:
        """One seed: held-out before, steps, held-out after."""
        curve = Curve()
        held_out = self.draw(range(10_000 * (seed + 1), 10_000 * (seed + 1) + 500), HELD_OUT)
        train = self.draw(range(500 * seed, 500 * seed + 500), TRAIN)
        learner = await asyncio.to_thread(Learner, self._start, CONFIG)
        weights, baselines = self._start, Baselines()
        curve.before = await self.attempt(held_out, weights)
        for step in range(STEPS):
            attempts = await self.attempt(train, weights)
            curve.steps.append(_means(attempts))
            tell(f"seed {seed}: combined {curve.steps[-1]['combined']:.2f} in step {step}")
            baselines = await self._update(learner, attempts, baselines, step)
            weights = self._scratch / f"{seed}-{step}"
            await asyncio.to_thread(learner.export, weights)
        curve.after = await self.attempt(held_out, weights)
        tell(f"seed {seed}: held out {_means(curve.before)['combined']:.2f} -> {_means(curve.after)['combined']:.2f}")
        return curve

    async def _update(
        self, learner: Learner, attempts: Sequence[Attempt], baselines: Baselines, step: int
    ) -> Baselines:
        items = [_item(number, attempt) for number, attempt in enumerate(attempts)]
        batch = make_batch(items, baselines, CONFIG, step)
        metrics = await asyncio.to_thread(learner.update, batch.minibatches)
        return baselines.after(batch.columns, metrics.moved, CONFIG.baselines, batch.fairness.counts)


def _without_line_end(ids: list[int], eos: int) -> list[int]:
    """The template ends a closed message with a line end, which the model does not sample."""
    return ids if ids[-1] == eos else ids[:-1]


def _with_sampled(
    trajectory: Trajectory, token_ids: tuple[int, ...], logprobs: tuple[float, ...], version: int
) -> Trajectory:
    """The summary's tokens as they were sampled, at the end of the chain that it ends."""
    name = histories.summary_turn(trajectory).trace_id
    chains = list(trajectory.chains)
    (number,) = (n for n, chain in enumerate(chains) if chain.segments[-1].trace_id == name)
    chain = chains[number]
    *others, last = chain.segments
    end, head = last.start + len(token_ids), chain.token_ids[: last.start - chain.shared]
    spans = (VersionSpan(version=version, start=0, end=len(token_ids)),)
    segment = last.model_copy(update={"end": end, "logprobs": logprobs, "spans": spans})
    chains[number] = chain.model_copy(update={"token_ids": head + token_ids, "segments": (*others, segment)})
    return trajectory.model_copy(update={"chains": tuple(chains)})


def _item(number: int, attempt: Attempt) -> Item:
    """As the trainer's inbox holds it. Each history is a tenant, so that it is measured against its own past."""
    reward, place = attempt.reward, (("rewards", 0), number)
    tenant = f"{attempt.history.domain}-{attempt.history.number}"
    trajectory = reward.trajectory
    assert trajectory is not None
    turns = screen(reward, trajectory)
    return Item(*place, 1, tenant, reward.spec, reward.at, turns, trajectory.chains, owner_of(reward, trajectory))


def _numbers(reward: Reward) -> dict[str, float]:
    turn = histories.summary_turn(reward.trajectory)
    found = {c.name: c.value for c in reward.components if c.trace_id == turn.trace_id and c.value is not None}
    (combined,) = (one.value for one in reward.turns if one.trace_id == turn.trace_id)
    return found | {"combined": combined} if combined is not None else found


def _means(attempts: Sequence[Attempt]) -> dict[str, float]:
    names = sorted({name for attempt in attempts for name in attempt.numbers})
    means = {name: fmean(a.numbers[name] for a in attempts if name in a.numbers) for name in names}
    return means | {"tokens": fmean(attempt.num_tokens for attempt in attempts)}


def gains(curves: Sequence[Curve], name: str) -> list[list[float]]:
    """Per seed and held-out history, after less before, where both have the number."""
    return [
        [
            after.numbers[name] - before.numbers[name]
            for before, after in zip(curve.before, curve.after, strict=True)
            if name in before.numbers and name in after.numbers
        ]
        for curve in curves
    ]


def interval(per_seed: Sequence[Sequence[float]], draws: int = 4000) -> tuple[float, float]:
    """The 95 % bootstrap interval of the mean: seeds are drawn, and histories within each."""
    rng = random.Random(0)
    means = sorted(
        fmean(fmean(rng.choices(seed, k=len(seed))) for seed in rng.choices(per_seed, k=len(per_seed)))
        for _ in range(draws)
    )
    return means[int(0.025 * draws)], means[int(0.975 * draws)]


def figures(curves: Sequence[Curve]) -> dict[str, float]:
    """Before, after and gain of every number; the two that the targets name with their intervals."""
    found: dict[str, float] = {"seeds": len(curves), "held_out": HELD_OUT * len(curves)}
    before = _means([attempt for curve in curves for attempt in curve.before])
    after = _means([attempt for curve in curves for attempt in curve.after])
    for name in before:
        found[f"{name}_before"], found[f"{name}_after"] = before[name], after[name]
    for name in ("combined", "sufficiency"):
        per_seed = gains(curves, name)
        low, high = interval(per_seed)
        found |= {f"{name}_gain": fmean(map(fmean, per_seed)), f"{name}_gain_low": low, f"{name}_gain_high": high}
    return {name: round(value, 4) for name, value in found.items()}


def plot(curves: Sequence[Curve], path: Path) -> None:
    """Every component over the steps, a line per seed, and held-out before and after at the ends."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = ("combined", "sufficiency", "recall", "faithfulness", "length", "tokens")
    figure, axes = pyplot.subplots(2, 3, figsize=(11, 6), sharex=True)
    for axis, name in zip(axes.flat, names, strict=True):
        for seed, (curve, marker) in enumerate(zip(curves, "osD^v", strict=False)):
            axis.plot(range(STEPS), [step.get(name) for step in curve.steps], marker=marker, label=f"seed {seed}")
            ends = [_means(curve.before).get(name), _means(curve.after).get(name)]
            axis.plot([0, STEPS], ends, marker=marker, color="0.35", linestyle=":", linewidth=1)
        axis.set_title(name)
        axis.set_ylim(bottom=0.0, top=None if name == "tokens" else 1.02)
    for axis in axes[1]:
        axis.set_xlabel("updates")
    axes[0][0].legend(fontsize=8)
    figure.suptitle("solid: summaries of each step's batch; dotted: held-out histories, before and after")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def show(curves: Sequence[Curve]) -> None:
    """One held-out summary of each seed, before and after, so that people see what was learned."""
    for seed, curve in enumerate(curves):
        for when, attempt in (("before", curve.before[0]), ("after", curve.after[0])):
            print(f"seed {seed}, {when} ({attempt.numbers.get('combined', float('nan')):.2f}): {attempt.text!r}")


async def study(seeds: int) -> list[Curve]:
    with tempfile.TemporaryDirectory() as scratch, Progress() as progress:
        task = progress.add_task("starting the engine", total=seeds * (STEPS + 1))

        def tell(what: str) -> None:
            progress.console.print(what)
            progress.update(task, advance=1, description=what.partition(":")[0])

        cpus = ",".join(map(str, sorted(os.sched_getaffinity(0))))  # all: nobody else is served here
        async with scoring_engine(cpus=cpus) as running:
            subject, curves = Study(running, Path(scratch)), []
            for seed in range(seeds):
                curves.append(await subject.run(seed, tell))
    return curves


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench_summary_learning", description=__doc__.partition("\n")[0])
    parser.add_argument("--plot", type=Path, help="write the curves to this PNG")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    args, begun = parser.parse_args(), time.monotonic()
    curves = asyncio.run(study(args.seeds))
    show(curves)
    if args.plot:
        plot(curves, args.plot)
    bench.report("summary_learning", figures(curves) | {"minutes": round((time.monotonic() - begun) / 60, 1)}, TARGETS)


if __name__ == "__main__":
    main()
