"""Trained tokens a second: our learner beside TRL's GRPOTrainer, on the same prepared batches, in the same run.

One optimiser step of SmolLM2-135M on two cores, in bfloat16 by autocast over float32 weights on both sides, with the
same AdamW, clip, loss and trained tokens; generation is on neither side. Each side is a process of its own, they take
turns, and a round is one step of each. What a side warms up on is not counted; TRL's rows of a microbatch are tried in
its warm-up, and the quickest kept.

    single     turns with prompts of their own, of many lengths
    sessions   ten turns each. TRL has no chains: each turn is a row of its own, with all that came before as its prompt
    groups     eight replies to one long prompt
    single_compact   as single, but TRL computes logits of completions alone, as it does on GPUs

Before that, both give their loss and gradients for the same batch: in float32, where they must be the same, and in
bfloat16, where both are as far off.

    --rounds N     counted rounds of each case, 3 without it      --save FILE   the table as Markdown
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).with_name("learner")))

import bench
import cases
import sides
import torch
from bench import MODEL
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sides import Side
from told import Told

TARGETS = {
    "single_ratio": (">=", 1.0),
    "sessions_ratio": (">=", 3.0),
    "groups_ratio": (">=", 3.0),
    "float32_gradient_difference": ("<=", 1e-3),
}
Gradients = dict[str, torch.Tensor]
COMPARED = cases.Shape(single=3, sessions=1, turns=3, group=3, shared=96)


@dataclass(frozen=True)
class Measured:
    """A case: seconds of each round by side, peak memory, and with activations computed again where that was run."""

    trained: int
    choices: dict[str, int]
    seconds: dict[str, list[float]]
    gib: dict[str, float]
    gib_recomputed: Mapping[str, float]

    def rate(self, side: str) -> float:
        """Trained tokens a second, the median's."""
        return self.trained / median(self.seconds[side])

    @property
    def ratios(self) -> list[float]:
        """TRL's seconds over ours, round by round."""
        return [theirs / ours for ours, theirs in zip(self.seconds["ours"], self.seconds["theirs"], strict=True)]


def measure(model: Path, batch: Path, rounds: int, told: Told) -> Measured:
    """Rounds of a case, then the memory of each side."""
    trained, seconds = cases.num_trained(cases.load(batch)), {name: list[float]() for name in sides.NAMES}
    with sides.both(model, batch, told) as pair:
        choices = {name: quickest(side) for name, side in pair.items()}
        for number in range(rounds):
            for name in sides.NAMES if number % 2 else reversed(sides.NAMES):
                seconds[name].append(pair[name].step(choices[name]))
    gib, recomputed = (
        {
            name: peak_gib(name, model, batch, replace(told, recompute=recompute), choice)
            for name, choice in choices.items()
        }
        for recompute in (False, True)
    )
    return Measured(trained, choices, seconds, gib, recomputed)


def quickest(side: Side) -> int:
    """The choice whose step is quickest, once the side is warm in each: a first one may compile."""
    choices = side.choices()
    for choice in choices:
        side.step(choice)
    times = {choice: side.step(choice) for choice in choices}
    return min(times, key=lambda choice: times[choice])


def peak_gib(name: str, model: Path, batch: Path, told: Told, choice: int) -> float:
    """In a process of its own, of two steps: in the second AdamW's moments are there from the start."""
    with sides.one(name, model, batch, told) as side:
        for _ in range(2):
            side.step(choice)
        return side.peak_gib()


def prepare(model: Path, folder: Path, shape: cases.Shape, device: str = "cpu") -> dict[str, Path]:
    """The batches of a shape by case."""
    folder.mkdir()
    script = Path(__file__).with_name("learner") / "prepare.py"
    command = [sys.executable, str(script), str(model), str(folder), json.dumps(asdict(shape)), device]
    subprocess.run(command, check=True, env=sides.environment())
    return {path.stem: path for path in sorted(folder.glob("*.json"))}


