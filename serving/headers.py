"""Headers between client, router and engine, in one place.

A client may send SESSION (which conversation this is), PARENT_SESSION (the session whose agent started this one's),
TURN (`summary` for a self-summary, `side` for a request that must never train), CONSENT (`yes`, or `no`: do not
capture) and USER (who its user is; the field `user` of a request says the same). The router answers with SESSION and
TRACE. The rest travels from router to engine only: the router drops what a client sends under those names, and a user's
name goes no further than the router.
"""

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from ingest.records.events import Arm, Assignment, Consent, Group, TurnKind, session_key

SESSION = "x-onstream-session"
PARENT_SESSION = "x-onstream-parent-session"
TURN = "x-onstream-turn"
CONSENT = "x-onstream-consent"
USER = "x-onstream-user"
TRACE = "x-onstream-trace"
PSEUDONYM = "x-onstream-pseudonym"
TENANT = "x-onstream-tenant"
ARM = "x-onstream-arm"
TRIAL = "x-onstream-trial"
PROPENSITY = "x-onstream-propensity"
REPLAY_OF = "x-onstream-replay-of"
GROUP = "x-onstream-group"  # JSON of the group that a replay of the lane belongs to
BLOCK = "x-onstream-block"
REQUEST_ID = "x-request-id"  # vLLM makes the completion's id of it: `chatcmpl-<trace id>`

FROM_ROUTER = (TRACE, PSEUDONYM, TENANT, ARM, TRIAL, PROPENSITY, REPLAY_OF, GROUP, BLOCK, REQUEST_ID)

NO_CONSENT = "no"

_SESSION_RULE = re.compile(r"[\x21-\x7e]{1,200}")


@dataclass(frozen=True)
class Identity:
    """Who and what a request is, as the router hands it to an engine. Without consent it is served and not captured.

    `user` is a pseudonym, or empty.
    """

    trace_id: str
    session_id: str
    tenant: str
    kind: TurnKind
    assignment: Assignment
    consent: Consent | None
    user: str = ""
    parent_session_id: str | None = None

    @property
    def is_captured(self) -> bool:
        return self.consent is not None


def new_session() -> str:
    """An id for a session whose client named none."""
    return f"anonymous-{uuid.uuid4().hex}"


def new_trace(session_id: str) -> str:
    """A trace id: it begins with its session's key, so that feedback naming only the trace finds its partition."""
    return f"{session_key(session_id)}-{uuid.uuid4().hex}"


def is_session_name(value: str) -> bool:
    """Visible ASCII, 1 to 200 characters."""
    return _SESSION_RULE.fullmatch(value) is not None


def write(identity: Identity) -> dict[str, str]:
    """`identity` as headers."""
    headers = {
        REQUEST_ID: identity.trace_id,
        TRACE: identity.trace_id,
        SESSION: identity.session_id,
        TENANT: identity.tenant,
        TURN: identity.kind,
        ARM: identity.assignment.arm,
        PROPENSITY: repr(identity.assignment.propensity),
        CONSENT: identity.consent or NO_CONSENT,
    }
    if identity.user:
        headers[PSEUDONYM] = identity.user
    if identity.assignment.trial is not None:
        headers[TRIAL] = str(identity.assignment.trial)
    if identity.assignment.replay_of is not None:
        headers[REPLAY_OF] = identity.assignment.replay_of
    if identity.assignment.group is not None:
        headers[GROUP] = json.dumps(identity.assignment.group.model_dump())  # a header is ASCII, a part's name any text
    if identity.assignment.block is not None:
        headers[BLOCK] = str(identity.assignment.block)
    if identity.parent_session_id is not None:
        headers[PARENT_SESSION] = identity.parent_session_id
    return headers


def read(headers: Mapping[str, str]) -> Identity:
    """The identity in an engine's request headers; one made up where no router wrote any."""
    session = headers.get(SESSION) or new_session()
    trial, block = headers.get(TRIAL), headers.get(BLOCK)
    return Identity(
        trace_id=headers.get(TRACE) or new_trace(session),
        session_id=session,
        tenant=headers.get(TENANT, "default"),
        kind=TurnKind(headers.get(TURN, TurnKind.MAIN)),
        assignment=Assignment(
            arm=Arm(headers.get(ARM, Arm.STABLE)),
            trial=int(trial) if trial else None,
            propensity=float(headers.get(PROPENSITY, "1.0")),
            replay_of=headers.get(REPLAY_OF) or None,
            group=Group.model_validate_json(headers[GROUP]) if headers.get(GROUP) else None,
            block=int(block) if block else None,
        ),
        consent=_consent(headers.get(CONSENT, Consent.ASSUMED)),
        user=headers.get(PSEUDONYM, ""),
        parent_session_id=headers.get(PARENT_SESSION) or None,
    )


def _consent(said: str) -> Consent | None:
    if said == NO_CONSENT:
        return None
    return Consent.ASSUMED if said == Consent.ASSUMED else Consent.GIVEN
