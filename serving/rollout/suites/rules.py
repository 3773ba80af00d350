"""What a reply must be: one rule a class, each named by its one key in a suite's file. Pure.

A rule says why a reply breaks it, or nothing. Patterns run in time linear in the reply (RE2): what a candidate writes
cannot hold the runner up.
"""

from abc import abstractmethod
from enum import StrEnum
from typing import Annotated, Any

import jsonschema
import re2
from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from serving.rollout.suites.replies import Reply, json_in, last_number, most_repeated, script_share

_SHOWN = 60
_SCRIPT_SHARE = 0.8


class Frozen(BaseModel):
    """A value that refuses what it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class _Rule(Frozen):
    @abstractmethod
    def broken_by(self, reply: Reply) -> str | None:
        """Why the reply breaks this rule; none where it keeps it."""


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")


def _compiles(pattern: str) -> str:
    try:
        re2.compile(pattern)
    except re2.error as exc:
        raise ValueError(f"must be a regular expression that RE2 takes, got {pattern!r}: {exc}") from exc
    return pattern


def _is_schema(schema: dict[str, Any]) -> dict[str, Any]:
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as exc:
        raise ValueError(f"must be a JSON schema: {exc.message}") from exc
    return schema


Pattern = Annotated[str, AfterValidator(_compiles)]
Schema = Annotated[dict[str, Any], AfterValidator(_is_schema)]
Words = Annotated[tuple[str, ...], Field(min_length=1)]


class Equals(_Rule):
    """The whole reply, without space, capitals and a full stop."""

    equals: str

    def broken_by(self, reply: Reply) -> str | None:
        same = self._plain(reply.text) == self._plain(self.equals)
        return None if same else f"must be {self.equals!r}, got {_shown(reply.text)}"

    @staticmethod
    def _plain(text: str) -> str:
        return " ".join(text.casefold().split()).strip(".!\"'` ")


class Contains(_Rule):
    """One of these stands in the reply, in capitals or not."""

    contains: str | Words

    def broken_by(self, reply: Reply) -> str | None:
        wanted = (self.contains,) if isinstance(self.contains, str) else self.contains
        found = any(one.casefold() in reply.text.casefold() for one in wanted)
        return None if found else f"must contain {' or '.join(map(repr, wanted))}, got {_shown(reply.text)}"


class Lacks(_Rule):
    """None of these stands in the reply, in capitals or not."""

    lacks: str | Words

    def broken_by(self, reply: Reply) -> str | None:
        unwanted = (self.lacks,) if isinstance(self.lacks, str) else self.lacks
        found = next((one for one in unwanted if one.casefold() in reply.text.casefold()), None)
        return None if found is None else f"must not contain {found!r}"


class Matches(_Rule):
    """A pattern is found in the reply."""

    matches: Pattern

    def broken_by(self, reply: Reply) -> str | None:
        found = re2.search(self.matches, reply.text)
        return None if found else f"must match {self.matches!r}, got {_shown(reply.text)}"


class _Number(Frozen):
    value: float = Field(alias="is")
    within: float = Field(0.0, ge=0.0)


class Number(_Rule):
    """The last number in the reply."""

    number: _Number

    def broken_by(self, reply: Reply) -> str | None:
        found = last_number(reply.text)
        is_right = found is not None and abs(found - self.number.value) <= self.number.within
        return None if is_right else f"must end in the number {self.number.value:g}, got {_shown(reply.text)}"


class Json(_Rule):
    """The reply, or its first fence, is JSON that a schema takes."""

    json_schema: Schema

    def broken_by(self, reply: Reply) -> str | None:
        try:
            jsonschema.validate(json_in(reply.text), self.json_schema)
        except ValueError:
            return f"must be JSON, got {_shown(reply.text)}"
        except jsonschema.ValidationError as exc:
            return f"must keep to its schema: {exc.message:.80}"
        return None


class Finish(_Rule):
    """How the reply came to its end."""

    finish: Words

    def broken_by(self, reply: Reply) -> str | None:
        is_one = reply.finish_reason in self.finish
        return None if is_one else f"must finish with {' or '.join(self.finish)}, got {reply.finish_reason}"


class _Range(Frozen):
    min: int = Field(0, ge=0)
    max: int | None = Field(None, ge=0)

    @model_validator(mode="after")
    def _holds_something(self) -> "_Range":
        if self.max is not None and self.max < self.min:
            raise ValueError(f"`max` must be `min` or more, got {self.max} and {self.min}")
        return self


class Length(_Rule):
    """How many words the reply has."""

    words: _Range

    def broken_by(self, reply: Reply) -> str | None:
        num, most = len(reply.text.split()), self.words.max
        if self.words.min <= num and (most is None or num <= most):
            return None
        return f"must have {self.words.min} to {'any number of' if most is None else most} words, got {num}"


class Script(StrEnum):
    """Scripts, by the word that their letters' names in Unicode begin with."""

    LATIN = "latin"
    CYRILLIC = "cyrillic"
    GREEK = "greek"
    ARABIC = "arabic"
    HEBREW = "hebrew"
    DEVANAGARI = "devanagari"
    HAN = "cjk"
    HANGUL = "hangul"
    HIRAGANA = "hiragana"
    THAI = "thai"


