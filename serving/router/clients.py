"""Who asks: tenant, session, user and consent, from what a client says. What it must not say is refused."""

import hashlib
import json
import re
from collections.abc import Callable

from starlette.requests import Request

from infra.config import RouterConfig
from ingest.privacy.intake import Intake, user_in
from ingest.records.events import Assignment, Consent, TurnKind
from serving import headers
from serving.headers import Identity
from serving.router.refusals import Refused

_NAMES_USER = re.compile(rb'"(?:user|safety_identifier|user_id)"\s*:')


class Clients:
    """The clients of one router, by its keys and its rule about consent."""

    def __init__(self, config: RouterConfig, intake: Intake) -> None:
        self._config, self._intake = config, intake

    def tenant(self, request: Request) -> str:
        """By its key. Raises `Refused`."""
        if not self._config.api_keys:
            return "default"
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        tenant = self._config.api_keys.get(hashlib.sha256(key.encode()).hexdigest())
        if tenant is None:
            raise Refused(401, "this endpoint needs an API key of its configuration: Authorization: Bearer <key>")
        return tenant

    def within(self, tenant: str, name: str) -> str:
        """A name that a client gave, told apart from the same name given by another tenant."""
        return f"{tenant}/{name}" if self._config.api_keys else name

    def identify(
        self, request: Request, tenant: str, session: str, body: bytes, assign: Callable[[str], Assignment]
    ) -> Identity:
        """What the request is, by its headers and body, and by the arm that `assign` gives its session id."""
        session_id = self.within(tenant, session)
        turn = request.headers.get(headers.TURN, TurnKind.MAIN)
        if turn not in tuple(TurnKind):
            raise Refused(400, f"{headers.TURN}: must be one of {', '.join(TurnKind)}, got {turn!r}")
        parent = _session_name(request, headers.PARENT_SESSION)
        return Identity(
            trace_id=headers.new_trace(session_id),
            session_id=session_id,
            tenant=tenant,
            kind=TurnKind(turn),
            assignment=assign(session_id),
            consent=self.consent(request),
            user=self._intake.pseudonym(tenant, _user(request, body)),
            parent_session_id=self.within(tenant, parent) if parent else None,
        )

    def consent(self, request: Request) -> Consent | None:
        """How it was had, by header or by the rule for who says nothing; `None`: keep nothing. Raises `Refused`."""
        said = request.headers.get(headers.CONSENT)
        if said not in (None, "yes", "no"):
            raise Refused(400, f"{headers.CONSENT}: must be yes or no, got {said!r}")
        if said is None:
            return Consent.ASSUMED if self._config.capture_by_default else None
        return Consent.GIVEN if said == "yes" else None


def session_of(request: Request) -> str:
    """The session's name, given or new. Raises `Refused`."""
    return _session_name(request, headers.SESSION) or headers.new_session()


def _session_name(request: Request, header: str) -> str | None:
    name = request.headers.get(header)
    if name and not headers.is_session_name(name):
        raise Refused(400, f"{header}: must be 1 to 200 visible ASCII characters, got {name[:60]!r}")
    return name or None


def user_named(request: Request) -> str:
    """Who the header USER says, in UTF-8 as a body would say it: the same user has one pseudonym. Else in Latin-1."""
    named = request.headers.get(headers.USER, "")
    try:
        return named.encode("latin-1").decode()
    except UnicodeDecodeError:
        return named


def _user(request: Request, body: bytes) -> str:
    """Who a client says that its user is; a body is only read where it may say so."""
    named = user_named(request)
    if named or not _NAMES_USER.search(body):
        return named or ""
    try:
        asked = json.loads(body)
    except ValueError:
        return ""  # the engine refuses it
    return user_in(asked) if isinstance(asked, dict) else ""
