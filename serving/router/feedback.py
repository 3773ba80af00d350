"""Feedback goes to a disk spool, redacted and sealed, so a user's thumb does not wait for a broker.

Consent is asked of it as of any request: without, nothing of it is kept.
"""

import asyncio
import logging
import time
import uuid
from collections import Counter

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, ValidationError, model_validator
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from infra import telemetry
from infra.errors import StoreError
from infra.telemetry import metrics
from ingest.log import topics
from ingest.privacy.intake import Intake
from ingest.records.events import Feedback, Headers, key_of, session_key
from ingest.records.ids import trace_of
from serving.router.clients import Clients, user_named
from serving.router.refusals import Refused, read_body
from serving.spool import Spool

logger = logging.getLogger(__name__)


class FeedbackRequest(BaseModel):
    """The body of `POST /v1/feedback`. `id` is a completion's `id` (or a trace id); `value` is -1 (bad) to 1 (good)."""

    model_config = ConfigDict(extra="forbid")

    id: str | None = Field(None, max_length=200)
    session: str | None = Field(None, max_length=200)
    value: StrictFloat = Field(ge=-1.0, le=1.0)
    name: str = Field("thumb", min_length=1, max_length=256)
    comment: str = Field("", max_length=10_000)
    user: str | None = Field(None, max_length=200)
    feedback_id: str | None = Field(None, min_length=1, max_length=200)

    @model_validator(mode="after")
    def _about_something(self) -> "FeedbackRequest":
        if not self.id and not self.session:
            raise ValueError("must name a completion (`id`) or a `session`")
        return self


class FeedbackDesk:
    """Takes feedback for one router, and counts it in the router's `counts`."""

    def __init__(self, clients: Clients, spool: Spool, intake: Intake, counts: Counter[str]) -> None:
        self._clients, self._spool, self._intake, self._counts = clients, spool, intake, counts

    async def take(self, request: Request) -> Response:
        """`POST /v1/feedback`: durable on this disk when answered with 202. Without consent it is answered with 200."""
        try:
            record = self._record(request, self._clients.tenant(request), await read_body(request))
            if self._clients.consent(request) is None:
                self._counts["feedback_unconsented"] += 1
                return JSONResponse({"feedback_id": record.feedback_id, "stored": False}, 200)
            value, schema = await self._closed(record)
        except Refused as refused:
            return refused.response()
        carried = schema | telemetry.headers_out()
        key = key_of(session_id=record.session_id, trace_id=record.trace_id)
        if not self._spool.put(topics.FEEDBACK.name, key, value, carried):
            return Refused(503, "feedback cannot be stored now; send it again later").response()
        self._counts["feedback"] += 1
        telemetry.count(metrics.FEEDBACK_TAKEN)
        return JSONResponse({"feedback_id": record.feedback_id}, 202)

    async def _closed(self, record: Feedback) -> tuple[bytes, Headers]:
        """Feedback redacted and sealed, as it is written."""
        try:
            return await asyncio.to_thread(self._intake.close_feedback, self._intake.redact_feedback(record))
        except StoreError as exc:
            logger.error("feedback %s: not taken: %s", telemetry.Local(record.feedback_id), exc)
            raise Refused(503, "feedback cannot be stored now; send it again later") from exc

    def _record(self, request: Request, tenant: str, body: bytes) -> Feedback:
        try:
            given = FeedbackRequest.model_validate_json(body)
            trace = trace_of(given.id) if given.id else None
            session = self._clients.within(tenant, given.session) if given.session else None
            if trace and session and not trace.startswith(session_key(session)):
                raise Refused(400, f"id: {given.id!r:.80} is no completion of session {given.session!r}")
            return Feedback(
                feedback_id=self._clients.within(tenant, given.feedback_id or uuid.uuid4().hex),
                trace_id=trace,
                session_id=session,
                tenant=tenant,
                user=self._intake.pseudonym(tenant, user_named(request) or given.user or ""),
                name=given.name,
                value=given.value,
                comment=given.comment,
                at=time.time(),
            )
        except ValidationError as exc:
            told = "; ".join(
                f"{'.'.join(map(str, error['loc'])) or 'feedback'}: {error['msg'].removeprefix('Value error, ')}, "
                f"got {error['input']!r:.80}"
                for error in exc.errors()
            )
            raise Refused(400, told) from exc
