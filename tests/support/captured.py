"""An engine that samples what a test says, with the real capture around it, and a control port."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from answering import TOKEN
from intakes import intake, spelled
from ports import free_port
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from upstreams import serving

from infra.config import EngineSlot
from ingest.records.events import Assignment, Consent, TurnKind
from serving import headers
from serving.engine.capture import Capture, CaptureMiddleware
from serving.engine.idle import Users, UsersMiddleware
from serving.engine.recent import Recent
from serving.headers import Identity
from serving.spool import Spool


class Captured:
    """Answers every chat with `text`, a token a word, as version `version` does; `prompt` are the request's tokens."""

    def __init__(self, folder: Path, arm: str, version: int, text: str) -> None:
        self.version, self.text, self.prompt = version, text, [1, 2]
        self.bodies: list[dict[str, Any]] = []
        self.slot = EngineSlot.model_validate(
            {"id": f"{arm}-0", "arm": arm, "port": free_port(), "control_port": free_port()}
        )
        self.spool = Spool(folder / arm, 1 << 20, 1 << 16)
        capture = Capture(self.spool, self.slot.id, version, Recent(1 << 20, 900.0), intake(), spelled, "small")
        self._generate = capture.wrap(self._sample)
        app = Starlette(routes=[Route("/v1/chat/completions", self._chat, methods=["POST"])])
        self.users = Users()
        self._users: Any = UsersMiddleware(CaptureMiddleware(app, capture), self.users)
        self._control = Starlette(routes=[Route("/status", self._status)])

    async def _sample(self, _prompt: Any, _params: Any, _request_id: str) -> AsyncIterator[Any]:
        words = self.text.split()
        span = SimpleNamespace(version=str(self.version), start=0, end=len(words))
        tokens = tuple(range(5, 5 + len(words)))
        part = SimpleNamespace(
            index=0, text=self.text, token_ids=tokens, finish_reason="stop", weight_versions=[span],
            logprobs=[{token: SimpleNamespace(logprob=-1.0)} for token in tokens],
        )  # fmt: skip
        yield SimpleNamespace(prompt_token_ids=self.prompt, outputs=[part])

    async def _chat(self, request: Request) -> Response:
        self.bodies.append(await request.json())
        params = SimpleNamespace(
            logprobs=None, output_kind=SimpleNamespace(name="FINAL_ONLY"), temperature=0.0, top_p=1.0, max_tokens=8
        )
        async for _ in self._generate({"prompt_token_ids": [1, 2]}, params, "chatcmpl-x"):
            pass
        message = {"role": "assistant", "content": self.text}
        return JSONResponse({"choices": [{"message": message, "finish_reason": "stop"}]})

    async def _status(self, request: Request) -> Response:
        assert request.headers["authorization"] == f"Bearer {TOKEN}"
        return JSONResponse({"version": self.version, "in_flight": self.users.num})

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Captured"]:
        async with serving(self._users, self.slot.port), serving(self._control, self.slot.control_port):
            yield self


def of_user(session_id: str, user: str = "") -> dict[str, str]:
    """The headers under which a router hands on a request of a user's session."""
    return headers.write(
        Identity(headers.new_trace(session_id), session_id, "default", TurnKind.MAIN, Assignment(), Consent.GIVEN, user)
    )
