"""Asking the controller over its port. Every failure says which address was asked, and what to do."""

import json
import os
from collections.abc import Mapping
from typing import Any

import httpx
from pydantic import ValidationError

from infra.config import CONTROL_TOKEN_VAR, Config
from infra.errors import OnstreamError
from ingest.records.events import Frozen

_CONNECT_S = 5.0
_ANSWER_S = 120.0  # a story reads all rewards of its trial, and a command may wait for a load in progress


class RefusedError(OnstreamError, RuntimeError):
    """The controller answered, and does not do it."""


class UsageError(OnstreamError, ValueError):
    """What was asked for cannot be asked so."""


class UnreachableError(OnstreamError, ConnectionError):
    """No controller answered, or it could not."""


class Done(Frozen):
    """A command was carried out: the number of the release that says so, and a sentence."""

    release: int
    told: str


class Controller:
    """A rollout controller at `url`, for who has the control token."""

    def __init__(self, url: str, token: str) -> None:
        self._url, self._token = url.rstrip("/"), token

    def do(self, what: str, author: str, reason: str, version: int | None = None) -> Done:
        """Raises `RefusedError`, `UsageError`, `UnreachableError`."""
        body = {"do": what, "author": author, "reason": reason, "version": version}
        answer = self._ask("POST", "/command", json=body)
        try:
            return Done.model_validate(answer)
        except ValidationError as exc:
            raise UnreachableError(
                f"{self._url}/command: what answers there is no controller: {answer!r:.200}"
            ) from exc

    def get(self, path: str, **query: str | int | float | None) -> dict[str, Any]:
        """Raises `RefusedError`, `UsageError`, `UnreachableError`."""
        return self._ask("GET", path, params={name: value for name, value in query.items() if value is not None})

    def _ask(self, verb: str, path: str, **what: Any) -> dict[str, Any]:
        where = self._url + path
        headers = {"authorization": f"Bearer {self._token}"}
        timeout = httpx.Timeout(_ANSWER_S, connect=_CONNECT_S)
        try:
            answer = httpx.request(verb, where, headers=headers, timeout=timeout, **what)
            body = answer.json()
        except httpx.ReadTimeout as exc:
            unknown = "; whether it was done, `onstream rollout history` will tell" if verb == "POST" else ""
            raise UnreachableError(f"{where}: no answer within {_ANSWER_S:.0f} s{unknown}") from exc
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise UnreachableError(
                f"{where}: {exc or type(exc).__name__}. Does the rollout run there (`serving.rollout.host` and `port`, "
                "or `--url`), and may this machine reach it?"
            ) from exc
        except json.JSONDecodeError as exc:
            raise UnreachableError(
                f"{where}: what answers there is no controller (status {answer.status_code})"
            ) from exc
        if answer.is_success and isinstance(body, dict):
            return body
        told = body.get("error", "") if isinstance(body, Mapping) else ""
        raise _failure(answer.status_code, told or f"status {answer.status_code}", where)


def _failure(status: int, told: str, where: str) -> OnstreamError:
    if status == httpx.codes.UNAUTHORIZED:
        return RefusedError(f"{where}: {told}; what {CONTROL_TOKEN_VAR} holds here is another")
    if status == httpx.codes.BAD_REQUEST:
        return UsageError(told)
    if status >= httpx.codes.INTERNAL_SERVER_ERROR:
        return UnreachableError(f"{where}: the controller cannot answer now: {told}")
    return RefusedError(told)


def of(config: Config | None, url: str | None) -> Controller:
    """From the configuration, or at `url`. Raises `UsageError` where there is no credential."""
    if url is None:
        assert config is not None
        own = config.serving.rollout
        host = f"[{own.host}]" if ":" in own.host else own.host
        url = f"http://{host}:{own.port}"
    return Controller(url, _token(config))


def _token(config: Config | None) -> str:
    """The environment's, or that of `onstream up` on this machine."""
    if token := os.environ.get(CONTROL_TOKEN_VAR):
        return token
    places = [f"{CONTROL_TOKEN_VAR} is not set"]
    if config is not None:
        file = config.control_token_path
        try:
            return file.read_text().strip()
        except OSError as exc:
            places.append(f"{file}, where `onstream up` leaves it, cannot be read ({exc.strerror})")
    raise UsageError(f"no control token: {', and '.join(places)}")
