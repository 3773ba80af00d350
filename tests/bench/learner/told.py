"""What a side is told by the bench."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Told:
    """Of both sides alike, but `is_compact` and `is_compiled`, TRL's: the latter is ours on a GPU anyway."""

    threads: int = 2
    device: str = "cpu"
    is_mixed: bool = True
    recompute: bool = False
    lr: float = 1e-6
    is_compact: bool = False
    is_compiled: bool = False
