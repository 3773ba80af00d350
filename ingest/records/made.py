"""Values that this process made itself: built without being validated again.

Bytes that come from elsewhere are validated where they are read, once. What is put together from them by our own code
is right already, and validating it costs more than putting it together.
"""

from collections.abc import Iterable
from functools import cache
from typing import TypeVar

from pydantic import BaseModel

Model = TypeVar("Model", bound=BaseModel)
_new, _put = object.__new__, object.__setattr__


def made(kind: type[Model], /, **fields: object) -> Model:
    """A `kind` of just these fields: all that it has, in the order it names them, of their own types."""
    value = _new(kind)
    _put(value, "__dict__", fields)
    _put(value, "__pydantic_fields_set__", _names(kind))
    _put(value, "__pydantic_extra__", None)
    _put(value, "__pydantic_private__", None)
    return value


def named_alike(values: Iterable[BaseModel]) -> None:
    """Let go of which fields each was given, 4 kB of a trace: nobody asks, and all of a kind can share a set."""
    for value in values:
        _put(value, "__pydantic_fields_set__", _names(type(value)))


@cache
def _names(kind: type[BaseModel]) -> set[str]:
    return set(kind.model_fields)
