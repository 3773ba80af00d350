"""The shell around the router."""

import asyncio
import contextlib
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
import yaml
from intakes import intake
from ports import free_port
from processes import until
from upstreams import Upstream

from infra.config import RouterConfig
from infra.lifecycle import Stop
from ingest.log.memory import InMemoryLog
from ingest.log.reader import send
from ingest.log.topics import RELEASES
from ingest.records.events import Arm, Assignment, Release, ReleaseKind, TrialState
from ingest.store import releases
from serving.router.front import Router
from serving.router.process import follow_releases
from serving.router.routing import Health, assign
from serving.spool import Spool


def release(number: int, kind: ReleaseKind, **fields: object) -> Release:
    return Release.model_validate(
        {"release": number, "epoch": 1, "kind": kind, "stable": 0, "reason": "", "at": 0.0} | fields
    )


@pytest.mark.parametrize("outage", [False, True])
def test_the_router_goes_on_from_what_it_knew(tmp_path: Path, outage: bool) -> None:
    log = InMemoryLog()
    router = Router({}, RouterConfig(), Spool(tmp_path, 1 << 20, 1 << 16), intake())
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


def test_a_router_that_is_too_old_for_a_release_serves_on_and_gives_no_session_to_a_trial(tmp_path: Path) -> None:
    log = InMemoryLog()
    router = Router({}, RouterConfig(), Spool(tmp_path, 1 << 20, 1 << 16), intake())
    send(log, RELEASES, "", release(0, ReleaseKind.BOOTSTRAP))
    canary = {"state": TrialState.CANARY, "candidate": 1, "share": 0.3, "engines": {"s": 0, "c": 1}}
    send(log, RELEASES, "", release(1, ReleaseKind.TRIAL, **canary))
    log.append(RELEASES.name, "", b"{}", {"schema": f"release/{Release.VERSION + 1}"})
    follow_releases(lambda: log, router, Stop())
    assert (router.served.last, router.served.stable, router.served.share) == (1, 0, 0.0)
    assert router.counts["releases_too_new"] == 1
    assigned = {assign(f"session {n}", router.served, ("s", "c"), Health()) for n in range(50)}
    assert assigned == {Assignment()}


def test_two_routers_give_a_session_the_same_arm_all_along_a_ramp(tmp_path: Path) -> None:
    """They share nothing but the release log; one of them joins in the middle."""
    log, stop = InMemoryLog(), Stop()
    routers: list[Router] = []
    following: list[threading.Thread] = []

    def join() -> None:
        routers.append(Router({}, RouterConfig(), Spool(tmp_path / str(len(routers)), 1 << 20, 1 << 16), intake()))
        following.append(threading.Thread(target=follow_releases, args=(lambda: log, routers[-1], stop)))
        following[-1].start()

    sessions = [f"session {n}" for n in range(400)]
    engines = {"s": 0, "c": 1}
    on_candidate = []
    try:
        join()
        send(log, RELEASES, "", release(0, ReleaseKind.BOOTSTRAP))
        for number, share in enumerate((0.1, 0.3, 0.6), start=1):
            canary = {"state": TrialState.CANARY, "candidate": 1, "share": share, "salt": "x", "engines": engines}
            send(log, RELEASES, "", release(number, ReleaseKind.TRIAL, **canary))
            if number == 2:
                join()
            until(lambda number=number: all(router.served.last == number for router in routers), 10.0)
            seen = [[assign(name, router.served, tuple(engines), Health()) for name in sessions] for router in routers]
            assert all(assigned == seen[0] for assigned in seen)
            on_candidate.append({name for name, one in zip(sessions, seen[0], strict=True) if one.arm is Arm.CANDIDATE})
    finally:
        stop.set()
        for thread in following:
            thread.join()
    first, second, third = on_candidate
    assert first < second < third, "a session on the candidate stays there as its share grows"
    assert len(routers) == 2 and 0.5 < len(third) / len(sessions) < 0.7


async def test_a_router_that_is_asked_to_end_finishes_its_replies_first(tmp_path: Path, upstream: Upstream) -> None:
    port = free_port()
    hosts = {"stable": "127.0.0.1", "candidate": "localhost"}
    slots = [{"id": a, "arm": a, "host": h, "port": upstream.port, "control_port": 1} for a, h in hosts.items()]
    given = {
        "run_dir": str(tmp_path),
        "model": {"path": "none"},
        "log": {"brokers": f"127.0.0.1:{free_port()}", "timeout_s": 2},
        "serving": {"engines": slots, "router": {"port": port}},
    }
    path = tmp_path / "onstream.yaml"
    path.write_text(yaml.safe_dump(given))
    upstream.pause_s = 0.2
    router = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs yet
        [sys.executable, "-m", "serving", "router", "--config", str(path)], stderr=subprocess.DEVNULL
    )
    try:
        async with upstream.serving(), httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10.0) as client:
            async with asyncio.timeout(20.0):
                await until_healthy(client)
            async with client.stream("POST", "/v1/chat/completions", json={"stream": True}) as answer:
                lines = answer.aiter_lines()
                read = [await anext(lines)]
                router.send_signal(signal.SIGTERM)
                read += [line async for line in lines]
        assert "data: [DONE]" in read
        assert await asyncio.to_thread(router.wait, 15.0) == 0
    finally:
        router.kill()
        router.wait()


async def until_healthy(client: httpx.AsyncClient) -> None:
    while True:
        with contextlib.suppress(httpx.TransportError):
            if (await client.get("/health")).status_code == 200:
                return
        await asyncio.sleep(0.1)
