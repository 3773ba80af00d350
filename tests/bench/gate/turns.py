"""Trials whose arms take turns on one pool, in blocks: how often a version worse by the margin is promoted, when the
block is the unit, and when sessions are taken for units that one coin was tossed for together."""

from concurrent.futures import Executor

from block_trials import Rates, World, simulate

TRIALS, CHUNK = 2_000, 125
LEVELS = {
    f"blocks.{share:.0%}".rstrip("%"): World(effect=-0.05, margin=0.05, shock=0.2, share=share) for share in (0.2, 0.5)
}
POWER = {f"blocks.50.+{points}": World(effect=points / 100, margin=0.05, shock=0.05) for points in (5, 15)}


def _chunk(row: str, seed: int) -> Rates:
    return simulate((LEVELS | POWER)[row], CHUNK, seed=seed)


def measure(pool: Executor) -> dict[str, float | None]:
    """Shares of the trials that were promoted, and blocks until then in the median."""
    figures: dict[str, float | None] = {}
    for row in (*LEVELS, *POWER):
        num = TRIALS // CHUNK
        parts = list(pool.map(_chunk, [row] * num, range(num)))
        figures[row] = sum(part.blocks for part in parts) / num
        if row in LEVELS:
            figures[f"{row}.by_sessions"] = sum(part.sessions for part in parts) / num
        else:
            medians = sorted(part.median_blocks for part in parts if part.median_blocks is not None)
            figures[f"{row}.blocks"] = medians[len(medians) // 2] if medians else None
    return figures
