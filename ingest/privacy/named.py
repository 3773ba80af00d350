"""Where secrets are that only their name tells: `password=`, `"api_key": "..."`, `--token ...`, `mot de passe : ...`.

The value of a password's name is taken nearly whatever it is; that of a key's, a token's or a secret's only where it
looks drawn by a machine. References to a value kept elsewhere (`os.environ[...]`, `${TOKEN}`), types and prose are not
secrets.
"""

import re
from collections.abc import Iterator

from ingest.privacy.checks import entropy_bits
from ingest.privacy.view import Place, View

_PASSWORDS = (
    "passw",
    "pwd",
    "passphrase",
    "passcode",
    "identified by",
    "mot de passe",
    "wachtwoord",
    "senha",
    "parola",
)
_FOREIGN_PASSWORDS = ("contraseña", "пароль", "密码", "密碼", "パスワード", "비밀번호", "hasło", "şifre", "lösenord")
_KEYS = ("secret", "token", "key", "credential", "pass", "auth")
_STEMS = _PASSWORDS + _KEYS
_ALL_STEMS = _STEMS + _FOREIGN_PASSWORDS
_QUALIFIED = re.compile(
    r"(?:api|access|secret|private|encryption|signing|auth|account|master|shared|service|subscription|licen[sc]e|deploy"
    r"|webhook|storage|client|admin|google|maps|stripe|[?&])[ _.\-]?$"
)
_PART_OF_A_NAME = re.compile(r"[_\-\"'?&]$")
_TOLD_BY = {"key": _QUALIFIED, "pass": _PART_OF_A_NAME, "auth": _PART_OF_A_NAME}
"""What must stand before a stem that alone says little."""
_WORD = re.compile("[a-z]{6}")
_REST = re.compile(r"[^\s\"'`<>&;,]*")  # of a bare value that is longer than was looked at
_FLAG = re.compile(r"--[\w\-]*$")
_ASSIGNED = re.compile(
    r"(?:ord|ort|d)?(?![a-z])(?P<suffix>[\w.\-]{0,24})[\"'`\])]{0,3}"
    r"(?:[ \t\u00a0]{0,3}(?:=>|:=|==|[=:\uff1a])[ \t]{0,3}"
    r"|[ \t]?(?:(?<![a-z])(?:is|ist|es|est|lautet|war|was)(?![a-z])|是|は)[ \t]?[:\uff1a]?[ \t]?"
    r"|(?P<spoken>[ \t]{1,2}))"
    r"(?:\"{1,2}(?P<double>[^\"\n]{4,4096})(?=\")|'{1,2}(?P<single>[^'\n]{4,4096})(?=')|`(?P<back>[^`\n]{4,4096})(?=`)"
    r"|(?P<bare>[^\s\"'`<>]{4,200}))"
)
_VALUES = ("double", "single", "back", "bare")
_NEXT_FIELD = re.compile(r"[&;,]\s{0,3}[\w\-]{1,40}\s?=|[,;][\"']")
_SAYS_MORE = re.compile(r"[\w.\-]+[=:(\[]|[a-z]+(?:[_.][a-z]+)+$")  # `bad_password attempt=3`
_MASKED = re.compile(r"\$\{.*\}$|\$(?:[A-Z_][A-Z0-9_]*|[a-z_]+)$|\$\(.*\)$|\{\{?|\[|%\(|<|(.)\1*$")
_REFERENCE = re.compile(  # what stands where a value would and only refers to it
    r"\$|\{|%\(|<|(?:os|env|process|self|this|config|settings|args|request|req|var|ctx|data|form|body|vault|secrets)[.\[]"
    r"|[A-Za-z_][\w.]*[(\[]|[A-Za-z_]+(?:\.[A-Za-z_]+)+$|[a-z]+(?:_[a-z]+)+$|[A-Z]+(?:_[A-Z]+)+$|(.)\1*$"
)
_WORDS = frozenset({
    "none", "null", "true", "false", "undefined", "required", "optional", "string", "str", "text", "bytes", "varchar",
    "char", "boolean", "bool", "object", "any", "number", "integer", "password", "passwd", "pwd", "token", "secret",
    "hidden", "redacted", "masked", "empty", "invalid", "wrong", "missing", "incorrect", "correct", "changed",
    "reset", "hash", "hashed", "field", "input", "value", "must", "should", "with", "your", "this", "that", "when",
    "from", "have", "been", "will", "used", "type", "error", "expired", "header", "param", "parameter", "unknown",
    "default", "example", "please", "enter", "protected", "manager", "policy", "login", "user", "username",
})  # fmt: skip
_TELLING = re.compile(
    r"(?:(?P<password>passw(?:or[dt]|d)?|pwd|passphrase|passcode)|secret|token|credentials?|authorization"
    r"|(?:api|access|secret|private|signing|auth|account)[_\-]?key(?:[_\-]id)?)(?:[_\-]?(?:value|prod|dev|test|\d+))?$"
)


