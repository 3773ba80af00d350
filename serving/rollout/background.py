"""Work of a check beside the controller's tick: a coroutine in a thread of its own, whose standing can be asked for."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable

from serving.rollout.evidence import Standing, Verdict

logger = logging.getLogger(__name__)

_CLOSE_S = 5.0


class Background:
    """Runs `work` until it has a verdict. `standing` never blocks.

    Whatever `work` raises becomes the verdict that the check could not run: never a pass.
    """

    def __init__(self, name: str, begun: str, work: Callable[["Background"], Awaitable[Standing]]) -> None:
        self._name, self._work = name, work
        self.standing = Standing(Verdict.HOLD, begun, {})
        self._runner = asyncio.Runner()
        self._loop = self._runner.get_loop()
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def tell(self, reason: str, numbers: dict[str, float] | None = None) -> None:
        """How far it is; the work itself calls this."""
        self.standing = Standing(Verdict.HOLD, reason, numbers or {})

    async def _run(self) -> None:
        self._task = asyncio.current_task()
        if self._is_closed:
            return
        try:
            self.standing = await self._work(self)
        except Exception as exc:  # whatever it is, nothing was shown, and the controller must hear of it
            logger.exception("%s could not run", self._name)
            reason = f"{self._name} could not run: {exc or type(exc).__name__}"
            self.standing = Standing(Verdict.REJECT, reason, self.standing.numbers)

    def _serve(self) -> None:
        with self._runner:
            try:
                self._runner.run(self._run())
            except asyncio.CancelledError:
                logger.info("%s was given up", self._name)

    def _give_up(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def wait(self, timeout_s: float) -> Standing:
        """Its verdict, or how it stands after `timeout_s`. Blocks."""
        self._thread.join(timeout_s)
        return self.standing

    def close(self) -> None:
        """Give up what still runs."""
        self._is_closed = True
        try:
            self._loop.call_soon_threadsafe(self._give_up)
        except RuntimeError:  # it came to its end, and its loop is closed
            return
        self._thread.join(_CLOSE_S)
