"""The lane at work: follows rewards and releases, and has each idle engine answer one prompt at a time.

Users come first, twice over: the lane asks an engine that says that no user's request is in it, and the engine itself
gives a replay up the moment a user arrives (`serving.engine.idle`), which then is asked again once they have gone.
A group is one engine's and one session's, which ingest closes with its last answer. It is given up, and is as large as
it has become, when stable changes, its prompt can be read no longer, or `group_s` are over. Nothing is kept: after a
restart the lane goes on with rewards that come from then on, and ingest closes what it left half asked.
"""

import asyncio
import logging
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum

import httpx

from infra import telemetry
from infra.config import Config, EngineSlot
from infra.lifecycle import Deadline, Stop
from infra.telemetry import metrics, names
from ingest.log.protocol import EventLog
from ingest.log.reader import Follower
from ingest.log.topics import REWARDS
from ingest.records.events import Mode, Record, Reward
from ingest.store.releases import ReleaseFollower
from serving import headers
from serving.rollout.lane import anchors
from serving.rollout.lane.picking import Anchor, Picks

logger = logging.getLogger(__name__)

_LOOK_S = 1.0
_AT_ONCE = 32  # engines that are looked at or answer at a time: with a thousand, each is looked at twice a minute
_ASK_S = 5.0
_ANSWER_S = 120.0  # as for a trial's replays: 100 times what a short reply takes
_BUSY, _TRY_AGAIN = 429, 500


class End(StrEnum):
    """How asking for a group ended."""

    WHOLE = "whole"
    GONE = "cannot be read or asked again"
    REFUSED = "refused by the engine"
    OUTDATED = "stable changed, or all is frozen"
    TOO_LONG = "no idle engine for long enough"
    STOPPED = "stopped"


