"""Sides as the bench sees them: processes that answer lines of JSON, each alive while it is asked."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from told import Told

NAMES = ("ours", "theirs")


def environment() -> dict[str, str]:
    """Of our scripts in processes of their own: the product and these modules are found, nothing is fetched or told."""
    here = Path(__file__)
    path = [str(here.parents[3]), str(here.parents[2] / "support"), os.environ.get("PYTHONPATH", "")]
    quiet = {"TRANSFORMERS_VERBOSITY": "error", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "1"}
    roomy = {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}  # of a GPU's memory, else lost between pieces
    return {**os.environ, **quiet, **roomy, "PYTHONPATH": os.pathsep.join(path)}


@dataclass(frozen=True)
class Side:
    """One side's process."""

    process: "subprocess.Popen[str]"

    def step(self, choice: int) -> float:
        """Seconds of an optimiser step."""
        return float(self._ask(do="step", choice=choice)["seconds"])

    def take(self, batch: Path) -> None:
        self._ask(do="take", batch=str(batch))

    def choices(self) -> list[int]:
        return list(self._ask(do="choices")["choices"])

    def peak_gib(self) -> float:
        return float(self._ask(do="peak")["gib"])

    def gradients(self, choice: int, to: Path) -> tuple[float, dict[str, Any]]:
        """The loss of the batch, and its gradients by parameter."""
        loss = float(self._ask(do="gradients", choice=choice, to=str(to))["loss"])
        named = load_file(to)
        to.unlink()
        return loss, named

    def _ask(self, **asked: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the side ended with {self.process.wait()}"
        found: dict[str, Any] = json.loads(line)
        return found


@contextmanager
def one(name: str, model: Path, batch: Path, told: Told) -> Iterator[Side]:
    """A side that has loaded its model."""
    command = [sys.executable, str(Path(__file__).with_name("side.py")), name, str(model), str(batch)]
    with subprocess.Popen(
        [*command, json.dumps(asdict(told))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        side = Side(process)
        side.answer()
        yield side
        assert process.stdin is not None
        process.stdin.close()


@contextmanager
def both(model: Path, batch: Path, told: Told) -> Iterator[dict[str, Side]]:
    """Both, loaded; who is not asked waits for a line and computes nothing."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(one(name, model, batch, told)) for name in NAMES}