def named_secrets(view: View) -> Iterator[Place]:
    """Values of names that tell what they hold, as code, logs, settings, JSON and people write them."""
    stems = _STEMS if view.text.isascii() else _ALL_STEMS
    for stem in view.present(stems, is_lower=True):
        for at in places(view.lower, stem):
            told_by = _TOLD_BY.get(stem)
            if told_by is None or told_by.search(view.before(at, 16)):
                yield from _value(view, stem, at)


def places(text: str, needle: str) -> Iterator[int]:
    """Every place of `needle`."""
    at = text.find(needle)
    while at >= 0:
        yield at
        at = text.find(needle, at + 1)


def is_held_by(name: str, value: str) -> bool:
    """Whether the field `name` holds `value` as a secret: all of it."""
    found = _TELLING.search(name.lower())
    return found is not None and (is_password(value) if found["password"] else is_drawn(value))


def is_password(value: str, is_quoted: bool = True, is_last: bool = True) -> bool:
    """Whether what a password's name was given is one. `is_last`: nothing else follows on its line."""
    if len(value) < 4 or " " in value or value.lower() in _WORDS or _MASKED.match(value):
        return False
    if is_quoted:
        return True
    if _REFERENCE.match(value) and not _has_digit(value):
        return False
    return _has_digit(value) or not value.isalpha() or is_last


def is_drawn(value: str) -> bool:
    """Whether a machine drew it: letters and digits without a blank, 2.75 bits a character or more."""
    if len(value) < 8 or any(map(str.isspace, value)) or not any(map(str.isalpha, value)) or _MASKED.match(value):
        return False
    return _has_digit(value) and not set("()[]") & set(value) and entropy_bits(value[:64]) >= 2.75


def _value(view: View, stem: str, at: int) -> Iterator[Place]:
    found = _ASSIGNED.match(view.lower, at + len(stem))
    if found is None:
        return
    is_quoted = found["bare"] is None
    start, end = found.span(next(group for group in _VALUES if found[group] is not None))
    if not is_quoted:
        end = _bare_end(view.text, start, end)
    value = view.text[start:end]
    if found["spoken"] and not _FLAG.search(view.before(at, 24)):  # `the password Kangaroo81 is refused`
        taken = (is_drawn(value) if stem in _KEYS else _is_mixed(value)) and not _SAYS_MORE.match(value)
    elif stem in _KEYS:
        drawn = _is_mixed(value) if stem == "pass" else is_drawn(value)
        taken = drawn and (is_quoted or stem == "pass" or not _is_identifier(value))
    else:
        is_limit = value.isdecimal() and bool(found["suffix"])  # `password_max_age: 86400`
        taken = is_password(value, is_quoted, view.text[end : end + 1] in ("", "\n", ",", ";", "&")) and not is_limit
    if taken:
        yield start, end if is_quoted or end < found.end("bare") else _rest_end(view.text, end)


def _rest_end(text: str, end: int) -> int:
    rest = _REST.match(text, end)
    return rest.end() if rest else end


def _is_identifier(value: str) -> bool:
    """Whether it rather is a name in code, as `Ed25519PrivateKey`: short, or with a word in it."""
    return value.isidentifier() and (len(value) < 12 or (len(value) < 25 and _WORD.search(value) is not None))


def _bare_end(text: str, start: int, end: int) -> int:
    if following := _NEXT_FIELD.search(text, start, end):
        end = following.start()
    while end > start and text[end - 1] in ",;.)}]:":
        end -= 1
    return end


def _has_digit(value: str) -> bool:
    return any(map(str.isdecimal, value))


def _is_mixed(value: str) -> bool:
    return len(value) >= 6 and _has_digit(value) and any(map(str.isalpha, value))