def gradients(model: Path, batch: Path, told: Told, scratch: Path) -> list[tuple[float, Gradients]]:
    """What both compute for a batch before any step, ours first."""
    with sides.both(model, batch, told) as pair:
        return [side.gradients(side.choices()[-1], scratch / "gradients.safetensors") for side in pair.values()]


def apart(one: Gradients, other: Gradients) -> float:
    """The norm of what all gradients differ by, over the norm of `one`."""
    return float(_norm({name: one[name] - other[name] for name in one}) / _norm(one))


def _norm(named: Gradients) -> torch.Tensor:
    return torch.stack([gradient.norm() for gradient in named.values()]).norm()


def differences(model: Path, scratch: Path, told: Told) -> dict[str, float]:
    """For one batch of all three kinds: both sides in float32, and each in bfloat16 beside float32."""
    batches, batch = prepare(model, scratch / "compared", COMPARED, told.device), scratch / "compared.json"
    cases.save([sample for path in batches.values() for sample in cases.load(path)], batch)
    (loss, exact), (their_loss, theirs) = gradients(model, batch, replace(told, is_mixed=False), scratch)
    found = {"float32_loss_difference": abs(loss - their_loss), "float32_gradient_difference": apart(exact, theirs)}
    for short, (mixed_loss, mixed) in zip(("ours", "trl"), gradients(model, batch, told, scratch), strict=True):
        found[f"bfloat16_loss_off_{short}"] = abs(mixed_loss - loss)
        found[f"bfloat16_gradient_off_{short}"] = apart(exact, mixed)
    return found


def figures(measured: Mapping[str, Measured]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, one in measured.items():
        found[f"{name}_ratio"] = median(one.ratios)
        found[f"{name}_ratio_low"], found[f"{name}_ratio_high"] = min(one.ratios), max(one.ratios)
        for side, short in zip(sides.NAMES, ("ours", "trl"), strict=True):
            found[f"{name}_tokens_per_s_{short}"] = one.rate(side)
            found[f"{name}_gib_{short}"] = one.gib[side]
            if side in one.gib_recomputed:
                found[f"{name}_gib_recomputed_{short}"] = one.gib_recomputed[side]
    return found


def told_of(measured: Mapping[str, Measured]) -> Table:
    """The table of docs/bench/learner.md."""
    table = Table(
        "case", "trained tokens", "ours, tokens/s", "TRL, tokens/s", "ratio (rounds)", "TRL's rows of a microbatch",
        "peak GiB, ours / TRL", "with activations computed again", box=box.MARKDOWN,
    )  # fmt: skip
    for name, one in measured.items():
        table.add_row(
            name,
            str(one.trained),
            _spread(one, "ours"),
            _spread(one, "theirs"),
            f"{median(one.ratios):.2f} ({min(one.ratios):.2f} to {max(one.ratios):.2f})",
            str(one.choices["theirs"]),
            " / ".join(f"{one.gib[side]:.2f}" for side in sides.NAMES),
            " / ".join(f"{gib:.2f}" for gib in one.gib_recomputed.values()),
        )
    return table


def _spread(one: Measured, side: str) -> str:
    times = one.seconds[side]
    return f"{one.rate(side):.1f} ({one.trained / max(times):.1f} to {one.trained / min(times):.1f})"


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--save", type=Path)
    asked = parser.parse_args(arguments)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        equal = differences(MODEL, Path(scratch), Told())
        batches = prepare(MODEL, Path(scratch) / "batches", cases.Shape())
        runs = {name: (batch, asked.rounds, Told()) for name, batch in batches.items()}
        runs["single_compact"] = batches["single"], asked.rounds, Told(is_compact=True)
        measured = {name: measure(MODEL, *run) for name, run in track(runs.items(), "cases")}
    console = Console(record=True, width=240)
    console.print(told_of(measured))
    if asked.save:
        asked.save.write_text(console.export_text())
    bench.report("learner", figures(measured) | equal | {"minutes": (time.monotonic() - begun) / 60}, TARGETS)


if __name__ == "__main__":
    main(sys.argv[1:])
