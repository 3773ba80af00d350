"""What serving does with what users typed, before the first durable write: names made pseudonyms, texts redacted,
records sealed under the key of whom they are about.

A trace is about its user, or its tenant where none is named; feedback with a comment about its user, or its session.
Feedback without a comment holds nobody's words and is not sealed.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

from infra.config import Config
from ingest.privacy import secret
from ingest.privacy.generations import DataKey
from ingest.privacy.keys import KeyStore
from ingest.privacy.placeholders import Placeholders
from ingest.privacy.pseudonyms import subject_of, user_pseudonym
from ingest.privacy.redact import Redactor
from ingest.privacy.sealed_log import Keyring, sealed
from ingest.privacy.secret import Secret
from ingest.records import codec
from ingest.records.events import Feedback, Headers, Trace, key_of, session_key
from ingest.records.ids import is_trace_id
from ingest.records.named import IDS_HEADER, feedback_header, ids_header
from ingest.records.packing import Logprobs, TokenIds

Pieces = Callable[[Sequence[int]], Sequence[str]]
"""Token ids -> what each adds to the text, `APART` where that is none."""

USER_FIELDS = ("user", "safety_identifier")
_ID_FIELDS, _MAX_ID = ("prompt", "token_ids"), 2**31 - 1
_FILLER = 0  # the token that stands for redacted ones; what it spells is nobody's


class Intake:
    """Made once for each process that serves. Safe to share between threads; only `key_for` may wait for the keys."""

    def __init__(self, redactor: Redactor, secret: Secret, keyring: Keyring | None) -> None:
        """`keyring` is `None` where nothing is sealed."""
        self._redactor, self._secret, self._keyring = redactor, secret, keyring

    @classmethod
    def of(cls, config: Config) -> "Intake":
        """As configured. Raises `ConfigError`, `StoreError`."""
        keys = KeyStore.of(config) if config.privacy.seal else None
        if keys is not None:
            keys.verify()
        return cls(Redactor.of(config.privacy), secret.load(config.privacy, config.run_dir), keys)

    @property
    def seals(self) -> bool:
        """Whether anything is sealed."""
        return self._keyring is not None

    def pseudonym(self, tenant: str, user: str) -> str:
        """What a user is called from here on."""
        return user_pseudonym(self._secret, tenant, user)

    def key_for(self, user: str, tenant: str, session: str | None = None) -> DataKey | None:
        """The key of whom a record is about: a pseudonym, else the session with that key, else the tenant.

        Raises:
            StoreError: the keys do not answer.
        """
        return self._keyring.key_for(subject_of(user, tenant, session)) if self._keyring else None

    def redact_trace(self, trace: Trace, pieces: Pieces) -> Trace:
        """A whole trace without private values; cut it afterwards, or the cut may part a value.

        Tokens that spell a private value are all replaced by one token, one for one: positions stay. Their
        log-probabilities are 0. Prompt and reply are looked through as one, and for the values of all texts.
        """
        placeholders = _Noting(self._secret.placeholders, session_key(trace.session_id))
        request, found = self._redactor.redact_json(trace.request, placeholders)
        reply, in_reply = self._redactor.redact_text(trace.reply_text, placeholders)
        redact = partial(self._redact_tokens, pieces=pieces, values=placeholders.values)
        num, sampled = len(trace.prompt_token_ids), (*trace.prompt_token_ids, *trace.token_ids)
        ids, altered = redact(sampled)

        def redact_prompt(given: tuple[int, ...]) -> tuple[int, ...]:
            return ids[:num] if given == sampled[:num] else redact(given)[0]

        with_ids = _with_ids(request, redact_prompt)
        counts = found + in_reply
        if (altered or with_ids != request) and not counts:
            counts["tokens"] = max(1, len(altered))
        if not counts:
            return trace
        logprobs, altered_of_reply = list(trace.logprobs), [at - num for at in altered if at >= num]
        for position in altered_of_reply:
            logprobs[position] = 0.0
        return trace.model_copy(
            update={
                "request": with_ids,
                "reply_text": reply,
                "prompt_token_ids": TokenIds(ids[:num]),
                "token_ids": TokenIds(ids[num:]),
                "logprobs": Logprobs(logprobs),
                "redacted": dict(counts),
                "is_reply_altered": bool(altered_of_reply or in_reply),
            }
        )

    def redact_feedback(self, feedback: Feedback) -> Feedback:
        """Feedback without private values in its comment; its placeholders are those of its session's turns."""
        key = key_of(session_id=feedback.session_id, trace_id=feedback.trace_id)
        comment, found = self._redactor.redact_text(feedback.comment, self._placeholders(key))
        return feedback.model_copy(update={"comment": comment, "redacted": dict(found)}) if found else feedback

    def close_trace(self, trace: Trace, key: DataKey | None) -> tuple[bytes, bytes, Headers]:
        """A trace's value as it is read again, the value as it is written, and the headers that go with that."""
        plain, headers = codec.encode(trace)
        return plain, *_closed(plain, headers | {IDS_HEADER: ids_header([trace.trace_id])}, key)

    def close_feedback(self, feedback: Feedback) -> tuple[bytes, Headers]:
        """Feedback as it is written. Raises `StoreError` where the keys do not answer."""
        value, headers = codec.encode(feedback)
        if not feedback.comment:
            return value, headers
        is_of_a_session = bool(feedback.session_id) or is_trace_id(feedback.trace_id or "")
        session = key_of(session_id=feedback.session_id, trace_id=feedback.trace_id) if is_of_a_session else None
        key = self.key_for(feedback.user, feedback.tenant, session)
        return _closed(value, headers | {IDS_HEADER: feedback_header(feedback.feedback_id)}, key)

    def _placeholders(self, session_key: str) -> Placeholders:
        return Placeholders(self._secret.placeholders, session_key)

    def _redact_tokens(
        self, token_ids: Sequence[int], pieces: Pieces, values: Collection[str]
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return self._redactor.redact_tokens(token_ids, pieces(token_ids), _FILLER, values)


class _Noting(Placeholders):
    """Placeholders that note which values they stand for."""

    def __init__(self, secret: bytes, session: str) -> None:
        super().__init__(secret, session)
        self.values: set[str] = set()

    def of(self, kind: str, value: str) -> str:
        self.values.add(value)
        return super().of(kind, value)


class _One:
    """The keyring of one record, whose key is at hand."""

    def __init__(self, key: DataKey) -> None:
        self._key = key

    def key_for(self, subject: str) -> DataKey:
        return self._key

    def find(self, subject: str, generation: str) -> DataKey | None:
        return self._key


def _with_ids(request: dict[str, Any], redact: Callable[[tuple[int, ...]], tuple[int, ...]]) -> dict[str, Any]:
    """A request whose prompt is redacted too where it is given as token ids, or as a list of such."""

    def redacted(given: Any) -> Any:
        if not isinstance(given, list):
            return given
        if given and all(isinstance(token, int) and 0 <= token <= _MAX_ID for token in given):
            return list(redact(tuple(given)))
        return [redacted(part) for part in given]

    return request | {name: redacted(request[name]) for name in _ID_FIELDS if name in request}


def _closed(value: bytes, headers: Headers, key: DataKey | None) -> tuple[bytes, Headers]:
    if key is None:
        return value, headers
    return sealed(value, headers | {codec.SUBJECT_HEADER: key.subject}, _One(key))


def user_in(request: Mapping[str, Any]) -> str:
    """Who a request says that its user is: OpenAI's `user` and `safety_identifier`, Anthropic's `metadata.user_id`."""
    metadata = request.get("metadata")
    named = [request.get(field) for field in USER_FIELDS]
    named.append(metadata.get("user_id") if isinstance(metadata, dict) else None)
    return next((name for name in named if isinstance(name, str) and name), "")


def without_user(request: dict[str, Any]) -> dict[str, Any]:
    """A request that does not say who its user is."""
    kept = {name: value for name, value in request.items() if name not in USER_FIELDS}
    metadata = kept.get("metadata")
    if isinstance(metadata, dict) and "user_id" in metadata:
        kept["metadata"] = {name: value for name, value in metadata.items() if name != "user_id"}
    return kept
