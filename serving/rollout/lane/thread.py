"""The lane beside the controller: a thread of the rollout's process, with a connection of its own."""

import asyncio
import logging
import threading
from collections.abc import Callable

from infra.config import Config
from infra.errors import LogError, StoreError
from infra.lifecycle import Stop
from ingest.log.protocol import EventLog
from ingest.log.reader import outlast_outages
from serving.rollout.lane.lane import Lane

logger = logging.getLogger(__name__)

_OUTAGES = (LogError, StoreError)


def start(config: Config, open_log: Callable[[], EventLog], token: str, stop: Stop) -> threading.Thread | None:
    """Begin, if the configuration has a lane. It outlasts outages of the log and of the keys, and ends with `stop`.

    It does not beat the process's pulse: what becomes of the lane is no reason to restart the controller.
    """
    if not config.serving.lane.share:
        return None

    def work() -> None:
        log = open_log()
        try:
            _run(Lane(log, config, token, stop))
        finally:
            log.close()

    def outlast() -> None:
        try:
            outlast_outages(stop, work, _OUTAGES)
        except Exception:  # a defect of the lane's is no reason to end the controller; it is logged
            logger.exception("the replay lane ended")

    thread = threading.Thread(target=outlast, name="lane", daemon=True)
    thread.start()
    return thread


def _run(lane: Lane) -> None:
    try:
        asyncio.run(lane.run())
    except* _OUTAGES as failed:
        raise _first(failed) from failed
    finally:
        lane.close()


def _first(failed: BaseExceptionGroup[LogError | StoreError]) -> LogError | StoreError:
    one = failed.exceptions[0]
    return _first(one) if isinstance(one, BaseExceptionGroup) else one
