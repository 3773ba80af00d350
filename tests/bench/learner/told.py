"""What a side is told by the bench."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Told:
    """Of both sides alike, but `microbatch_tokens`, ours (0: the product's default), and `is_compact`, TRL's."""

    threads: int = 2
    device: str = "cpu"
    is_mixed: bool = True
    recompute: bool = False
    lr: float = 1e-6
    microbatch_tokens: int = 0
    is_compact: bool = False