class Lane:
    """One lane over all engines. `now` is Unix time, `look_s` how often an engine is looked at."""

    def __init__(
        self,
        log: EventLog,
        config: Config,
        token: str,
        stop: Stop,
        now: Callable[[], float] = time.time,
        look_s: float = _LOOK_S,
    ) -> None:
        self._log, self._config, self._own, self._stop = log, config, config.serving.lane, stop
        self._bearer = {"authorization": f"Bearer {token}"}
        self._now, self._look_s = now, look_s
        self._group_s = min(self._own.group_s, config.ingest.inactivity_s)  # else ingest closes it in between
        self.picks, self.ended = Picks(self._own), Counter[End]()
        begin = {(REWARDS.name, partition): end for partition, end in log.ends(REWARDS.name).items()}
        self._rewards = Follower(log, [REWARDS], begin)
        self._releases = ReleaseFollower(log)
        self._idle_s: dict[str, float] = defaultdict(float)
        self._asking_s: dict[str, float] = defaultdict(float)
        self._looked_at: dict[str, float] = {}
        telemetry.observe(metrics.LANE_IDLE, lambda: _by_engine(self._idle_s))
        telemetry.observe(metrics.LANE_ASKING, lambda: _by_engine(self._asking_s))

    async def run(self) -> None:
        """Until stopped. Raises `LogError`: then make a new lane."""
        slots: asyncio.Queue[EngineSlot] = asyncio.Queue()
        for slot in self._config.serving.engines:
            slots.put_nowait(slot)
        async with httpx.AsyncClient() as client, asyncio.TaskGroup() as group:
            group.create_task(self._read())
            for _ in range(min(slots.qsize(), _AT_ONCE)):
                group.create_task(self._go_round(client, slots))

    def close(self) -> None:
        self._rewards.close()
        self._releases.close()

    # -- reading

    async def _read(self) -> None:
        await asyncio.to_thread(self._releases.catch_up)
        while not self._stop.is_set():
            self._offer(await asyncio.to_thread(self._poll, self._look_s))

    def read(self, timeout_s: float) -> None:
        """What is new on the log. Raises `LogError`."""
        self._offer(self._poll(timeout_s))

    def _poll(self, timeout_s: float) -> Sequence[Record]:
        self._releases.poll(0.0)
        return self._rewards.poll(timeout_s)

    def _offer(self, records: Iterable[Record]) -> None:
        for record in records:
            if isinstance(record, Reward):
                draw = self.picks.offer(record, self._releases.served.stable)
                telemetry.count(metrics.LANE_PROMPTS, 1, {names.CAUSE: draw.value})

    # -- asking

    async def _go_round(self, client: httpx.AsyncClient, slots: "asyncio.Queue[EngineSlot]") -> None:
        """Have the next engine answer, if it is idle, and so on for as long as the lane runs. Each is in one hand."""
        while not self._stop.is_set():
            slot = slots.get_nowait()
            is_asked = await self._serve(client, slot)
            slots.put_nowait(slot)
            if not is_asked:
                await asyncio.sleep(self._look_s)

    async def _serve(self, client: httpx.AsyncClient, slot: EngineSlot) -> bool:
        """Have an engine answer one prompt; whether it was idle and there was one."""
        served, now = self._releases.served, time.monotonic()
        before, self._looked_at[slot.id] = self._looked_at.get(slot.id, now), now
        if served.mode is Mode.FROZEN or not await self._is_idle(client, slot, served.stable):
            return False
        self._idle_s[slot.id] += now - before
        anchor = self.picks.take(served.stable, self._now())
        if anchor is None:
            return False
        end = await self._ask_group(client, slot, anchor)
        self.ended[end] += 1
        telemetry.count(metrics.LANE_GROUPS, 1, {names.CAUSE: end.value})
        self._looked_at[slot.id] = time.monotonic()
        return True

    async def _is_idle(self, client: httpx.AsyncClient, slot: EngineSlot, version: int | None) -> bool:
        """Whether no user is in the engine, and it serves `version`."""
        url = f"http://{slot.host}:{slot.control_port}/status"
        try:
            told = (await client.get(url, headers=self._bearer, timeout=_ASK_S)).raise_for_status().json()
            return bool(told["in_flight"] == 0 and told["version"] == version)
        except (httpx.HTTPError, ValueError, KeyError):
            return False

    async def _ask_group(self, client: httpx.AsyncClient, slot: EngineSlot, anchor: Anchor) -> End:
        session, deadline, num = f"replay-{uuid.uuid4().hex}", Deadline.after(self._group_s), 0
        while num < self._own.group_size:
            if self._stop.is_set():
                return End.STOPPED
            served = self._releases.served
            if served.stable != anchor.version or served.mode is Mode.FROZEN:
                return End.OUTDATED
            if deadline.passed():
                return End.TOO_LONG
            if not await self._is_idle(client, slot, anchor.version):
                await asyncio.sleep(self._look_s)
                continue
            asked = await asyncio.to_thread(anchors.read, self._log, anchor, self._config.model.name)
            if asked is None:
                return End.GONE
            with self._timed(slot):
                status = await self._ask(client, slot, asked, anchor, session)
            if status == httpx.codes.OK:
                num += 1
                telemetry.count(metrics.LANE_REPLAYS, 1, {names.ENGINE: slot.id})
            elif status is not None and status < _TRY_AGAIN and status != _BUSY:
                return End.REFUSED
            else:
                if status == _BUSY:
                    telemetry.count(metrics.LANE_INTERRUPTED, 1, {names.ENGINE: slot.id})
                await asyncio.sleep(self._look_s)
        return End.WHOLE

    async def _ask(
        self, client: httpx.AsyncClient, slot: EngineSlot, asked: anchors.Asked, anchor: Anchor, session: str
    ) -> int | None:
        """The status of an answer; none where none came."""
        whose = headers.write(anchors.identity(asked, anchor, session, self._own.group_size))
        url = f"http://{slot.host}:{slot.port}{asked.path}"
        try:
            answer = await client.post(url, json=asked.body, headers=whose, timeout=_ANSWER_S)
        except httpx.TransportError as exc:
            logger.info("%s: a replay was not answered: %s", slot.id, type(exc).__name__)
            return None
        return answer.status_code

    @contextmanager
    def _timed(self, slot: EngineSlot) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            for spent in (self._idle_s, self._asking_s):
                spent[slot.id] += time.monotonic() - begun


def _by_engine(spent_s: Mapping[str, float]) -> list[tuple[float, names.Told]]:
    return [(seconds, {names.ENGINE: engine}) for engine, seconds in tuple(spent_s.items())]
