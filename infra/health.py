"""Whether a process is alive, started and ready, for who may restart it or sends it work.

    /live       200 while it may make progress. Not live: its main loop has stood still for `health.stall_s`, so only a
                restart helps. A broker that is away is no such reason: whoever waits for it still turns.
    /started    200 once it does its work; before that it loads, and is live however long that takes
    /ready      200 while it does its work; an engine: while it serves the version that the release log gave it

An answer that is not 200 says why in a sentence.
"""

import asyncio
from collections.abc import Callable, Mapping

from infra import answers
from infra.config import HealthConfig
from infra.lifecycle import Pulse

_BEAT_S = 1.0

Reason = Callable[[], str]
"""What keeps the process from its work now; empty: nothing does."""


def serve(config: HealthConfig, pulse: Pulse, trouble: Reason | None = None) -> Callable[[], None]:
    """Answer for a process with `pulse` until it ends; without a port, not at all. Returns what ends it earlier.

    `trouble` says what keeps it from being ready; left out, what its pulse was told.

    Raises:
        StartError: the port cannot be had.
    """
    if config.port is None:
        return lambda: None
    keeps = trouble or (lambda: pulse.trouble)

    def answer(why_not: Reason) -> answers.Answer:
        def answered() -> tuple[int, Mapping[str, object]]:
            reason = why_not()
            return (503, {"ok": False, "reason": reason}) if reason else (200, {"ok": True})

        return answered

    routes = {
        "/live": answer(lambda: stalled(pulse, config.stall_s)),
        "/started": answer(lambda: starting(pulse)),
        "/ready": answer(lambda: starting(pulse) or stalled(pulse, config.stall_s) or keeps()),
    }
    return answers.serve(config.listen, config.port, routes, "health.port")


async def beat(pulse: Pulse) -> None:
    """Beat for as long as the event loop turns."""
    while True:
        pulse.beat()
        await asyncio.sleep(_BEAT_S)


def starting(pulse: Pulse) -> str:
    """Why it has not started; empty: it has."""
    return "" if pulse.has_begun else "starting"


def stalled(pulse: Pulse, stall_s: float) -> str:
    """Why it cannot make progress; empty: it can."""
    age_s = pulse.age_s()
    return f"the main loop has not turned for {age_s:.0f} s" if age_s > stall_s else ""
