"""Packed rows read back, by the definition of who sees whom."""

from trainer.learner.batching import Microbatch


def seen_from(microbatch: Microbatch, source: int) -> tuple[list[int], list[int]]:
    """The tokens that a place of the flattened rows sees, its own last, and their positions."""
    row, i = divmod(source, microbatch.token_ids_BT.shape[1])
    until_T = microbatch.until_BT[row]
    seen = [j for j in range(i + 1) if microbatch.is_causal or i < until_T[j]]
    own = range(len(seen)) if microbatch.is_causal else microbatch.positions_BT[row, seen].tolist()
    return microbatch.token_ids_BT[row, seen].tolist(), list(own)
