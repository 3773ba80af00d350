"""What a run came to, as tables on a screen."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import RenderableType
from rich.table import Table

from trainer.offline.training import Step

NONE = "-"
_HEADS = ("step", "turns", "reward", "loss", "kl", "mismatch", "ess", "entropy", "gradient")


def tables(steps: Sequence[Step], refused: Counter[str], num_repeated: int) -> Iterator[RenderableType]:
    """Turns used and refused, then a line for every step."""
    turns = Table(box=box.SIMPLE_HEAD, title="turns", title_justify="left")
    turns.add_column("what became of them")
    turns.add_column("turns", justify="right")
    turns.add_row("trained", f"{sum(step.num_turns for step in steps):,}")
    for reason, num in refused.most_common():
        turns.add_row(f"refused: {reason}", f"{num:,}")
    if num_repeated:
        turns.add_row("left out: in the files twice", f"{num_repeated:,}")
    yield turns
    if steps:
        yield _by_step(steps)


def _by_step(steps: Sequence[Step]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="by step", title_justify="left")
    for head in _HEADS:
        table.add_column(head, justify="right")
    for step in steps:
        table.add_row(*cells(step))
    return table


def cells(step: Step) -> list[str]:
    """One step's numbers; kl, mismatch and entropy are nats per token, ess is a share of the tokens."""
    update = step.update
    numbers = (update.loss, update.kl, update.mismatch_k1, update.ess, update.entropy, update.grad_norm)
    return [str(step.number), f"{step.num_turns:,}", _number(step.reward), *map(_number, numbers)]


def line(step: Step) -> str:
    """One step on one line, where there is no terminal to draw a bar on."""
    return ", ".join(f"{head} {cell}" for head, cell in zip(_HEADS, cells(step), strict=True))


def _number(value: float) -> str:
    return f"{value:.4g}" if math.isfinite(value) else NONE
