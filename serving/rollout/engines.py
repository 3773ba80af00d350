"""The rollout's hands on the engines: their control ports, and one question at their users' door."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from infra import telemetry
from infra.config import EngineSlot
from infra.errors import ControlError
from serving import headers

logger = logging.getLogger(__name__)

# 270 MB fetch, verify and swap in under 3 s here; a minute and a half per 10 GB leaves room for slow object stores
_LOAD_S = 600.0
_ASK_S = 5.0
_PROBE_S = 60.0
_SHOWN = 200


@dataclass(frozen=True)
class EngineStatus:
    """What an engine says of itself. `held` are versions that it can serve without the store."""

    version: int
    in_flight: int
    held: tuple[int, ...] = ()


class EngineControl:
    """Commands to one engine."""

    def __init__(self, slot: EngineSlot, model: str, token: str) -> None:
        self.slot = slot
        self._model = model
        self._control = httpx.Client(
            base_url=f"http://{slot.host}:{slot.control_port}",
            headers={"authorization": f"Bearer {token}"},
            timeout=_ASK_S,
        )
        self._users = httpx.Client(base_url=f"http://{slot.host}:{slot.port}", timeout=_PROBE_S)

    def status(self) -> EngineStatus | None:
        """`None`: the engine does not answer, being dead or still starting."""
        try:
            body = _body(self._control.get("/status").raise_for_status())
            return EngineStatus(body["version"], body["in_flight"], tuple(body.get("held", ())))
        except (httpx.HTTPError, KeyError):
            return None

    def load(self, version: int, epoch: int) -> dict[str, float]:
        """Swap to `version`, as the writer with this epoch says; what it took: `fetch_s`, `pause_s`.

        Raises:
            ControlError: the engine refused, with its reason; it serves what it served.
            httpx.TransportError: the engine died on the way, or something else answered for it.
        """
        told = telemetry.headers_out()
        answer = self._control.post("/load", json={"version": version, "epoch": epoch}, headers=told, timeout=_LOAD_S)
        body = _body(answer)
        if "error" in body:
            raise ControlError(f"{self.slot.id}: {body['error']}")
        if not body.keys() >= {"fetch_s", "pause_s"}:
            told_us = f"{self.slot.id}: a load was answered with {answer.status_code} {answer.text[:_SHOWN]!r}"
            raise httpx.RemoteProtocolError(told_us, request=answer.request)
        return {"fetch_s": body["fetch_s"], "pause_s": body["pause_s"]}

    def hold(self, versions: Sequence[int]) -> None:
        """Have it keep these versions at hand; what comes of it, its status tells."""
        try:
            self._control.post("/hold", json={"versions": list(versions)}).raise_for_status()
        except httpx.HTTPError as exc:
            logger.warning("%s: not asked to hold %s ready: %s", self.slot.id, list(versions), exc)

    def probe(self) -> None:
        """One short greedy completion, not captured.

        Raises:
            ControlError: the engine did not answer it with text.
        """
        body = {"model": self._model, "prompt": "Hello", "max_tokens": 4, "temperature": 0}
        answer = self._users.post("/v1/completions", json=body, headers={headers.CONSENT: "no"})
        if answer.is_error or not _body(answer).get("choices"):
            raise ControlError(f"{self.slot.id}: a probe completion failed with {answer.status_code}")

    def close(self) -> None:
        self._control.close()
        self._users.close()


def _body(answer: httpx.Response) -> dict[str, Any]:
    """What an answer says in JSON; nothing where that is no object: a proxy or a server that failed may answer too."""
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
