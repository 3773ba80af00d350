"""Who never trains: a salted share of sessions, or of users, for ever. Pure.

The answer is a hash of a name, so every process gives it at any time, before and after a restart, for each revision of
a session, and without asking anybody. It is independent of the arm that a session is served by, whose hash has another
salt. What is hashed is

    session   the session; of one that an agent began, the session that it names as its parent, so that both stay out
              or neither. An agent's agents' agents follow only where they name the first session
    user      the tenant and the user's pseudonym; a session without one is as under `session`

A replay of a trial's check, which asks again what some held-out session was asked, is held out whatever the hash says:
its prompt is one that must not train. One of the replay lane names the session that it asks for as its parent, and so
stays out or does not as that does.

A session is held out when any of its traces says so. Should later traces name another parent or user, it can become
held out and never stop being it. A greater share holds out all that a smaller one did; a smaller share or another salt
lets go of sessions that were held out before, and of evaluations their worth.
"""

from collections.abc import Iterable
from hashlib import blake2b

from infra.config import IngestConfig
from ingest.records.events import session_key
from ingest.sessions.held import AnyTrace


def is_held_out(key: str, share: float, salt: str) -> bool:
    """Whether what `key` names never trains."""
    digest = blake2b(f"{salt}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) / 2**64 < share


def holds_out(config: IngestConfig, traces: Iterable[AnyTrace]) -> bool:
    """Whether a session never trains, from its traces in any order."""
    traces = tuple(traces)
    assignments = {id(trace.assignment): trace.assignment for trace in traces}  # nearly always one
    if any(one.is_of_a_check for one in assignments.values()):
        return True
    whose = {(trace.tenant, trace.user, trace.parent_session_id or trace.session_id) for trace in traces}
    share, salt = config.held_out_share, config.held_out_salt
    return any(is_held_out(_key(config, *names), share, salt) for names in whose)


def _key(config: IngestConfig, tenant: str, user: str, session_id: str) -> str:
    return f"user\0{tenant}\0{user}" if config.held_out_by == "user" and user else session_key(session_id)
