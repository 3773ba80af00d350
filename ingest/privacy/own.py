"""Own patterns: names and regular expressions from the configuration.

They are run by RE2, whose time is linear in the text whatever the pattern: with Python's `re`, one careless pattern and
one unlucky text would hold up every reply. What RE2 does not know (look-around, back-references) is refused.
"""

import re
from collections.abc import Iterator

import re2

from infra.errors import ConfigError
from ingest.privacy.view import Finder, Place, View

MAX_CHARS = 1000
_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_BYTES = 8 << 20  # of RE2's program for one pattern


def finder(name: str, pattern: str) -> Finder:
    """The finder of an own pattern. Raises `ConfigError` naming it, the rule and what was got."""
    where = f"privacy.patterns.{name}"
    if len(pattern) > MAX_CHARS:
        raise ConfigError(f"{where}: at most {MAX_CHARS} characters, got {len(pattern)}")
    options = re2.Options()
    options.max_mem, options.log_errors = _MAX_BYTES, False
    try:
        compiled = re2.compile(pattern, options)
    except re2.error as exc:
        reason = exc.args[0].decode() if isinstance(exc.args[0], bytes) else exc.args[0]
        raise ConfigError(f"{where}: must be a regular expression that RE2 knows ({reason}), got {pattern!r}") from exc
    if compiled.search("") is not None:
        raise ConfigError(f"{where}: must not match the empty text, got {pattern!r}")

    def find(view: View) -> Iterator[Place]:
        return (match.span() for match in compiled.finditer(_encodable(view.text)) if match.end() > match.start())

    return find


def _encodable(text: str) -> str:
    """RE2 reads UTF-8, which has no halves of surrogate pairs; JSON can bring some."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)
