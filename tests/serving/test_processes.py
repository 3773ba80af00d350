"""Shells around the router and the rollout."""

import threading
import time
from pathlib import Path

import pytest

from infra.config import RouterConfig
from infra.lifecycle import Stop
from ingest import releases
from ingest.events import Release, ReleaseKind, TrialState
from ingest.log import InMemoryLog
from ingest.reader import send
from ingest.topics import RELEASES
from serving.processes import follow_releases
from serving.router import Router
from serving.spool import Spool


def release(number: int, kind: ReleaseKind, **fields: object) -> Release:
    return Release.model_validate(
        {"release": number, "epoch": 1, "kind": kind, "stable": 0, "reason": "", "at": 0.0} | fields
    )


@pytest.mark.parametrize("outage", [False, True])
def test_the_router_goes_on_from_what_it_knew(tmp_path: Path, outage: bool) -> None:
    log = InMemoryLog()
    router = Router({}, RouterConfig(), Spool(tmp_path, 1 << 20, 1 << 16))
    canary = release(1, ReleaseKind.TRIAL, state=TrialState.CANARY, candidate=1, share=0.3)
    router.served = releases.fold([release(0, ReleaseKind.BOOTSTRAP), canary])
    stop = Stop()
    following = threading.Thread(target=follow_releases, args=(lambda: log, router, stop))
    following.start()
    try:
        if outage:
            log.restart()
        send(log, RELEASES, "", release(2, ReleaseKind.ANNOUNCED))
        deadline = time.monotonic() + 10
        while router.served.last < 2 and time.monotonic() < deadline:
            stop.wait(0.01)
    finally:
        stop.set()
        following.join()
    assert (router.served.last, router.served.candidate, router.served.share) == (2, 1, 0.3)