class InScript(_Rule):
    """At least 80 % of the reply's letters are of a script."""

    script: Script

    def broken_by(self, reply: Reply) -> str | None:
        share = script_share(reply.text, self.script)
        return None if share >= _SCRIPT_SHARE else f"must be in {self.script} letters, {share:.0%} are"


class _Repeats(Frozen):
    words: int = Field(4, ge=1)
    max: int = Field(ge=1)


class Repeats(_Rule):
    """No run of `words` words stands more than `max` times in the reply."""

    repeats: _Repeats

    def broken_by(self, reply: Reply) -> str | None:
        num = most_repeated(reply.text, self.repeats.words)
        told = f"must say no {self.repeats.words} words more than {self.repeats.max} times, says some {num} times"
        return None if num <= self.repeats.max else told


class _Call(Frozen):
    tool: str
    arguments: Schema = {}


class Calls(_Rule):
    """The reply calls a tool, with arguments that a schema takes."""

    calls: _Call

    def broken_by(self, reply: Reply) -> str | None:
        call = next((one for one in reply.tool_calls if one.tool == self.calls.tool), None)
        if call is None:
            return f"must call {self.calls.tool}, got {_shown(reply.text)}"
        broken = Json(json_schema=self.calls.arguments).broken_by(Reply(call.arguments))
        return broken and f"arguments of {self.calls.tool}: {broken}"


_KINDS = (Equals, Contains, Lacks, Matches, Number, Json, Finish, Length, InScript, Repeats, Calls)
NAMES = tuple(next(iter(kind.model_fields)) for kind in _KINDS)
"""What rules are called in a file."""


def _name_of(given: Any) -> str | None:
    keys = list(given) if isinstance(given, dict) else list(getattr(type(given), "model_fields", ()))
    return keys[0] if len(keys) == 1 and keys[0] in NAMES else None


Rule = Annotated[
    Annotated[Equals, Tag("equals")]
    | Annotated[Contains, Tag("contains")]
    | Annotated[Lacks, Tag("lacks")]
    | Annotated[Matches, Tag("matches")]
    | Annotated[Number, Tag("number")]
    | Annotated[Json, Tag("json_schema")]
    | Annotated[Finish, Tag("finish")]
    | Annotated[Length, Tag("words")]
    | Annotated[InScript, Tag("script")]
    | Annotated[Repeats, Tag("repeats")]
    | Annotated[Calls, Tag("calls")],
    Discriminator(
        _name_of,
        custom_error_type="unknown_rule",
        custom_error_message=f"must have one key, of {', '.join(NAMES)}",
    ),
]
